//! What a device is: the PCI function that a guest will see, and how its registers are to be treated.

mod difference;
mod error;
mod parts;
mod policy;
mod recovery;
#[cfg(test)]
mod tests;
mod validate;

use std::{fmt, sync::Arc};

pub use difference::Difference;
pub use error::{DescriptorError, Mask, MsixPart, RangeConflict, RecoveryError, RecoveryList};
pub use parts::{
    BarParts, DescriptorParts, FailedRegisterParts, InterruptParts, RangeParts, RecoveryParts,
    ResetWriteParts,
};
pub use policy::{RegisterRange, WritePolicy};
pub use recovery::{FailedRegister, Recovery, ResetWrite};

use crate::{
    Bar, BarIndex, Platform, Space,
    bytes::le16,
    registers::{CLASS_CODE, DEVICE_ID, REVISION_ID, SUBSYSTEM_ID, SUBSYSTEM_VENDOR_ID, VENDOR_ID},
};
use policy::Ranges;

/// A valid description of a PCI function. Immutable, and cheap to clone: clones share one allocation.
///
/// It comes from [`DescriptorParts`] (a peer's) or from a [`DescriptorBuilder`](crate::DescriptorBuilder) (one's own), and both
/// pass the same checks.
#[derive(Clone, PartialEq, Eq)]
pub struct Descriptor {
    inner: Arc<Inner>,
}

#[derive(PartialEq, Eq)]
struct Inner {
    config: Config,
    bars: [Option<Bar>; BarIndex::COUNT],
    regions: [Option<Region>; BarIndex::COUNT],
    platform: Option<Platform>,
    /// Empty: none.
    rom: Vec<u8>,
    ranges: Ranges,
    interrupts: Interrupts,
    recovery: Recovery,
}

/// What [`Space::Bar`] of an index is: behind a base address register, or at a platform function's fixed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Memory, not ports.
    pub memory: bool,
    /// Bytes.
    pub size: u64,
}

/// The configuration image and the class of each bit, all of one length: that of a platform function is 0.
#[derive(Default, PartialEq, Eq)]
struct Config {
    image: Vec<u8>,
    writable: Vec<u8>,
    write_one_to_clear: Vec<u8>,
    volatile: Vec<u8>,
    forwarded: Vec<u8>,
    /// Of the forwarded bits.
    writes: Option<WritePolicy>,
}

/// Interrupt vectors that a function may signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interrupts {
    /// INTx pin, 1 to 4 (A to D); 0: none.
    pub intx_pin: u8,
    /// MSI vectors: 0 (no MSI), 1, 2, 4, 8, 16 or 32.
    pub msi_vectors: u8,
    /// MSI-X vectors, up to 2,048; 0: no MSI-X.
    pub msix_vectors: u16,
}

/// A function's class code (PCI Code and ID Assignment Specification, section 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Class {
    /// Base class.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

impl Descriptor {
    /// Where a platform function is; `None` for a PCI function. A platform function has no configuration space, no BARs and no ROM.
    #[must_use]
    pub fn platform(&self) -> Option<&Platform> {
        self.inner.platform.as_ref()
    }

    /// What [`Space::Bar`] of this index is.
    #[must_use]
    pub fn region(&self, index: BarIndex) -> Option<Region> {
        self.inner.regions[index.as_usize()]
    }

    /// Bytes of a space; 0: there is no such space.
    #[must_use]
    pub fn space_size(&self, space: Space) -> u64 {
        match space {
            Space::Bar(index) => self.region(index).map_or(0, |region| region.size),
            Space::Rom => self.inner.rom.len() as u64,
            Space::Config => self.config_image().len() as u64,
        }
    }

    /// Configuration space at power-on: 256 or 4,096 bytes; of a platform function none.
    #[must_use]
    pub fn config_image(&self) -> &[u8] {
        &self.inner.config.image
    }

    /// Bits of configuration space that the guest may change, as long as the image. BARs and the ROM register are not in it.
    #[must_use]
    pub fn writable(&self) -> &[u8] {
        &self.inner.config.writable
    }

    /// Bits of configuration space that a write of 1 clears, as long as the image.
    #[must_use]
    pub fn write_one_to_clear(&self) -> &[u8] {
        &self.inner.config.write_one_to_clear
    }

    /// Bits of configuration space whose reads ask the host, as long as the image.
    #[must_use]
    pub fn volatile(&self) -> &[u8] {
        &self.inner.config.volatile
    }

    /// Bits of configuration space whose writes are sent on to the host, as long as the image.
    #[must_use]
    pub fn forwarded(&self) -> &[u8] {
        &self.inner.config.forwarded
    }

    /// The BAR that begins at this index. The index that holds the upper half of a 64-bit BAR has none.
    #[must_use]
    pub fn bar(&self, index: BarIndex) -> Option<&Bar> {
        self.inner.bars[index.as_usize()].as_ref()
    }

    /// The BARs, in order of index.
    pub fn bars(&self) -> impl Iterator<Item = (BarIndex, &Bar)> {
        BarIndex::all().filter_map(|index| Some((index, self.bar(index)?)))
    }

    /// The expansion ROM's contents, a power of two from 2 KiB to 16 MiB.
    #[must_use]
    pub fn rom(&self) -> Option<&[u8]> {
        Some(self.inner.rom.as_slice()).filter(|rom| !rom.is_empty())
    }

    /// Interrupt vectors that the function may signal.
    #[must_use]
    pub fn interrupts(&self) -> Interrupts {
        self.inner.interrupts
    }

    /// The vendor's id; 0xffff, which no vendor has, for a platform function.
    #[must_use]
    pub fn vendor_id(&self) -> u16 {
        self.id(VENDOR_ID)
    }

    /// The vendor's id of the device; 0xffff for a platform function.
    #[must_use]
    pub fn device_id(&self) -> u16 {
        self.id(DEVICE_ID)
    }

    /// The vendor id of the subsystem; 0xffff for a platform function.
    #[must_use]
    pub fn subsystem_vendor_id(&self) -> u16 {
        self.id(SUBSYSTEM_VENDOR_ID)
    }

    /// The subsystem's id; 0xffff for a platform function.
    #[must_use]
    pub fn subsystem_id(&self) -> u16 {
        self.id(SUBSYSTEM_ID)
    }

    /// The revision; 0xff for a platform function.
    #[must_use]
    pub fn revision(&self) -> u8 {
        self.config_image()
            .get(REVISION_ID)
            .copied()
            .unwrap_or(0xff)
    }

    /// The class code; all-ones for a platform function.
    #[must_use]
    pub fn class(&self) -> Class {
        let code = self.config_image().get(CLASS_CODE..CLASS_CODE + 3);
        let code = code.unwrap_or(&[0xff; 3]);
        Class {
            interface: code[0],
            sub: code[1],
            base: code[2],
        }
    }

    fn id(&self, offset: usize) -> u16 {
        match self.inner.platform {
            None => le16(self.config_image(), offset),
            Some(_) => 0xffff,
        }
    }

    /// The same as plain values, masks without bits left empty.
    #[must_use]
    pub fn to_parts(&self) -> DescriptorParts {
        DescriptorParts::from(self)
    }
}

impl TryFrom<DescriptorParts> for Descriptor {
    type Error = DescriptorError;

    /// Checks everything that later code relies on.
    ///
    /// # Errors
    /// The first thing found wrong, naming the field and the value.
    fn try_from(parts: DescriptorParts) -> Result<Self, DescriptorError> {
        validate::validate(parts).map(|inner| Self {
            inner: Arc::new(inner),
        })
    }
}

impl fmt::Debug for Descriptor {
    /// Short: an image and a ROM in full help nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor")
            .field("vendor_id", &format_args!("{:#06x}", self.vendor_id()))
            .field("device_id", &format_args!("{:#06x}", self.device_id()))
            .field("config_bytes", &self.config_image().len())
            .field("bars", &self.bars().collect::<Vec<_>>())
            .field("platform", &self.platform())
            .field("rom_bytes", &self.inner.rom.len())
            .field("ranges", &self.ranges())
            .field("interrupts", &self.interrupts())
            .finish_non_exhaustive()
    }
}
