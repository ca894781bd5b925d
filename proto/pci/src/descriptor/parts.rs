//! A descriptor as plain values, as it travels: nothing of it is checked.

use super::{Descriptor, FailedRegister, RegisterRange, ResetWrite, WritePolicy};
use crate::{Bar, BarIndex, BarKind, PlatformParts, Width};

/// The unchecked form of a [`Descriptor`], field by field as in the schema's `DeviceDescriptor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescriptorParts {
    /// Configuration space at power-on: 256 or 4,096 bytes; none of a platform function.
    pub config_image: Vec<u8>,
    /// Bits that the guest may change: empty, or as long as the image. So are the other masks.
    pub config_writable: Vec<u8>,
    /// Bits that a write of 1 clears.
    pub config_write_one_to_clear: Vec<u8>,
    /// Bits whose reads ask the host.
    pub config_volatile: Vec<u8>,
    /// Bits whose writes are sent on to the host.
    pub config_forwarded: Vec<u8>,
    /// Whether such a write waits; it does without this.
    pub config_writes: Option<WritePolicy>,
    /// In order of index.
    pub bars: Vec<BarParts>,
    /// Expansion ROM; empty: none.
    pub rom: Vec<u8>,
    /// How register ranges are treated.
    pub ranges: Vec<RangeParts>,
    /// Interrupt vectors.
    pub interrupts: InterruptParts,
    /// Of a platform function, which has no PCI parts then: no configuration space, BARs or ROM.
    pub platform: Option<PlatformParts>,
    /// What it shows once it has failed, and how its guest resets it.
    pub recovery: RecoveryParts,
}

/// The unchecked form of a [`Recovery`](super::Recovery).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryParts {
    /// What registers read while the function is latched failed.
    pub failed_image: Vec<FailedRegisterParts>,
    /// Writes by which the guest resets it.
    pub reset_writes: Vec<ResetWriteParts>,
}

/// The unchecked form of a [`FailedRegister`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailedRegisterParts {
    /// BAR index.
    pub bar: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u32,
    /// What it reads.
    pub value: u64,
}

/// The unchecked form of a [`ResetWrite`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResetWriteParts {
    /// BAR index.
    pub bar: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes: 1, 2, 4 or 8.
    pub width: u32,
    /// The bits that count.
    pub mask: u64,
    /// What they are written as.
    pub value: u64,
}

/// The unchecked form of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarParts {
    /// 0 to 5.
    pub index: u32,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes.
    pub size: u64,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
}

/// The unchecked form of a [`RegisterRange`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeParts {
    /// BAR index.
    pub bar: u32,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Overrides the default for the BAR's kind.
    pub writes: Option<WritePolicy>,
    /// Adjacent writes may be merged.
    pub combining: bool,
    /// A write here is worth sending at once.
    pub doorbell: bool,
    /// Contents never change.
    pub constant: bool,
}

/// The unchecked form of [`Interrupts`](super::Interrupts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterruptParts {
    /// 0 to 4.
    pub intx_pin: u32,
    /// 0 to 32.
    pub msi_vectors: u32,
    /// 0 to 2,048.
    pub msix_vectors: u32,
}

impl From<&Descriptor> for DescriptorParts {
    fn from(descriptor: &Descriptor) -> Self {
        let interrupts = descriptor.interrupts();
        Self {
            config_image: descriptor.config_image().to_vec(),
            config_writable: mask(descriptor.writable()),
            config_write_one_to_clear: mask(descriptor.write_one_to_clear()),
            config_volatile: mask(descriptor.volatile()),
            config_forwarded: mask(descriptor.forwarded()),
            config_writes: descriptor.inner.config.writes,
            bars: descriptor.bars().map(BarParts::from).collect(),
            rom: descriptor.rom().unwrap_or_default().to_vec(),
            ranges: descriptor.ranges().iter().map(RangeParts::from).collect(),
            interrupts: InterruptParts {
                intx_pin: interrupts.intx_pin.into(),
                msi_vectors: interrupts.msi_vectors.into(),
                msix_vectors: interrupts.msix_vectors.into(),
            },
            platform: descriptor.platform().map(PlatformParts::from),
            recovery: RecoveryParts {
                failed_image: descriptor.failed_image().iter().map(Into::into).collect(),
                reset_writes: descriptor.reset_writes().iter().map(Into::into).collect(),
            },
        }
    }
}

/// A mask as it travels: empty when it has no bits.
fn mask(bytes: &[u8]) -> Vec<u8> {
    if bytes.iter().all(|&byte| byte == 0) {
        Vec::new()
    } else {
        bytes.to_vec()
    }
}

impl From<(BarIndex, &Bar)> for BarParts {
    fn from((index, bar): (BarIndex, &Bar)) -> Self {
        Self {
            index: index.get().into(),
            kind: bar.kind,
            size: bar.size,
            prefetchable: bar.prefetchable,
        }
    }
}

impl From<&RegisterRange> for RangeParts {
    fn from(range: &RegisterRange) -> Self {
        Self {
            bar: range.bar.get().into(),
            offset: range.offset,
            length: range.length,
            writes: range.writes,
            combining: range.combining,
            doorbell: range.doorbell,
            constant: range.constant,
        }
    }
}

impl From<&FailedRegister> for FailedRegisterParts {
    fn from(register: &FailedRegister) -> Self {
        Self {
            bar: register.bar.get().into(),
            offset: register.offset,
            width: bytes(register.width),
            value: register.value,
        }
    }
}

impl From<&ResetWrite> for ResetWriteParts {
    fn from(write: &ResetWrite) -> Self {
        Self {
            bar: write.bar.get().into(),
            offset: write.offset,
            width: bytes(write.width),
            mask: write.mask,
            value: write.value,
        }
    }
}

fn bytes(width: Width) -> u32 {
    1 << width.log2()
}
