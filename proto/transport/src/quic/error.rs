//! quinn's errors in our words.

use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use crate::TransportError;

/// Application error codes of our own, in resets and closes. Peers need not tell them apart.
pub(super) const CODE_DONE: VarInt = VarInt::from_u32(0);
/// A stream was dropped without having been finished.
pub(super) const CODE_ABORTED: VarInt = VarInt::from_u32(1);
/// A limit was reached.
pub(super) const CODE_LIMIT: VarInt = VarInt::from_u32(2);

pub(super) fn connection_error(error: ConnectionError) -> TransportError {
    match error {
        ConnectionError::LocallyClosed => TransportError::Closed,
        error => TransportError::ConnectionLost {
            reason: crate::tls::explain_quic(&error),
            cause: Some(error.into()),
        },
    }
}

pub(super) fn write_error(error: WriteError) -> TransportError {
    match error {
        WriteError::Stopped(code) => TransportError::Stopped {
            code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => connection_error(error),
        // 0-RTT is never used, so the stream was closed here.
        WriteError::ClosedStream | WriteError::ZeroRttRejected => TransportError::SendEnded,
    }
}

pub(super) fn read_error(error: ReadError) -> TransportError {
    match error {
        ReadError::Reset(code) => TransportError::Reset {
            code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => connection_error(error),
        // Neither happens: the stream is read in order, without 0-RTT, and not after it was stopped.
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            TransportError::Closed
        }
    }
}
