#![allow(clippy::unwrap_used)]

mod bars;
mod capabilities;
mod header;
mod messages;
mod model;
mod saved;

use super::ConfigSpace;
use crate::{Bar, BarIndex, Capability, Descriptor, DescriptorBuilder, registers::BAR0};

/// A function with a BAR of each kind, a ROM and the usual capabilities.
pub(super) fn descriptor() -> Descriptor {
    DescriptorBuilder::new(0x1234, 0x5678)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .bar(BarIndex::B1, Bar::io(16))
        .bar(BarIndex::B2, Bar::memory64(1 << 20).prefetchable())
        .bar(BarIndex::B4, Bar::memory_below_1m(4096))
        .rom(vec![0x55; 4096])
        .capability(Capability::power_management())
        .capability(Capability::msi(4, true).unwrap())
        .capability(Capability::pci_express_endpoint(true))
        .capability(Capability::msix(8, (BarIndex::B2, 0), (BarIndex::B2, 0x800)).unwrap())
        .intx_pin(1)
        .build()
        .unwrap()
}

pub(super) fn config() -> ConfigSpace {
    ConfigSpace::new(&descriptor())
}

pub(super) fn read32(config: &ConfigSpace, offset: usize) -> u32 {
    let mut bytes = [0; 4];
    let _ = config.read(u16::try_from(offset).unwrap(), &mut bytes);
    u32::from_le_bytes(bytes)
}

pub(super) fn write32(config: &mut ConfigSpace, offset: usize, value: u32) -> super::WriteOutcome {
    config.write(u16::try_from(offset).unwrap(), &value.to_le_bytes())
}

pub(super) fn bar_offset(index: BarIndex) -> usize {
    BAR0 + 4 * index.as_usize()
}
