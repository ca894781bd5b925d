#![allow(clippy::unwrap_used)]

mod door;
mod image;
mod lists;
mod platform;
mod policy;
mod recovery;

use super::{Descriptor, DescriptorError, DescriptorParts, Mask};
use crate::{Bar, BarIndex, Capability, DescriptorBuilder, RegisterRange, WritePolicy};

/// A function with something of everything, as it travels.
fn parts() -> DescriptorParts {
    DescriptorBuilder::new(0x1234, 0x5678)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .bar(BarIndex::B1, Bar::io(16))
        .bar(BarIndex::B2, Bar::memory64(1 << 20).prefetchable())
        .bar(BarIndex::B4, Bar::memory_below_1m(4096))
        .rom(vec![0x55; 4096])
        .capability_at(0x40, Capability::power_management())
        .capability_at(0x48, Capability::msi(4, true).unwrap())
        .capability_at(
            0x60,
            Capability::msix(8, (BarIndex::B2, 0), (BarIndex::B2, 0x800)).unwrap(),
        )
        .capability_at(0x70, Capability::pci_express_endpoint(true))
        .extended_config()
        .intx_pin(1)
        .range(RegisterRange::new(BarIndex::B0, 0x100, 16).doorbell())
        .range(RegisterRange::new(BarIndex::B0, 0x200, 0x100).combining())
        .range(RegisterRange::new(BarIndex::B0, 0x300, 16).writes(WritePolicy::NonPosted))
        .range(RegisterRange::new(BarIndex::B2, 0x1000, 8).constant())
        .range(RegisterRange::new(BarIndex::B1, 8, 8).writes(WritePolicy::Posted))
        .volatile(0xf0, &[0xff])
        .forwarded(0x04, &[0x04])
        .build()
        .unwrap()
        .to_parts()
}

/// The error of these parts after a change.
fn error(change: impl FnOnce(&mut DescriptorParts)) -> DescriptorError {
    let mut parts = parts();
    change(&mut parts);
    Descriptor::try_from(parts).unwrap_err()
}

/// A mask in full length.
fn bytes_of(parts: &mut DescriptorParts, mask: Mask) -> &mut [u8] {
    let bytes = match mask {
        Mask::Writable => &mut parts.config_writable,
        Mask::WriteOneToClear => &mut parts.config_write_one_to_clear,
        Mask::Volatile => &mut parts.config_volatile,
        Mask::Forwarded => &mut parts.config_forwarded,
    };
    bytes.resize(parts.config_image.len(), 0);
    bytes
}
