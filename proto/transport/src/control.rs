//! Channels for the gRPC services beside sessions.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::grpc::{MAX_HEADER_BYTES, connect_tls, is_lost, reason};
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

/// What a status says: the peer's words or, if it was made at this end, what became of the connection as well.
#[must_use]
pub fn status_words(status: &Status) -> String {
    let said = status.message();
    match status.source().map(reason) {
        Some(reason) if !said.contains(&reason) => format!("{said}: {reason}"),
        _ => said.to_owned(),
    }
}

/// What to look at where a connection goes before it was of use: TLS 1.3 lets the client finish before the server has judged its
/// certificate, and a refusal may be lost with the connection.
const REFUSED_AFTERWARDS: &str = "if this happens each time, the peer may not accept our certificate: is it signed by an authority in the peer's `tls.ca`?";

/// What became of a call whose connection went: the status was then made at this end, and says nothing of the peer's. `None`
/// if the connection is not to blame.
#[must_use]
pub fn lost_connection(status: &Status) -> Option<String> {
    let lost = status.source().is_some_and(is_lost);
    lost.then(|| {
        format!(
            "the connection was lost: {} ({REFUSED_AFTERWARDS})",
            status_words(status)
        )
    })
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
        reason: reason(&error),
        cause: Some(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn status_of_a_peer_is_told_as_it_came() {
        assert_eq!(status_words(&Status::not_found("no device")), "no device");
    }

    #[test]
    fn only_a_status_of_a_broken_connection_is_a_lost_one() {
        let mut broken = Status::unavailable("transport error");
        broken.set_source(Arc::new(std::io::Error::other("connection reset")));
        let mut late = Status::cancelled("Timeout expired");
        late.set_source(Arc::new(std::fmt::Error));

        let told = lost_connection(&broken).unwrap();
        assert!(told.contains("connection reset"), "{told}");
        assert!(told.contains("`tls.ca`"), "{told}");
        assert_eq!(lost_connection(&late), None);
        assert_eq!(lost_connection(&Status::not_found("no device")), None);
    }

    #[test]
    fn status_of_this_end_is_told_with_its_cause_once() {
        let lost = || Arc::new(std::io::Error::other("connection reset"));
        let mut bare = Status::unavailable("transport error");
        bare.set_source(lost());
        let mut full = Status::unavailable("lost: connection reset");
        full.set_source(lost());

        assert_eq!(status_words(&bare), "transport error: connection reset");
        assert_eq!(status_words(&full), "lost: connection reset");
    }
}
