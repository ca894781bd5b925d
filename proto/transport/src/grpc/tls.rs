//! TCP with TLS towards a server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::{ALPN_GRPC, explain_handshake, identity_of_chain};
use crate::{Identity, IdentityPattern, TlsMaterial, TransportError, TransportKind};

/// An authenticated connection to `peer`, and who that is.
pub(crate) async fn connect_tls(
    tls: &TlsMaterial,
    expect: &IdentityPattern,
    peer: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Identity), TransportError> {
    let config = tls.client_config(ALPN_GRPC, expect)?;
    let tcp = connect_tcp(peer)
        .await
        .map_err(|source| TransportError::Connect {
            peer,
            kind: TransportKind::Grpc,
            source,
        })?;
    let handshake_error = |reason, cause| TransportError::Handshake {
        peer,
        kind: TransportKind::Grpc,
        reason,
        cause,
    };
    // The name is not sent (SNI is off) and not checked: identities are.
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::IpAddress(peer.ip().into()), tcp)
        .await
        .map_err(|error| handshake_error(explain_handshake(&error), Some(error.into())))?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_GRPC) {
        let reason = "the server does not speak HTTP/2: check the port".to_owned();
        return Err(handshake_error(reason, None));
    }
    let identity = identity_of_chain(session.peer_certificates().unwrap_or_default())
        .map_err(|error| handshake_error(error.to_string(), Some(error.into())))?;
    Ok((stream, identity))
}

async fn connect_tcp(peer: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(peer).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
