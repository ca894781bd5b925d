//! Why a descriptor cannot be built.

use crate::{BarError, BarIndex, CapabilityError, DescriptorError};

/// A descriptor that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No register can say this BAR.
    #[error("BAR {index}: {error}")]
    Bar {
        /// Which one.
        index: BarIndex,
        /// What is wrong with it.
        #[source]
        error: BarError,
    },
    /// Two BARs want one register.
    #[error("BAR {index}: its register is taken by BAR {by}")]
    BarTaken {
        /// The later one.
        index: BarIndex,
        /// The earlier one: the same index, or a 64-bit BAR at the index before.
        by: BarIndex,
    },
    /// A 64-bit BAR at the last index.
    #[error("BAR {index}: no register is left for the upper half of a 64-bit BAR")]
    BarHalf {
        /// Which one.
        index: BarIndex,
    },
    /// A capability was asked for that cannot be.
    #[error("capability: {0}")]
    Capability(#[from] CapabilityError),
    /// A capability's offset is not a multiple of 4 from 0x40 on.
    #[error("capability {id:#04x}: {offset:#x} is not a multiple of 4 from 0x40 on")]
    CapabilityOffset {
        /// Its id.
        id: u8,
        /// Where it should begin.
        offset: u8,
    },
    /// A capability lies over another one, or over the end of configuration space.
    #[error("capability {id:#04x}: no room for {length} bytes at {offset:#x}")]
    CapabilityOverlaps {
        /// Its id.
        id: u8,
        /// Where it should begin.
        offset: u8,
        /// Its bytes.
        length: usize,
    },
    /// There is no gap for a capability.
    #[error("capability {id:#04x}: no room for {length} bytes anywhere")]
    CapabilityNoRoom {
        /// Its id.
        id: u8,
        /// Its bytes.
        length: usize,
    },
    /// There is no room for an extended capability.
    #[error("extended capability {id:#06x}: no room for {length} bytes")]
    ExtendedNoRoom {
        /// Its id.
        id: u16,
        /// Its bytes.
        length: usize,
    },
    /// Bits beyond the end of configuration space.
    #[error("{length} bytes at {offset:#x} are beyond configuration space of {size} bytes")]
    BeyondConfig {
        /// Where they should begin.
        offset: u16,
        /// How many.
        length: usize,
        /// Size of configuration space.
        size: usize,
    },
    /// Everything has a place, but the result is not valid.
    #[error(transparent)]
    Invalid(#[from] DescriptorError),
}
