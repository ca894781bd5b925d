//! Connections that we open.

use std::net::SocketAddr;
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

/// Longest wait for the last packets of a connection that we close.
const LINGER: Duration = Duration::from_millis(100);

/// A connection to a server.
#[derive(Debug, Clone)]
pub(crate) struct QuicConnection {
    /// Of this connection alone.
    endpoint: Endpoint,
    connection: Connection,
    max_queued_bytes: usize,
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
            endpoint,
            connection,
            max_queued_bytes: options.max_queued_bytes,
        };
        Ok((connection, identity))
    }

    pub(crate) async fn open(&self) -> Result<FrameStream, TransportError> {
        let streams = self.connection.open_bi().await.map_err(connection_error)?;
        Ok(frame_stream(streams, self.max_queued_bytes))
    }

    pub(crate) fn close(&self) {
        self.connection.close(CODE_DONE, b"");
    }

    pub(crate) async fn closed(&self) {
        if let ConnectionError::LocallyClosed = self.connection.closed().await {
            // The peer is still to be told.
            linger(&self.endpoint).await;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }
}

/// Waits until the peers of closed connections have most likely been told.
pub(super) async fn linger(endpoint: &Endpoint) {
    let _ = timeout(LINGER, endpoint.wait_idle()).await;
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
    (send, recv): (quinn::SendStream, quinn::RecvStream),
    max_queued_bytes: usize,
) -> FrameStream {
    FrameStream {
        sender: FrameSender::quic(QuicSender::new(send, max_queued_bytes)),
        receiver: FrameReceiver::quic(QuicReceiver::new(recv)),
    }
}
