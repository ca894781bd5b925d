//! Frames over QUIC and gRPC with mutual TLS.
//!
//! A *frame* is an opaque byte string of at most [`MAX_FRAME_BYTES`]. This crate moves frames between two authenticated
//! peers, in order, on one bidirectional stream per session, and knows nothing about what is in them. Both transports
//! carry the same frames and share one port number:
//!
//! - **QUIC** (UDP), ALPN `potemkin/1`: one bidirectional stream per session; each frame is preceded by its length, a
//!   4-byte big-endian unsigned integer.
//! - **gRPC** (TCP, HTTP/2): the method `/potemkin.v1.Data/Session`; each message is one frame, never compressed. Other
//!   gRPC services live on the same port.
//!
//! Both run over TLS 1.3 with a certificate on either side and neither resumption nor 0-RTT. A peer is who its
//! certificate's one URI says: an [`Identity`].
//!
//! Everything runs on the caller's tokio runtime, which may be a `current_thread` one. [`FrameSender::send`] and
//! [`FrameSender::flushed`] work on the caller's own task: there is no channel between it and the transport's stream.

mod connection;
mod control;
mod error;
mod framing;
mod grpc;
mod identity;
mod listen;
mod options;
mod peer;
mod quic;
mod refusal;
mod stream;
mod tls;

use std::fmt;
use std::str::FromStr;

pub use connection::{Connection, Dialer};
pub use control::{control_channel, lost_connection, status_words};
pub use error::TransportError;
pub use identity::{Identity, IdentityError, IdentityPattern, MAX_IDENTITY_BYTES, Role};
pub use listen::{Listener, SessionHandler, listen};
pub use options::{DialOptions, ListenOptions};
pub use peer::{PeerIdentity, peer_address, peer_identity};
pub use refusal::{Refusal, RefusalObserver};
pub use stream::{FrameReceiver, FrameSender, FrameStream};
pub use tls::{CertificateError, TlsError, TlsMaterial};

/// Longest frame, in bytes; a length prefix does not count.
pub const MAX_FRAME_BYTES: usize = 65_536;

/// What a leg of a session's way runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// QUIC over UDP. Written `quic`.
    Quic,
    /// A gRPC bidirectional stream over HTTP/2 and TCP. Written `grpc`.
    Grpc,
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quic => "quic",
            Self::Grpc => "grpc",
        })
    }
}

impl FromStr for TransportKind {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "quic" => Ok(Self::Quic),
            "grpc" => Ok(Self::Grpc),
            _ => Err(UnknownTransport),
        }
    }
}

/// The text names no transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport: use \"quic\" or \"grpc\"")]
pub struct UnknownTransport;
