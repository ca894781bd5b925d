//! Connections to servers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::grpc::GrpcConnection;
use crate::quic::QuicConnection;
use crate::{
    DialOptions, FrameStream, Identity, IdentityPattern, TlsMaterial, TransportError, TransportKind,
};

/// Opens connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Dialer {
    tls: TlsMaterial,
    expect: IdentityPattern,
    options: DialOptions,
}

impl Dialer {
    /// A dialer that shows `tls`'s certificate and accepts servers that `expect` matches.
    pub fn new(tls: TlsMaterial, expect: IdentityPattern, options: DialOptions) -> Self {
        Self {
            tls,
            expect,
            options,
        }
    }

    /// Connects. A server that refuses *our* certificate says so only after this (TLS 1.3 has the client finish first): then
    /// the connection's first stream fails.
    ///
    /// # Errors
    /// The options are unusable, nobody answers in time, or the server is not who it should be.
    pub async fn connect(
        &self,
        kind: TransportKind,
        addr: SocketAddr,
    ) -> Result<Connection, TransportError> {
        self.options.check()?;
        let connecting = async {
            let (tls, expect, options) = (&self.tls, &self.expect, &self.options);
            Ok(match kind {
                TransportKind::Quic => {
                    let (link, peer) = QuicConnection::connect(tls, expect, options, addr).await?;
                    (Link::Quic(link), peer)
                }
                TransportKind::Grpc => {
                    let (link, peer) = GrpcConnection::connect(tls, expect, options, addr).await?;
                    (Link::Grpc(link), peer)
                }
            })
        };
        let limit = self.options.connect_timeout;
        let (link, peer) = in_time(connecting, addr, kind, "connecting", limit).await?;
        Ok(Connection {
            link,
            shared: Arc::new(Shared {
                peer,
                remote: addr,
                kind,
                open_timeout: limit,
            }),
        })
    }
}

/// An authenticated connection to a server, for any number of streams. It ends when it is closed, when it is lost, or when all
/// its clones and streams are gone. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {
    link: Link,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
enum Link {
    Quic(QuicConnection),
    Grpc(GrpcConnection),
}

#[derive(Debug)]
struct Shared {
    peer: Identity,
    remote: SocketAddr,
    kind: TransportKind,
    open_timeout: Duration,
}

impl Connection {
    /// The server's certified identity.
    pub fn peer(&self) -> &Identity {
        &self.shared.peer
    }

    /// The server's address.
    pub fn remote(&self) -> SocketAddr {
        self.shared.remote
    }

    /// What it runs on.
    pub fn kind(&self) -> TransportKind {
        self.shared.kind
    }

    /// Opens a stream. There is no round trip: the server hears of it with the first frame, and a refusal shows up in
    /// [`recv`](crate::FrameReceiver::recv).
    ///
    /// # Errors
    /// The connection is gone. Over QUIC, also that the server allows no further stream within the connect timeout; over gRPC
    /// such a stream is there at once, and its frames wait.
    pub async fn open(&self) -> Result<FrameStream, TransportError> {
        let opening = async {
            match &self.link {
                Link::Quic(link) => link.open().await,
                Link::Grpc(link) => link.open().await,
            }
        };
        let Shared {
            remote,
            kind,
            open_timeout,
            ..
        } = *self.shared;
        in_time(opening, remote, kind, "opening a stream", open_timeout).await
    }

    /// Closes the connection and all its streams at once, without waiting.
    pub fn close(&self) {
        match &self.link {
            Link::Quic(link) => link.close(),
            Link::Grpc(link) => link.close(),
        }
    }

    /// Waits until the connection is gone, for whatever reason. After [`close`](Self::close), await this before the process
    /// ends, so that the server hears of it.
    pub async fn closed(&self) {
        match &self.link {
            Link::Quic(link) => link.closed().await,
            Link::Grpc(link) => link.closed().await,
        }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        match &self.link {
            Link::Quic(link) => link.is_closed(),
            Link::Grpc(link) => link.is_closed(),
        }
    }
}

async fn in_time<T>(
    future: impl Future<Output = Result<T, TransportError>>,
    peer: SocketAddr,
    kind: TransportKind,
    what: &'static str,
    limit: Duration,
) -> Result<T, TransportError> {
    timeout(limit, future)
        .await
        .unwrap_or(Err(TransportError::TimedOut {
            peer,
            kind,
            what,
            limit,
        }))
}
