//! Interrupts, which the fields and the image must describe alike.

use super::{
    super::{DescriptorError, InterruptParts, Interrupts, MsixPart},
    bars::Bars,
};
use crate::{
    BarIndex,
    capability::{Area, MsiView, MsixView, find, id},
    registers::INTERRUPT_PIN,
};

pub(super) fn validate(
    parts: &InterruptParts,
    image: &[u8],
    bars: &Bars,
) -> Result<Interrupts, DescriptorError> {
    Ok(Interrupts {
        intx_pin: intx(parts.intx_pin, image)?,
        msi_vectors: msi(parts.msi_vectors, image)?,
        msix_vectors: msix(parts.msix_vectors, image, bars)?,
    })
}

fn intx(value: u32, image: &[u8]) -> Result<u8, DescriptorError> {
    let declared = u8::try_from(value)
        .ok()
        .filter(|&pin| pin <= 4)
        .ok_or(DescriptorError::IntxPin { value })?;
    let image = image[INTERRUPT_PIN];
    if declared != image {
        return Err(DescriptorError::IntxDisagrees { declared, image });
    }
    Ok(declared)
}

fn msi(declared: u32, image: &[u8]) -> Result<u8, DescriptorError> {
    let in_image = match find(image, id::MSI) {
        None => 0,
        Some(offset) => MsiView::at(image, offset)
            .vectors()
            .ok_or(DescriptorError::MsiReserved { offset })?,
    };
    if declared != u32::from(in_image) {
        return Err(DescriptorError::MsiDisagrees {
            declared,
            image: in_image,
        });
    }
    Ok(in_image)
}

fn msix(declared: u32, image: &[u8], bars: &Bars) -> Result<u16, DescriptorError> {
    let view = find(image, id::MSIX).map(|offset| MsixView::at(image, offset));
    let in_image = view.map_or(0, MsixView::vectors);
    if declared != u32::from(in_image) {
        return Err(DescriptorError::MsixDisagrees {
            declared,
            image: in_image,
        });
    }
    if let Some(view) = view {
        validate_msix_areas(view, bars)?;
    }
    Ok(in_image)
}

fn validate_msix_areas(view: MsixView, bars: &Bars) -> Result<(), DescriptorError> {
    let (table, pba) = (view.table(), view.pba());
    validate_area(MsixPart::Table, table, bars)?;
    validate_area(MsixPart::Pba, pba, bars)?;
    if table.overlaps(pba) {
        return Err(DescriptorError::MsixOverlap { offset: pba.offset });
    }
    Ok(())
}

fn validate_area(part: MsixPart, area: Area, bars: &Bars) -> Result<(), DescriptorError> {
    let bar = BarIndex::new(area.bir)
        .and_then(|index| bars[index.as_usize()])
        .filter(|bar| bar.kind.is_memory())
        .ok_or(DescriptorError::MsixBar {
            part,
            bir: area.bir,
        })?;
    if area.end() > bar.size {
        return Err(DescriptorError::MsixTooLong {
            part,
            offset: area.offset,
            length: area.length,
            size: bar.size,
        });
    }
    Ok(())
}
