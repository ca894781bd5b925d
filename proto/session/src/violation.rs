//! What a peer can do wrong. Each value names the field, so that the log line and the close message can.

use thiserror::Error;

/// A frame that breaks the protocol. The session that it came on is closed; nothing else is.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Longer than the largest frame.
    #[error("frame: {len} bytes exceed the limit of {limit}")]
    FrameTooLong {
        /// Its length, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Not an encoded `Frame`.
    #[error("frame: not a valid protobuf message: {0}")]
    Malformed(String),
    /// Its check is wrong: it is not what its sender made of it.
    #[error("frame: check: the bytes are not those that were sent")]
    Garbled,
    /// A frame of a session of version 2 without a check.
    #[error("frame: check: missing")]
    Unchecked,
    /// No header.
    #[error("header: missing")]
    NoHeader,
    /// A header field holds what this session's path does not allow.
    #[error("header.{field}: {found}, expected {expected}")]
    Header {
        /// The field's name in the schema.
        field: &'static str,
        /// What came.
        found: u64,
        /// What the session expects.
        expected: u64,
    },
    /// A frame of this kind may not come now, or not in this direction.
    #[error("{body}: not allowed {when}")]
    Unexpected {
        /// The body's name in the schema.
        body: &'static str,
        /// In which state.
        when: &'static str,
    },
    /// The host is another process than the session's.
    #[error("accept.host_incarnation: another run of the host")]
    Stranger,
    /// A number in `batch` is out of its range.
    #[error("batch.{field}: item {item}: {problem}")]
    Item {
        /// `ops`, `args` or `data`.
        field: &'static str,
        /// Index of the item in the batch, from 0.
        item: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// `args` or `data` hold more than the items use.
    #[error("batch.{field}: {left} bytes are left over")]
    LeftOver {
        /// `args` or `data`.
        field: &'static str,
        /// How much.
        left: usize,
    },
    /// Sent without credit.
    #[error("{class}: {used} credits used, {limit} granted")]
    Credit {
        /// The credit class.
        class: &'static str,
        /// Total used with this item.
        used: u64,
        /// Total granted.
        limit: u64,
    },
    /// A completion that answers nothing, or with the wrong length.
    #[error("completion of access {sequence}: {problem}")]
    Completion {
        /// The access's sequence number, as it came.
        sequence: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// An answer to a DMA read that was not asked for, or with the wrong length.
    #[error("answer to DMA read {id}: {problem}")]
    DmaReadData {
        /// The id, as it came.
        id: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A DMA generation that does not grow (forward), or that the agent has not begun (reverse).
    #[error("DMA generation {found}: the newest is {newest}")]
    Generation {
        /// What came.
        found: u64,
        /// The newest one until then.
        newest: u64,
    },
    /// A batch that came before came again, with other contents.
    #[error("header.first_sequence: {first}: these items came before, and were others")]
    Repeat {
        /// The first item's sequence number.
        first: u64,
    },
    /// The session was opened with versions that this side does not speak.
    #[error("open.version_min..version_max: {min}..{max}; this side speaks {ours}")]
    Version {
        /// The peer's lowest.
        min: u32,
        /// The peer's highest.
        max: u32,
        /// Ours.
        ours: u32,
    },
}

impl Violation {
    /// The way may be at fault, and not the end that sends: frames were lost, garbled, out of order, or another session's. A session
    /// that can be resumed lives on, and is dialled again.
    pub fn is_of_path(&self) -> bool {
        match self {
            Self::FrameTooLong { .. }
            | Self::Malformed(_)
            | Self::Garbled
            | Self::Unchecked
            | Self::NoHeader
            | Self::Unexpected { .. } => true,
            Self::Header { field, .. } => matches!(
                *field,
                "session_hi" | "session_lo" | "epoch" | "attach_number" | "first_sequence"
            ),
            _ => false,
        }
    }
}
