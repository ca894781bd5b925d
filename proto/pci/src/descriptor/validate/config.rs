//! The configuration image and its masks.

use super::{
    super::{Config, DescriptorError, DescriptorParts, Mask},
    bars::Bars,
    lists,
};
use crate::{
    BarIndex,
    bytes::{le16, le32},
    registers::{
        BAR_END, BAR0, CAPABILITIES_POINTER, CLASS_CODE, COMMAND, COMMAND_BUS_MASTER, COMMAND_IO,
        COMMAND_MEMORY, CONFIG_SIZE, DEVICE_ID, EXTENDED_CONFIG_SIZE, HEADER_TYPE, INTERRUPT_PIN,
        REVISION_ID, ROM, ROM_END, VENDOR_ID,
    },
};

/// Takes the image and the masks out of `parts`.
pub(super) fn validate(
    parts: &mut DescriptorParts,
    bars: &Bars,
) -> Result<Config, DescriptorError> {
    let image = std::mem::take(&mut parts.config_image);
    let length = image.len();
    if length != CONFIG_SIZE && length != EXTENDED_CONFIG_SIZE {
        return Err(DescriptorError::ImageLength { length });
    }
    validate_header(&image)?;
    validate_bar_registers(&image, bars)?;
    let headers = lists::validate(&image)?;

    let mut masks = Masks {
        length,
        headers: &headers,
    };
    let config = Config {
        writable: masks.take(Mask::Writable, &mut parts.config_writable)?,
        write_one_to_clear: masks
            .take(Mask::WriteOneToClear, &mut parts.config_write_one_to_clear)?,
        volatile: masks.take(Mask::Volatile, &mut parts.config_volatile)?,
        forwarded: masks.take(Mask::Forwarded, &mut parts.config_forwarded)?,
        image,
        writes: parts.config_writes,
    };
    validate_disjoint(&config)?;
    Ok(config)
}

fn validate_header(image: &[u8]) -> Result<(), DescriptorError> {
    const OFF_AT_POWER_ON: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_BUS_MASTER;
    /// The header's layout; the highest bit says whether there are more functions.
    const LAYOUT: u8 = 0x7f;

    if le16(image, VENDOR_ID) == 0xffff {
        return Err(DescriptorError::VendorId);
    }
    let value = image[HEADER_TYPE];
    if value & LAYOUT != 0 {
        return Err(DescriptorError::HeaderType { value });
    }
    let value = le16(image, COMMAND);
    if value & OFF_AT_POWER_ON != 0 {
        return Err(DescriptorError::CommandAtPowerOn { value });
    }
    Ok(())
}

/// The registers of absent BARs and of upper halves hold 0.
fn validate_bar_registers(image: &[u8], bars: &Bars) -> Result<(), DescriptorError> {
    for index in BarIndex::all() {
        let value = le32(image, BAR0 + 4 * index.as_usize());
        let expected = bars[index.as_usize()].map_or(0, |bar| bar.type_bits());
        if value != expected {
            return Err(DescriptorError::BarRegister {
                index: index.get(),
                value,
                expected,
            });
        }
    }
    match le32(image, ROM) {
        0 => Ok(()),
        value => Err(DescriptorError::RomRegister { value }),
    }
}

/// What masks are checked against.
struct Masks<'a> {
    /// The image's bytes.
    length: usize,
    /// Where capabilities begin, as (offset, bytes of the header).
    headers: &'a [(usize, usize)],
}

impl Masks<'_> {
    /// The mask, in full length.
    fn take(&mut self, mask: Mask, bytes: &mut Vec<u8>) -> Result<Vec<u8>, DescriptorError> {
        let bytes = std::mem::take(bytes);
        if bytes.is_empty() {
            return Ok(vec![0; self.length]);
        }
        if bytes.len() != self.length {
            return Err(DescriptorError::MaskLength {
                mask,
                length: bytes.len(),
                expected: self.length,
            });
        }
        forbid(mask, &bytes, BAR0..BAR_END, "a BAR")?;
        forbid(mask, &bytes, ROM..ROM_END, "the expansion ROM register")?;
        if mask != Mask::Forwarded {
            self.validate_fixed(mask, &bytes)?;
        }
        Ok(bytes)
    }

    /// What says what the function is stays as it is: later code has looked at it once.
    fn validate_fixed(&self, mask: Mask, bytes: &[u8]) -> Result<(), DescriptorError> {
        let fixed = [
            (VENDOR_ID..DEVICE_ID + 2, "the vendor and device ids"),
            (REVISION_ID..CLASS_CODE + 3, "the revision and class code"),
            (HEADER_TYPE..HEADER_TYPE + 1, "the header type"),
            (
                CAPABILITIES_POINTER..CAPABILITIES_POINTER + 1,
                "the capabilities pointer",
            ),
            (INTERRUPT_PIN..INTERRUPT_PIN + 1, "the interrupt pin"),
        ];
        for (range, register) in fixed {
            forbid(mask, bytes, range, register)?;
        }
        for &(offset, length) in self.headers {
            forbid(
                mask,
                bytes,
                offset..offset + length,
                "a capability's header",
            )?;
        }
        Ok(())
    }
}

fn forbid(
    mask: Mask,
    bytes: &[u8],
    range: std::ops::Range<usize>,
    register: &'static str,
) -> Result<(), DescriptorError> {
    for offset in range {
        let value = bytes[offset];
        if value != 0 {
            return Err(DescriptorError::MaskForbidden {
                mask,
                offset,
                value,
                register,
            });
        }
    }
    Ok(())
}

fn validate_disjoint(config: &Config) -> Result<(), DescriptorError> {
    let both = config.writable.iter().zip(&config.write_one_to_clear);
    for (offset, (writable, clears)) in both.enumerate() {
        let value = writable & clears;
        if value != 0 {
            return Err(DescriptorError::MasksOverlap { offset, value });
        }
    }
    Ok(())
}
