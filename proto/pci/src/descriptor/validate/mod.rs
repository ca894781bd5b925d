//! The one door: [`DescriptorParts`] become a valid descriptor, or an error that names the field.

mod bars;
mod config;
mod interrupts;
mod lists;
mod platform;
mod ranges;
mod recovery;

use super::{DescriptorError, DescriptorParts, Inner, Region};
use crate::BarIndex;

/// Sizes that an expansion ROM's register can say (PCI 3.0 section 6.2.5.2): 2 KiB to 16 MiB.
const ROM_BYTES: std::ops::RangeInclusive<usize> = 2 << 10..=16 << 20;

/// Regions by index.
type Regions = [Option<Region>; BarIndex::COUNT];

pub(super) fn validate(mut parts: DescriptorParts) -> Result<Inner, DescriptorError> {
    match parts.platform.take() {
        None => validate_pci(parts),
        Some(platform) => platform::validate(&parts, platform),
    }
}

fn validate_pci(mut parts: DescriptorParts) -> Result<Inner, DescriptorError> {
    let bars = bars::validate(&parts.bars)?;
    let config = config::validate(&mut parts, &bars)?;
    validate_rom(&parts.rom)?;
    let regions = bars.map(|bar| {
        bar.map(|bar| Region {
            memory: bar.kind.is_memory(),
            size: bar.size,
        })
    });
    let ranges = ranges::validate(&parts.ranges, &regions)?;
    let interrupts = interrupts::validate(&parts.interrupts, &config.image, &bars)?;
    let recovery = recovery::validate(&parts.recovery, &regions)?;
    Ok(Inner {
        config,
        bars,
        regions,
        platform: None,
        rom: parts.rom,
        ranges,
        interrupts,
        recovery,
    })
}

fn validate_rom(rom: &[u8]) -> Result<(), DescriptorError> {
    let length = rom.len();
    let valid = length == 0 || length.is_power_of_two() && ROM_BYTES.contains(&length);
    valid
        .then_some(())
        .ok_or(DescriptorError::RomLength { length })
}
