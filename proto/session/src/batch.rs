//! The three columns of a batch: written item by item, and read back with every number checked.
//!
//! The layout is that of `Batch` in `potemkin/v1/data.proto`. The columns are written and read by hand, because they are walked
//! for each access: `args` is kept as the bytes of its packed field.

use crate::access::DmaError;

mod reader;
mod writer;

pub(crate) use reader::{read_forward, read_reverse};
pub(crate) use writer::BatchWriter;

/// Operation numbers, bits 7..5 of an op.
mod op {
    pub(super) const READ: u8 = 0;
    pub(super) const WRITE_POSTED: u8 = 1;
    pub(super) const WRITE_NON_POSTED: u8 = 2;
    pub(super) const READ_N: u8 = 3;
    pub(super) const WRITE_POSTED_N: u8 = 4;
    pub(super) const WRITE_NON_POSTED_N: u8 = 5;
    pub(super) const EVENT: u8 = 7;

    pub(super) const EVENT_RESET: u8 = 0;
    pub(super) const EVENT_GENERATION: u8 = 1;
    pub(super) const EVENT_DMA_READ_DATA: u8 = 3;
    pub(super) const EVENT_UNMAPPED: u8 = 4;
    pub(super) const EVENT_DMA_WRITE_FAILED: u8 = 5;

    pub(super) const COMPLETION: u8 = 0;
    pub(super) const DMA_WRITE: u8 = 1;
    pub(super) const DMA_READ: u8 = 2;
    pub(super) const MESSAGE: u8 = 4;
    pub(super) const INTX: u8 = 5;

    pub(super) const MESSAGE_MSI: u8 = 0;
    pub(super) const MESSAGE_MSIX: u8 = 1;
}

/// Numbers of `ItemStatus` that say why DMA moved nothing.
const DMA_ERRORS: [(DmaError, u8); 4] = [
    (DmaError::Range, 3),
    (DmaError::Direction, 4),
    (DmaError::Disabled, 5),
    (DmaError::Failed, 6),
];

/// ZigZag, as protobuf's sint64.
const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
