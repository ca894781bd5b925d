//! What can be set, and the limits that cannot.

use std::net::SocketAddr;
use std::time::Duration;

use crate::refusal::RefusalObserver;
use crate::{TlsMaterial, TransportError};

/// Bytes that may wait in one stream's outgoing queue, by default.
pub(crate) const DEFAULT_MAX_QUEUED_BYTES: usize = 4 << 20;

/// Unread bytes that a peer may have on its way to us in one stream.
pub(crate) const STREAM_WINDOW: u32 = 512 << 10;
/// The same for all streams of a connection together.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a QUIC connection that may be sent but not yet acknowledged.
pub(crate) const SEND_WINDOW: u64 = 8 << 20;
/// Wanted size of a UDP socket's buffers, in bytes; the kernel may give less.
pub(crate) const UDP_BUFFER_BYTES: usize = 2 << 20;

/// How a [`Dialer`](crate::Dialer) connects.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// A sign of life is sent after so long a silence. `None`: never, so that an idle wire is silent. Default 5 s.
    pub keep_alive: Option<Duration>,
    /// A peer that was not heard for so long is gone. Must exceed `keep_alive`. Default 30 s. With no `keep_alive` a QUIC
    /// connection ends after so long a silence, and a gRPC connection never does.
    pub idle_timeout: Duration,
    /// Longest time for a connection, and for opening a stream. Default 5 s.
    pub connect_timeout: Duration,
    /// Bytes that may wait in one stream's outgoing queue. Default 4 MiB.
    pub max_queued_bytes: usize,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            keep_alive: Some(Duration::from_secs(5)),
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
        }
    }
}

impl DialOptions {
    pub(crate) fn check(&self) -> Result<(), TransportError> {
        check_times(self.keep_alive, self.idle_timeout)
    }
}

/// How to [`listen`](crate::listen).
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// Where, for TCP and UDP. With port 0 a port is picked that is free for both.
    pub addr: SocketAddr,
    /// Our certificate and the CA that peers' certificates are checked against.
    pub tls: TlsMaterial,
    /// A sign of life is sent after so long a silence. `None`: never. Default 10 s, so that a client's own comes first.
    pub keep_alive: Option<Duration>,
    /// A peer that was not heard for so long is gone. Must exceed `keep_alive`. Default 30 s.
    pub idle_timeout: Duration,
    /// Connections at a time, of both transports together. Default 4,096.
    pub max_connections: usize,
    /// Streams at a time on one connection (on gRPC, other calls count too). Default 2,048.
    pub max_sessions_per_connection: u32,
    /// Handshakes at a time, for each transport. Default 256.
    pub max_handshakes: usize,
    /// Longest time for a handshake. Default 5 s.
    pub handshake_timeout: Duration,
    /// Bytes that may wait in one stream's outgoing queue. Default 4 MiB.
    pub max_queued_bytes: usize,
    /// How long sessions may go on after the shutdown began. Default 5 s.
    pub drain_timeout: Duration,
    /// Told of each connection and session that is refused.
    pub on_refused: Option<RefusalObserver>,
}

impl ListenOptions {
    /// Defaults for a listener on `addr`.
    pub fn new(addr: SocketAddr, tls: TlsMaterial) -> Self {
        Self {
            addr,
            tls,
            keep_alive: Some(Duration::from_secs(10)),
            idle_timeout: Duration::from_secs(30),
            max_connections: 4_096,
            max_sessions_per_connection: 2_048,
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(5),
            max_queued_bytes: DEFAULT_MAX_QUEUED_BYTES,
            drain_timeout: Duration::from_secs(5),
            on_refused: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), TransportError> {
        check_positive("max_connections", self.max_connections)?;
        check_positive("max_handshakes", self.max_handshakes)?;
        check_times(self.keep_alive, self.idle_timeout)
    }
}

fn check_positive(field: &'static str, value: usize) -> Result<(), TransportError> {
    match value {
        0 => Err(TransportError::Option {
            field,
            problem: "must be at least 1",
        }),
        _ => Ok(()),
    }
}

fn check_times(keep_alive: Option<Duration>, idle: Duration) -> Result<(), TransportError> {
    if idle.is_zero() || keep_alive.is_some_and(|keep_alive| keep_alive >= idle) {
        return Err(TransportError::Option {
            field: "idle_timeout",
            problem: "must be longer than keep_alive",
        });
    }
    Ok(())
}
