//! What can go wrong with a connection or a stream.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use crate::tls::TlsError;
use crate::{MAX_FRAME_BYTES, TransportKind};

/// A cause of any type.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a connection or a stream cannot be used. Messages say which peer, which field and, where it is known, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A frame to send, or one that a peer announces, is longer than [`MAX_FRAME_BYTES`].
    #[error("frame length {length} exceeds {MAX_FRAME_BYTES}")]
    FrameTooLong {
        /// The frame's length, in bytes.
        length: usize,
    },
    /// A peer ended its direction within a frame.
    #[error("stream ended within a frame: {received} of {expected} bytes of its {field} came")]
    Truncated {
        /// `length prefix` or `payload`.
        field: &'static str,
        /// Bytes that came.
        received: usize,
        /// Bytes that the field has.
        expected: usize,
    },
    /// A field of a peer's that has no meaning here.
    #[error("{field} is {value}: {expected}")]
    Malformed {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it must be.
        expected: &'static str,
    },
    /// The outgoing queue is full: the peer does not read, or the caller does not await [`flushed`](crate::FrameSender::flushed).
    #[error("outgoing queue of {queued} bytes has no room for {length} more (limit {limit})")]
    Overflow {
        /// Bytes in the queue.
        queued: usize,
        /// Bytes that were to be added.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The stream's sending direction has ended: by [`finish`](crate::FrameSender::finish), by the peer, or with the connection.
    #[error("the stream's sending direction has ended")]
    SendEnded,
    /// The peer refuses to read any more of the stream.
    #[error("peer stopped reading the stream (code {code})")]
    Stopped {
        /// The peer's code.
        code: u64,
    },
    /// The peer abandoned the stream instead of ending it.
    #[error("peer aborted the stream (code {code})")]
    Reset {
        /// The peer's code: QUIC's application error code, or HTTP/2's.
        code: u64,
    },
    /// The peer ended a gRPC stream with a status other than OK, or with none.
    #[error("peer ended the stream with gRPC status {code:?}: {message}")]
    Rpc {
        /// The status.
        code: tonic::Code,
        /// The peer's words.
        message: String,
    },
    /// Cannot connect a socket.
    #[error("cannot connect to {peer} over {kind}: {source}")]
    Connect {
        /// Whom.
        peer: SocketAddr,
        /// How.
        kind: TransportKind,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The handshake was refused, by us or by the peer.
    #[error("handshake with {peer} over {kind} failed: {reason}")]
    Handshake {
        /// With whom.
        peer: SocketAddr,
        /// Over what.
        kind: TransportKind,
        /// What was wrong, and what to do.
        reason: String,
        /// For programs. `reason` tells it already, so it is not a source: chains of causes would tell it twice.
        cause: Option<BoxError>,
    },
    /// Something did not happen in time.
    #[error("{what} with {peer} over {kind} did not end within {} ms", limit.as_millis())]
    TimedOut {
        /// With whom.
        peer: SocketAddr,
        /// Over what.
        kind: TransportKind,
        /// What was awaited.
        what: &'static str,
        /// For how long.
        limit: Duration,
    },
    /// A limit on connections or sessions was reached.
    #[error("{what} limit of {limit} reached: {peer} over {kind} was refused")]
    Limit {
        /// Who was refused.
        peer: SocketAddr,
        /// Over what.
        kind: TransportKind,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The connection is gone.
    #[error("connection lost: {reason}")]
    ConnectionLost {
        /// Why.
        reason: String,
        /// For programs. `reason` tells it already, so it is not a source: chains of causes would tell it twice.
        cause: Option<BoxError>,
    },
    /// This end closed the connection.
    #[error("the connection was closed by this end")]
    Closed,
    /// A port cannot be bound.
    #[error("cannot listen on {socket} {address}: {source}")]
    Bind {
        /// `TCP` or `UDP`.
        socket: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// An option has a value that cannot work.
    #[error("option {field}: {problem}")]
    Option {
        /// Which one.
        field: &'static str,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The gRPC server failed as a whole.
    #[error("gRPC server failed: {0}")]
    Serve(#[source] tonic::transport::Error),
}
