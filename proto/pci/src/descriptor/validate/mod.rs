//! The one door: [`DescriptorParts`] become a valid descriptor, or an error that names the field.

mod bars;
mod config;
mod interrupts;
mod lists;
mod ranges;

use super::{DescriptorError, DescriptorParts, Inner};

/// Sizes that an expansion ROM's register can say (PCI 3.0 section 6.2.5.2): 2 KiB to 16 MiB.
const ROM_BYTES: std::ops::RangeInclusive<usize> = 2 << 10..=16 << 20;

pub(super) fn validate(mut parts: DescriptorParts) -> Result<Inner, DescriptorError> {
    let bars = bars::validate(&parts.bars)?;
    let config = config::validate(&mut parts, &bars)?;
    validate_rom(&parts.rom)?;
    let ranges = ranges::validate(&parts.ranges, &bars)?;
    let interrupts = interrupts::validate(&parts.interrupts, &config.image, &bars)?;
    Ok(Inner {
        config,
        bars,
        rom: parts.rom,
        ranges,
        interrupts,
    })
}

fn validate_rom(rom: &[u8]) -> Result<(), DescriptorError> {
    let length = rom.len();
    let valid = length == 0 || length.is_power_of_two() && ROM_BYTES.contains(&length);
    valid
        .then_some(())
        .ok_or(DescriptorError::RomLength { length })
}
