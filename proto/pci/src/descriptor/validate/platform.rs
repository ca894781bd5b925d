//! A platform function: ranges at fixed addresses, and nothing of PCI.

use super::{
    super::{Config, DescriptorError, DescriptorParts, Inner, Interrupts, Region},
    ranges, recovery,
};
use crate::{AddressKind, BarIndex, Platform, PlatformError, PlatformParts};

pub(super) fn validate(
    parts: &DescriptorParts,
    platform: PlatformParts,
) -> Result<Inner, DescriptorError> {
    forbid_pci_parts(parts)?;
    let platform = Platform::try_from(platform)?;
    let mut regions = [None; BarIndex::COUNT];
    for index in BarIndex::all() {
        regions[index.as_usize()] = platform.region(index).map(|range| Region {
            memory: range.bus == AddressKind::Memory,
            size: range.length,
        });
    }
    Ok(Inner {
        config: Config::default(),
        bars: [None; BarIndex::COUNT],
        regions,
        rom: Vec::new(),
        ranges: ranges::validate(&parts.ranges, &regions)?,
        interrupts: interrupts(parts, platform.line())?,
        recovery: recovery::validate(&parts.recovery, &regions)?,
        platform: Some(platform),
    })
}

fn forbid_pci_parts(parts: &DescriptorParts) -> Result<(), PlatformError> {
    let interrupts = &parts.interrupts;
    let pci = [
        ("config_image", !parts.config_image.is_empty()),
        ("config_writable", !parts.config_writable.is_empty()),
        (
            "config_write_one_to_clear",
            !parts.config_write_one_to_clear.is_empty(),
        ),
        ("config_volatile", !parts.config_volatile.is_empty()),
        ("config_forwarded", !parts.config_forwarded.is_empty()),
        ("config_writes", parts.config_writes.is_some()),
        ("bars", !parts.bars.is_empty()),
        ("rom", !parts.rom.is_empty()),
        ("interrupts.msi_vectors", interrupts.msi_vectors != 0),
        ("interrupts.msix_vectors", interrupts.msix_vectors != 0),
    ];
    match pci.into_iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(PlatformError::PciPart { field }),
        None => Ok(()),
    }
}

/// The line is level-triggered and travels as INTx does.
fn interrupts(parts: &DescriptorParts, line: Option<u32>) -> Result<Interrupts, PlatformError> {
    let pin = u8::from(line.is_some());
    let (declared, expected) = (parts.interrupts.intx_pin, u32::from(pin));
    if declared != expected {
        return Err(PlatformError::Interrupt { declared, expected });
    }
    Ok(Interrupts {
        intx_pin: pin,
        ..Interrupts::default()
    })
}
