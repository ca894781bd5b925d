//! Connections that we open.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::{ConnectError, Connection, ConnectionError, Endpoint};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use super::config::{bind_client, client_config};
use super::error::{CODE_DONE, connection_error};
use super::stream::{QuicReceiver, QuicSender};
use crate::tls::{CertificateError, explain_quic, identity_of_chain};
use crate::{
    DialOptions, FrameReceiver, FrameSender, FrameStream, Identity, IdentityPattern, TlsMaterial,
    TransportError, TransportKind,
};

/// Longest wait until the last packet of a connection that we close has left.
const LINGER: Duration = Duration::from_millis(100);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(1);

/// A connection to a server.
#[derive(Debug, Clone)]
pub(crate) struct QuicConnection {
    /// Of this connection alone; kept for its socket.
    _endpoint: Endpoint,
    connection: Connection,
    max_queued_bytes: usize,
    /// Datagrams sent before it was closed by us.
    sent_at_close: Arc<OnceLock<u64>>,
}

impl QuicConnection {
    /// Connects, from a socket of its own.
    pub(crate) async fn connect(
        tls: &TlsMaterial,
        expect: &IdentityPattern,
        options: &DialOptions,
        peer: SocketAddr,
    ) -> Result<(Self, Identity), TransportError> {
        let config = client_config(tls, expect, options)?;
        let connect_error = |source| TransportError::Connect {
            peer,
            kind: TransportKind::Quic,
            source,
        };
        let endpoint = bind_client(peer).map_err(connect_error)?;
        // The name is not sent (SNI is off) and not checked: identities are.
        let connecting = endpoint
            .connect_with(config, peer, &peer.ip().to_string())
            .map_err(|error: ConnectError| connect_error(std::io::Error::other(error)))?;
        let connection = connecting
            .await
            .map_err(|error| TransportError::Handshake {
                peer,
                kind: TransportKind::Quic,
                reason: explain_quic(&error),
                cause: Some(error.into()),
            })?;
        let identity =
            peer_identity(&connection).map_err(|error| certificate_error(peer, &error))?;
        let connection = Self {
            _endpoint: endpoint,
            connection,
            max_queued_bytes: options.max_queued_bytes,
            sent_at_close: Arc::default(),
        };
        Ok((connection, identity))
    }

    pub(crate) async fn open(&self) -> Result<FrameStream, TransportError> {
        let streams = self.connection.open_bi().await.map_err(connection_error)?;
        Ok(frame_stream(
            &self.connection,
            streams,
            self.max_queued_bytes,
        ))
    }

    pub(crate) fn close(&self) {
        self.sent_at_close
            .get_or_init(|| datagrams_sent(&self.connection));
        self.connection.close(CODE_DONE, b"");
    }

    pub(crate) async fn closed(&self) {
        if let ConnectionError::LocallyClosed = self.connection.closed().await
            && let Some(before) = self.sent_at_close.get()
        {
            // The peer is still to be told.
            told(&self.connection, *before).await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }
}

/// Closes a connection, and waits until its peer has most likely been told.
pub(super) async fn close_and_tell(connection: &Connection) {
    let before = datagrams_sent(connection);
    connection.close(CODE_DONE, b"");
    told(connection, before).await;
}

/// Waits until the packet that closes a connection is on its way. Nothing answers it, and quinn's draining period (three probe
/// time-outs) only serves packets that cross it: a process that stops need not wait for that. Should the packet be lost, the
/// peer's idle time-out ends the connection.
async fn told(connection: &Connection, before: u64) {
    let sent = async {
        // The connection's own task sends it.
        tokio::task::yield_now().await;
        while datagrams_sent(connection) <= before {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = timeout(LINGER, sent).await;
}

fn datagrams_sent(connection: &Connection) -> u64 {
    connection.stats().udp_tx.datagrams
}

/// The identity in the peer's certificate.
pub(super) fn peer_identity(connection: &Connection) -> Result<Identity, CertificateError> {
    let certificates = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or(CertificateError::None)?;
    identity_of_chain(&certificates)
}

pub(super) fn certificate_error(peer: SocketAddr, error: &CertificateError) -> TransportError {
    TransportError::Handshake {
        peer,
        kind: TransportKind::Quic,
        reason: error.to_string(),
        cause: None,
    }
}

pub(super) fn frame_stream(
    connection: &Connection,
    (send, recv): (quinn::SendStream, quinn::RecvStream),
    max_queued_bytes: usize,
) -> FrameStream {
    FrameStream {
        sender: FrameSender::quic(QuicSender::new(connection.clone(), send, max_queued_bytes)),
        receiver: FrameReceiver::quic(QuicReceiver::new(recv)),
    }
}
