//! Capabilities: what a function can do beyond the header, as linked structures in configuration space.

mod express;
mod extended;
mod msi;
mod msix;
mod power;
mod vendor;
mod walk;

pub use extended::ExtendedCapability;
pub use walk::{
    CapabilityRef, ExtendedCapabilityRef, WalkError, capabilities, extended_capabilities,
};

pub(crate) use express::{
    EXPRESS_CONTROL, EXPRESS_FLR_BIT, LINK_CONTROL, LINK_CONTROL_KEPT, express_has_flr,
};
pub(crate) use msi::{MsiRegisters, MsiView};
pub(crate) use msix::{Area, MsixView};
pub(crate) use power::{POWER_CONTROL, PowerView};
pub(crate) use walk::{capability_length, find};

/// Capability ids (PCI Code and ID Assignment Specification, section 2).
pub mod id {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor-specific.
    pub const VENDOR_SPECIFIC: u8 = 0x09;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// Conventional PCI advanced features.
    pub const ADVANCED_FEATURES: u8 = 0x13;
}

/// A capability cannot be as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CapabilityError {
    /// MSI comes with a power of two of vectors.
    #[error("MSI: {vectors} vectors, expected 1, 2, 4, 8, 16 or 32")]
    MsiVectors {
        /// Asked for.
        vectors: u8,
    },
    /// MSI-X has a limit.
    #[error("MSI-X: {vectors} vectors, expected 1 to 2048")]
    MsixVectors {
        /// Asked for.
        vectors: u16,
    },
    /// The MSI-X table and pending bit array are 8-byte aligned.
    #[error("MSI-X: offset {offset:#x} is not a multiple of 8")]
    MsixOffset {
        /// Asked for.
        offset: u32,
    },
    /// It would fit nowhere.
    #[error("{length} bytes of contents, at most {max} fit")]
    TooLong {
        /// Its contents' bytes.
        length: usize,
        /// How many fit.
        max: usize,
    },
    /// The version has four bits.
    #[error("version {version} is above 15")]
    Version {
        /// Asked for.
        version: u8,
    },
}

/// Bytes of configuration space with a class for each bit. A bit in no mask is read-only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) bytes: Vec<u8>,
    pub(crate) writable: Vec<u8>,
    pub(crate) write_one_to_clear: Vec<u8>,
    pub(crate) volatile: Vec<u8>,
    pub(crate) forwarded: Vec<u8>,
}

impl Block {
    pub(crate) fn read_only(bytes: Vec<u8>) -> Self {
        let zeros = vec![0; bytes.len()];
        Self {
            writable: zeros.clone(),
            write_one_to_clear: zeros.clone(),
            volatile: zeros.clone(),
            forwarded: zeros,
            bytes,
        }
    }

    fn set16(&mut self, offset: usize, value: u16) {
        or_into(&mut self.bytes, offset, &value.to_le_bytes());
    }

    fn set32(&mut self, offset: usize, value: u32) {
        or_into(&mut self.bytes, offset, &value.to_le_bytes());
    }

    fn writable16(&mut self, offset: usize, mask: u16) {
        or_into(&mut self.writable, offset, &mask.to_le_bytes());
    }

    fn writable32(&mut self, offset: usize, mask: u32) {
        or_into(&mut self.writable, offset, &mask.to_le_bytes());
    }
}

/// Sets the bits of `mask` from `offset` on. What lies past the end is dropped.
pub(crate) fn or_into(target: &mut [u8], offset: usize, mask: &[u8]) {
    let target = target.get_mut(offset..).unwrap_or_default();
    for (byte, bits) in target.iter_mut().zip(mask) {
        *byte |= bits;
    }
}

/// A capability for a [`DescriptorBuilder`](crate::DescriptorBuilder): its bytes and, per bit, what the guest may do to them.
///
/// Offsets are relative to the capability's first byte, which holds its id; the second is the pointer to the next one and belongs
/// to the builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    pub(crate) block: Block,
}

impl Capability {
    /// A capability with this id and what follows its two header bytes, all of it read-only.
    #[must_use]
    pub fn new(id: u8, body: &[u8]) -> Self {
        let mut bytes = vec![id, 0];
        bytes.extend_from_slice(body);
        Self {
            block: Block::read_only(bytes),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.block.bytes[0]
    }

    /// All of its bytes; the second, the pointer to the next capability, is 0.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes
    }

    /// Bits that the guest may change, as long as [`Self::bytes`].
    #[must_use]
    pub fn writable_mask(&self) -> &[u8] {
        &self.block.writable
    }

    /// Lets the guest change these bits too. What lies past the capability's end is dropped.
    #[must_use]
    pub fn writable(mut self, offset: usize, mask: &[u8]) -> Self {
        or_into(&mut self.block.writable, offset, mask);
        self
    }

    /// Lets a write of 1 clear these bits. What lies past the capability's end is dropped.
    #[must_use]
    pub fn write_one_to_clear(mut self, offset: usize, mask: &[u8]) -> Self {
        or_into(&mut self.block.write_one_to_clear, offset, mask);
        self
    }

    /// Has a read of these bits ask the host. What lies past the capability's end is dropped.
    #[must_use]
    pub fn volatile(mut self, offset: usize, mask: &[u8]) -> Self {
        or_into(&mut self.block.volatile, offset, mask);
        self
    }

    /// Has a write that touches these bits sent on to the host. What lies past the capability's end is dropped.
    #[must_use]
    pub fn forwarded(mut self, offset: usize, mask: &[u8]) -> Self {
        or_into(&mut self.block.forwarded, offset, mask);
        self
    }
}
