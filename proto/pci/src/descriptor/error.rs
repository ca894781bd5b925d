//! What can be wrong with a descriptor. Each message begins with the field's name in the schema.

use std::fmt;

use crate::{BarError, PlatformError, capability::WalkError};

/// A descriptor that is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// A platform function's own parts.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// Configuration space has one of two sizes.
    #[error("config_image: {length} bytes, expected 256 or 4096")]
    ImageLength {
        /// Bytes.
        length: usize,
    },
    /// All ones is what a slot without a function answers.
    #[error("config_image: vendor id 0xffff means that there is no function")]
    VendorId,
    /// Only type 0 headers (PCI 3.0 section 6.1) describe devices.
    #[error("config_image: header type {value:#04x}, expected a type 0 header")]
    HeaderType {
        /// The byte at 0x0e.
        value: u8,
    },
    /// Decode and bus mastering are off at power-on (PCI 3.0 section 6.2.2).
    #[error(
        "config_image: command register {value:#06x} enables decode or bus mastering at power-on"
    )]
    CommandAtPowerOn {
        /// The register.
        value: u16,
    },
    /// A BAR register does not hold its type bits with an address of 0.
    #[error("config_image: BAR {index} register holds {value:#x}, expected {expected:#x} by bars")]
    BarRegister {
        /// The register's index.
        index: u8,
        /// What it holds.
        value: u32,
        /// What it should hold.
        expected: u32,
    },
    /// The ROM register does not hold 0.
    #[error("config_image: expansion ROM register holds {value:#x}, expected 0")]
    RomRegister {
        /// What it holds.
        value: u32,
    },
    /// The capability list is broken.
    #[error("config_image: {0}")]
    Capabilities(#[source] WalkError),
    /// The extended capability list is broken.
    #[error("config_image: extended {0}")]
    ExtendedCapabilities(#[source] WalkError),
    /// A capability runs past the end of its space, or into another one.
    #[error(
        "config_image: capability {id:#04x} at {offset:#x} takes {length} bytes, {available} are there"
    )]
    CapabilityTooLong {
        /// Its id.
        id: u8,
        /// Where it begins.
        offset: usize,
        /// Bytes that it takes.
        length: usize,
        /// Bytes up to the next one, or to the end.
        available: usize,
    },
    /// There may be one only of this kind.
    #[error("config_image: a second capability {id:#04x} at {offset:#x}")]
    CapabilityRepeated {
        /// Its id.
        id: u8,
        /// Where the second begins.
        offset: usize,
    },
    /// A mask is neither empty nor as long as the image.
    #[error("{mask}: {length} bytes, expected 0 or {expected}")]
    MaskLength {
        /// Which one.
        mask: Mask,
        /// Its bytes.
        length: usize,
        /// The image's bytes.
        expected: usize,
    },
    /// A mask has bits in a register that is none of its business.
    #[error("{mask}: {value:#04x} at {offset:#x}, which belongs to {register}")]
    MaskForbidden {
        /// Which one.
        mask: Mask,
        /// Where.
        offset: usize,
        /// The mask's byte there.
        value: u8,
        /// What is there.
        register: &'static str,
    },
    /// A bit cannot be in both.
    #[error("config_write_one_to_clear: {value:#04x} at {offset:#x} is in config_writable too")]
    MasksOverlap {
        /// Where.
        offset: usize,
        /// The bits in both.
        value: u8,
    },
    /// There are six BARs.
    #[error("bars[{position}].index: {index} is above 5")]
    BarIndex {
        /// Position in the list.
        position: usize,
        /// The index.
        index: u32,
    },
    /// BARs come in order of index, each once.
    #[error("bars[{position}].index: {index} is not above that of the one before")]
    BarOrder {
        /// Position in the list.
        position: usize,
        /// The index.
        index: u8,
    },
    /// The index is taken by a 64-bit BAR's upper half.
    #[error("bars[{position}].index: {index} holds the upper half of the 64-bit BAR before")]
    BarTaken {
        /// Position in the list.
        position: usize,
        /// The index.
        index: u8,
    },
    /// A 64-bit BAR needs two indices.
    #[error("bars[{position}].kind: a 64-bit BAR at index 5 has no room for its upper half")]
    BarHalf {
        /// Position in the list.
        position: usize,
    },
    /// No register can say this BAR.
    #[error("bars[{position}].{error}")]
    Bar {
        /// Position in the list.
        position: usize,
        /// What is wrong with it.
        #[source]
        error: BarError,
    },
    /// The ROM's size is not possible.
    #[error("rom: {length} bytes, expected a power of two from 2048 to 16777216")]
    RomLength {
        /// Bytes.
        length: usize,
    },
    /// More ranges than anybody needs.
    #[error("ranges: {count} of them, at most {max} are allowed")]
    TooManyRanges {
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The function has no such BAR.
    #[error("ranges[{position}].bar: {bar} is not a BAR of this function")]
    RangeBar {
        /// Position in the list.
        position: usize,
        /// The BAR's index.
        bar: u32,
    },
    /// A range holds something.
    #[error("ranges[{position}].length: 0")]
    RangeEmpty {
        /// Position in the list.
        position: usize,
    },
    /// A range ends within its BAR.
    #[error(
        "ranges[{position}].length: {length} bytes at {offset:#x} do not fit into a BAR of {size}"
    )]
    RangeTooLong {
        /// Position in the list.
        position: usize,
        /// First byte.
        offset: u64,
        /// Bytes.
        length: u64,
        /// The BAR's bytes.
        size: u64,
    },
    /// Two ranges claim one byte.
    #[error("ranges[{position}].offset: {offset:#x} lies in ranges[{other}] too")]
    RangesOverlap {
        /// Position of the one that begins later.
        position: usize,
        /// Where it begins.
        offset: u64,
        /// Position of the other.
        other: usize,
    },
    /// Two properties of a range contradict each other.
    #[error("ranges[{position}].{conflict}")]
    RangeConflict {
        /// Position in the list.
        position: usize,
        /// Which ones.
        conflict: RangeConflict,
    },
    /// More registers than anybody needs to say that a function has failed, or to reset it.
    #[error("recovery.{list}: {count} of them, at most {max} are allowed")]
    TooManyRecovery {
        /// Which list.
        list: RecoveryList,
        /// How many.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// What is said of a failed function is not possible.
    #[error("recovery.{list}[{position}].{error}")]
    Recovery {
        /// Which list.
        list: RecoveryList,
        /// Position in it.
        position: usize,
        /// What is wrong with it.
        #[source]
        error: RecoveryError,
    },
    /// There are four pins.
    #[error("interrupts.intx_pin: {value} is above 4")]
    IntxPin {
        /// The pin.
        value: u32,
    },
    /// The image says another pin.
    #[error("interrupts.intx_pin: {declared}, but config_image says {image}")]
    IntxDisagrees {
        /// What the field says.
        declared: u8,
        /// The byte at 0x3d.
        image: u8,
    },
    /// The MSI capability says otherwise.
    #[error("interrupts.msi_vectors: {declared}, but the MSI capability says {image}")]
    MsiDisagrees {
        /// What the field says.
        declared: u32,
        /// What the capability says; 0: there is none.
        image: u8,
    },
    /// The MSI capability has a reserved encoding.
    #[error(
        "config_image: the MSI capability at {offset:#x} asks for a reserved number of vectors"
    )]
    MsiReserved {
        /// Where it begins.
        offset: usize,
    },
    /// The MSI-X capability says otherwise.
    #[error("interrupts.msix_vectors: {declared}, but the MSI-X capability says {image}")]
    MsixDisagrees {
        /// What the field says.
        declared: u32,
        /// What the capability says; 0: there is none.
        image: u16,
    },
    /// The MSI-X table or pending bits stand where there is no memory BAR.
    #[error(
        "config_image: the MSI-X {part} is in BAR {bir}, which is not a memory BAR of this function"
    )]
    MsixBar {
        /// Which of the two.
        part: MsixPart,
        /// The BAR indicator.
        bir: u8,
    },
    /// The MSI-X table or pending bits run past the end of their BAR.
    #[error(
        "config_image: the MSI-X {part}, {length} bytes at {offset:#x}, does not fit into a BAR of {size}"
    )]
    MsixTooLong {
        /// Which of the two.
        part: MsixPart,
        /// Where it begins.
        offset: u64,
        /// Its bytes.
        length: u64,
        /// The BAR's bytes.
        size: u64,
    },
    /// The MSI-X table and pending bits overlap.
    #[error("config_image: the MSI-X pending bits at {offset:#x} lie in the table")]
    MsixOverlap {
        /// Where the pending bits begin.
        offset: u64,
    },
}

/// One of the classes of bits of configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// The guest may change them.
    Writable,
    /// A write of 1 clears them.
    WriteOneToClear,
    /// A read asks the host.
    Volatile,
    /// A write is sent on to the host.
    Forwarded,
}

impl fmt::Display for Mask {
    /// The field's name in the schema.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Writable => "config_writable",
            Self::WriteOneToClear => "config_write_one_to_clear",
            Self::Volatile => "config_volatile",
            Self::Forwarded => "config_forwarded",
        })
    }
}

/// What a descriptor says of a failed function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecoveryList {
    /// What registers read.
    FailedImage,
    /// How the guest resets it.
    ResetWrites,
}

impl fmt::Display for RecoveryList {
    /// The field's name in the schema.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FailedImage => "failed_image",
            Self::ResetWrites => "reset_writes",
        })
    }
}

/// What is wrong with one register of a failed function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The function has no such BAR.
    #[error("bar: {bar} is not a BAR of this function")]
    Bar {
        /// The BAR's index.
        bar: u32,
    },
    /// Registers have one of four widths.
    #[error("width: {width} bytes, expected 1, 2, 4 or 8")]
    Width {
        /// Bytes.
        width: u32,
    },
    /// It is not aligned, or ends outside of its BAR.
    #[error("offset: {offset:#x} is no place for {width} aligned bytes in a BAR of {size}")]
    Offset {
        /// First byte.
        offset: u64,
        /// Bytes.
        width: u64,
        /// The BAR's bytes.
        size: u64,
    },
    /// It has bits that the register has not.
    #[error("{field}: {value:#x} does not fit into {width} bytes")]
    Wide {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The register's bytes.
        width: usize,
    },
    /// Every write would be a reset.
    #[error("mask: 0 asks for no bit")]
    NoMask,
    /// No write can match it.
    #[error("value: {value:#x} has bits outside of the mask")]
    Unmasked {
        /// The value.
        value: u64,
    },
    /// Two entries claim one byte.
    #[error("offset: it lies in entry {other} too")]
    Overlaps {
        /// Position of the other.
        other: usize,
    },
}

/// What an MSI-X capability places in BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MsixPart {
    /// Vectors' addresses, data and masks.
    Table,
    /// Pending bits.
    Pba,
}

impl fmt::Display for MsixPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Pba => "pending bit array",
        })
    }
}

/// Properties of a range that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RangeConflict {
    /// Writes that wait one by one cannot be merged.
    CombiningNonPosted,
    /// What never changes has no doorbell.
    ConstantDoorbell,
}

impl fmt::Display for RangeConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CombiningNonPosted => "combining: true, but writes here are non-posted",
            Self::ConstantDoorbell => "constant: true, but it is a doorbell",
        })
    }
}
