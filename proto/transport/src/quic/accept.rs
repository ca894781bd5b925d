//! Connections that peers open.

use std::sync::Arc;

use quinn::{Connection, Endpoint, Incoming};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::config::server_config;
use super::dial::{certificate_error, close_and_tell, frame_stream, peer_identity};
use super::error::{CODE_DONE, CODE_LIMIT};
use crate::listen::{Server, SessionHandler};
use crate::tls::explain_quic;
use crate::{Identity, ListenOptions, TransportError, TransportKind};

const KIND: TransportKind = TransportKind::Quic;

/// Serves connections until the server is drained and stopped.
pub(crate) async fn serve<H: SessionHandler>(endpoint: Endpoint, server: Arc<Server<H>>) {
    let handshakes = Arc::new(Semaphore::new(server.options.max_handshakes));
    let connections = TaskTracker::new();
    let mut changes = server.options.tls.changes();
    loop {
        // In this order, so that who dials after a replacement meets it.
        tokio::select! {
            biased;
            () = changes.next() => renew(&endpoint, &server.options),
            incoming = server.until_draining(endpoint.accept()) => match incoming {
                Some(Some(incoming)) => admit(incoming, &server, &handshakes, &connections),
                _ => break,
            },
        }
    }
    endpoint.set_server_config(None);
    connections.close();
    connections.wait().await;
    // Peers have been told, but for those that were shaking hands: one turn for the packets that say so.
    endpoint.close(CODE_DONE, b"server stopped");
    tokio::task::yield_now().await;
}

/// Goes over to certificates that have replaced ours.
fn renew(endpoint: &Endpoint, options: &ListenOptions) {
    match server_config(options) {
        Ok(config) => endpoint.set_server_config(Some(config)),
        Err(error) => tracing::error!(%error, "QUIC goes on with the old certificates"),
    }
}

/// Starts a handshake if there is room for it.
fn admit<H: SessionHandler>(
    incoming: Incoming,
    server: &Arc<Server<H>>,
    handshakes: &Arc<Semaphore>,
    connections: &TaskTracker,
) {
    let remote = incoming.remote_address();
    let Some(connection_permit) = server.connection_permit(remote, KIND) else {
        return incoming.refuse();
    };
    let Ok(handshake_permit) = Arc::clone(handshakes).try_acquire_owned() else {
        server.refuse_for_limit(remote, KIND, "handshake", server.options.max_handshakes);
        return incoming.refuse();
    };
    // Under load, make the peer prove its address before it costs us a handshake.
    let crowded = handshakes.available_permits() < server.options.max_handshakes / 2;
    if crowded && incoming.may_retry() {
        // An error means that the peer sent a token already, which `may_retry` has excluded.
        let _ = incoming.retry();
        return;
    }
    let server = Arc::clone(server);
    connections.spawn(async move {
        let shaken = server.until_killed(handshake(incoming, &server)).await;
        drop(handshake_permit);
        match shaken {
            Some(Ok((connection, peer))) => {
                serve_connection(&server, &connection, &peer).await;
                close_and_tell(&connection).await;
            }
            Some(Err(error)) => server.refusals.report(remote, KIND, error),
            None => {}
        }
        drop(connection_permit);
    });
}

async fn handshake<H: SessionHandler>(
    incoming: Incoming,
    server: &Server<H>,
) -> Result<(Connection, Identity), TransportError> {
    let peer = incoming.remote_address();
    let failed = |error: quinn::ConnectionError| TransportError::Handshake {
        peer,
        kind: KIND,
        reason: explain_quic(&error),
        cause: Some(error.into()),
    };
    let connecting = incoming.accept().map_err(failed)?;
    let limit = server.options.handshake_timeout;
    let connection = timeout(limit, connecting)
        .await
        .map_err(|_| TransportError::TimedOut {
            peer,
            kind: KIND,
            what: "TLS handshake",
            limit,
        })?
        .map_err(failed)?;
    let identity = peer_identity(&connection).map_err(|error| {
        connection.close(CODE_DONE, b"certificate has no identity");
        certificate_error(peer, &error)
    })?;
    Ok((connection, identity))
}

/// Starts a session for each stream, until the connection is gone or the server stops.
async fn serve_connection<H: SessionHandler>(
    server: &Arc<Server<H>>,
    connection: &Connection,
    peer: &Identity,
) {
    let sessions = server.session_permits();
    while let Some(Ok((mut send, mut recv))) = server.until_draining(connection.accept_bi()).await {
        let remote = connection.remote_address();
        // quinn bounds open streams; a session may outlive its stream.
        let Some(permit) = server.session_permit(&sessions, remote, KIND) else {
            let _ = send.reset(CODE_LIMIT);
            let _ = recv.stop(CODE_LIMIT);
            continue;
        };
        let stream = frame_stream(connection, (send, recv), server.options.max_queued_bytes);
        server.start_session(peer.clone(), KIND, remote, stream, permit);
    }
    server.until_killed(connection.closed()).await;
}
