//! Frames in a byte stream: a prefix with the length, then the payload. The two transports differ in the prefix only.

mod deframer;
mod outgoing;

use crate::{MAX_FRAME_BYTES, TransportError};

pub(crate) use deframer::Deframer;
pub(crate) use outgoing::Outgoing;

/// What stands before a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// The length, 4 bytes big-endian.
    Quic,
    /// gRPC's: the compressed flag (0), then the length, 4 bytes big-endian.
    Grpc,
}

impl Prefix {
    /// The prefix's own length.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Quic => 4,
            Self::Grpc => 5,
        }
    }

    /// The frame length that a prefix states. `prefix` holds at least [`Prefix::bytes`].
    fn parse(self, prefix: &[u8]) -> Result<usize, TransportError> {
        let length = match (self, prefix) {
            (Self::Quic, &[a, b, c, d, ..]) | (Self::Grpc, &[0, a, b, c, d, ..]) => {
                u32::from_be_bytes([a, b, c, d])
            }
            _ => {
                return Err(TransportError::Malformed {
                    field: "gRPC compressed flag",
                    value: prefix.first().copied().unwrap_or_default().into(),
                    expected: "must be 0, frames are never compressed",
                });
            }
        };
        check_length(usize::try_from(length).unwrap_or(usize::MAX))
    }
}

/// Refuses a frame that is too long.
fn check_length(length: usize) -> Result<usize, TransportError> {
    if length > MAX_FRAME_BYTES {
        return Err(TransportError::FrameTooLong { length });
    }
    Ok(length)
}
