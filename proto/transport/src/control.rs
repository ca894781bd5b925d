//! Channels for the gRPC services beside sessions.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::grpc::{MAX_HEADER_BYTES, connect_tls};
use crate::options::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::{DialOptions, IdentityPattern, TlsMaterial, TransportError, TransportKind};

/// A channel for clients of gRPC services on a [`Listener`](crate::Listener)'s port, authenticated as sessions are. When its
/// connection is lost, the next call makes another.
///
/// # Errors
/// The options are unusable, nobody answers in time, or the server is not who it should be.
pub async fn control_channel(
    tls: TlsMaterial,
    expect: IdentityPattern,
    addr: SocketAddr,
    options: DialOptions,
) -> Result<Channel, TransportError> {
    options.check()?;
    // The first connection is made here, and not by tonic, for the sake of its error.
    let first = timeout(options.connect_timeout, connect_tls(&tls, &expect, addr))
        .await
        .unwrap_or(Err(TransportError::TimedOut {
            peer: addr,
            kind: TransportKind::Grpc,
            what: "connecting",
            limit: options.connect_timeout,
        }))?;
    let first = Arc::new(Mutex::new(Some(first.0)));
    let connector = tower::service_fn(move |_uri| {
        let ready = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (tls, expect) = (tls.clone(), expect.clone());
        async move {
            match ready {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => connect_tls(&tls, &expect, addr)
                    .await
                    .map(|(stream, _)| TokioIo::new(stream)),
            }
        }
    });
    endpoint(addr, &options)
        .map_err(|error| unusable(addr, error))?
        .connect_with_connector(connector)
        .await
        .map_err(|error| unusable(addr, error))
}

fn endpoint(addr: SocketAddr, options: &DialOptions) -> Result<Endpoint, tonic::transport::Error> {
    // TLS is the connector's business: tonic refuses the scheme https when it does none itself.
    let mut endpoint = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(options.connect_timeout)
        .http2_adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADER_BYTES);
    if let Some(keep_alive) = options.keep_alive {
        endpoint = endpoint
            .http2_keep_alive_interval(keep_alive)
            .keep_alive_timeout(options.idle_timeout.saturating_sub(keep_alive))
            .keep_alive_while_idle(true);
    }
    Ok(endpoint)
}

fn unusable(peer: SocketAddr, error: tonic::transport::Error) -> TransportError {
    TransportError::Handshake {
        peer,
        kind: TransportKind::Grpc,
        reason: error.to_string(),
        source: Some(error.into()),
    }
}
