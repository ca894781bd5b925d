//! Accesses and their answers.

use bytes::Bytes;
use potemkin_pci::{Space, Width};
use serde::{Deserialize, Serialize};

/// Most data that one access carries, in bytes.
pub const MAX_ACCESS_BYTES: usize = 4_096;
/// Most data that one DMA item carries, in bytes: 15 pages, so that a frame holds one and what comes with it.
pub const MAX_DMA_BYTES: usize = 61_440;
/// Vectors that a function may have at most (PCI 3.0 section 6.8.2: MSI-X table size).
pub const MAX_VECTORS: u16 = 2_048;

/// Where an access begins, and how wide its elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Which BAR, the ROM, or configuration space.
    pub space: Space,
    /// Bytes from its start.
    pub offset: u64,
    /// Width of one element.
    pub width: Width,
}

/// How many elements, and where the next one lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// One element.
    Single,
    /// So many elements at consecutive offsets: a copy.
    Consecutive(u16),
    /// So many elements at one offset: a string instruction on a FIFO register.
    Fixed(u16),
}

impl Extent {
    /// Number of elements.
    pub fn count(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Consecutive(n) | Self::Fixed(n) => usize::from(n),
        }
    }
}

/// Whether the guest waits for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posting {
    /// The guest goes on at once.
    Posted,
    /// The guest waits for the completion.
    NonPosted,
}

/// What an access does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reads; the answer holds width times count bytes.
    Read,
    /// Writes this.
    Write(Posting, Payload),
}

/// What a write carries. A single element stays out of reference counting: posted writes come by the million.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// One element, zero-extended.
    Value(u64),
    /// The elements' bytes, little-endian.
    Block(Bytes),
}

/// One guest access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where.
    pub at: Location,
    /// How many elements.
    pub extent: Extent,
    /// What.
    pub operation: Operation,
}

impl Access {
    /// Bytes that it reads or writes.
    pub fn bytes(&self) -> usize {
        self.at.width.bytes() * self.extent.count()
    }

    /// True when no completion follows.
    pub fn is_posted(&self) -> bool {
        matches!(self.operation, Operation::Write(Posting::Posted, _))
    }
}

/// What travels forward in the one FIFO of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardItem {
    /// A guest access.
    Access(Access),
    /// Not an access, but in order with them.
    Event(ForwardEvent),
}

impl ForwardItem {
    /// The DMA generation that begins with it.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Event(
                ForwardEvent::Reset { generation }
                | ForwardEvent::BusMasterOff { generation }
                | ForwardEvent::Unmapped { generation },
            ) => Some(*generation),
            _ => None,
        }
    }
}

/// What the agent tells the host in order with the accesses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardEvent {
    /// The function was reset; DMA and interrupts of older generations are refused from here on.
    Reset {
        /// The new DMA generation.
        generation: u64,
    },
    /// Bus mastering was turned off: the same, without a reset.
    BusMasterOff {
        /// The new DMA generation.
        generation: u64,
    },
    /// A window was unmapped: what memory is mapped from here on takes DMA of this generation and newer ones only.
    Unmapped {
        /// The new DMA generation.
        generation: u64,
    },
    /// The answer to a DMA read.
    DmaReadData {
        /// The request's id.
        id: u64,
        /// The bytes, or why there are none.
        outcome: Result<Bytes, DmaError>,
    },
    /// A DMA write moved nothing.
    DmaWriteFailed {
        /// Its sequence number in reverse.
        sequence: u64,
        /// Why.
        error: DmaError,
    },
}

/// Outcome of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// The device refused or failed the access: the guest reads all-ones.
    DeviceError,
}

/// Why DMA moved no byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DmaError {
    /// Outside of every mapped window, or past the end of the address space.
    #[error("not all of it lies in mapped windows of guest memory")]
    Range,
    /// The window does not allow this direction.
    #[error("the window does not allow this direction")]
    Direction,
    /// Bus mastering is off, or was since the transfer began.
    #[error("bus mastering is off, or was since the transfer began")]
    Disabled,
    /// The memory behind the window could not be accessed.
    #[error("the memory behind the window failed")]
    Failed,
}

/// A message-signalled interrupt. The vector is below [`MAX_VECTORS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vector {
    /// Of the MSI capability.
    Msi(u16),
    /// Of the MSI-X table.
    Msix(u16),
}

/// What travels in reverse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReverseItem {
    /// The answer to a non-posted access.
    Completion {
        /// Sequence number of the access.
        sequence: u64,
        /// Its outcome.
        status: Status,
        /// A read's data, little-endian; empty otherwise.
        data: Bytes,
    },
    /// Bytes for the guest's memory.
    DmaWrite {
        /// DMA generation in which the transfer began.
        generation: u64,
        /// Where in the guest's memory, in bytes.
        address: u64,
        /// 1 to [`MAX_DMA_BYTES`].
        data: Bytes,
    },
    /// The device asks for bytes of the guest's memory.
    DmaRead {
        /// DMA generation in which the transfer began.
        generation: u64,
        /// Names the answer.
        id: u64,
        /// Where in the guest's memory, in bytes.
        address: u64,
        /// 1 to [`MAX_DMA_BYTES`].
        length: usize,
    },
    /// An MSI or MSI-X vector fired.
    Msi {
        /// DMA generation in which it was raised.
        generation: u64,
        /// Which.
        vector: Vector,
    },
    /// The level of INTx.
    Intx(bool),
}

impl ReverseItem {
    /// The DMA generation in which it began, if it has one.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::DmaWrite { generation, .. }
            | Self::DmaRead { generation, .. }
            | Self::Msi { generation, .. } => Some(*generation),
            Self::Completion { .. } | Self::Intx(_) => None,
        }
    }
}
