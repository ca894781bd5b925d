//! Connections that peers open: TCP, then TLS, then HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::transport::server::Connected;

use super::dial::reply_time;
use super::io::EndableIo;
use super::service::DataService;
use super::{MAX_HEADER_BYTES, MAX_HTTP2_FRAME_BYTES};
use crate::listen::{Server, SessionHandler};
use crate::options::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::tls::{ALPN_GRPC, Changes, explain_handshake, identity_of_chain};
use crate::{Identity, PeerIdentity, TransportError, TransportKind};

const KIND: TransportKind = TransportKind::Grpc;
/// Pause after the kernel could not give us a connection, in most cases for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Streams that a peer opened and reset before we looked at them.
const MAX_PENDING_RESETS: usize = 64;

/// Serves gRPC on accepted connections until the server is drained and stopped.
pub(crate) async fn serve<H: SessionHandler>(
    accepted: Accepted<H>,
    routes: Routes,
    server: Arc<Server<H>>,
) -> Result<(), TransportError> {
    let options = &server.options;
    let draining = server.draining.clone();
    tonic::transport::Server::builder()
        .http2_adaptive_window(Some(false))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(options.max_sessions_per_connection)
        .max_frame_size(MAX_HTTP2_FRAME_BYTES)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(options.keep_alive)
        .http2_keepalive_timeout(Some(reply_time(options.keep_alive, options.idle_timeout)))
        .add_routes(routes.add_service(DataService::new(Arc::clone(&server))))
        .serve_with_incoming_shutdown(accepted, draining.cancelled_owned())
        .await
        .map_err(TransportError::Serve)
}

/// Authenticated connections, as a stream that never ends. It accepts, and shakes hands with many peers at a time.
pub(crate) struct Accepted<H> {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    changes: Changes,
    /// Ended with it.
    handshakes: JoinSet<Option<AcceptedIo>>,
    pause: Option<Pin<Box<Sleep>>>,
    server: Arc<Server<H>>,
}

impl<H: SessionHandler> Accepted<H> {
    pub(crate) fn new(
        listener: TcpListener,
        server: Arc<Server<H>>,
    ) -> Result<Self, TransportError> {
        let tls = &server.options.tls;
        Ok(Self {
            listener,
            changes: tls.changes(),
            acceptor: Arc::new(tls.server_config(ALPN_GRPC)?).into(),
            handshakes: JoinSet::new(),
            pause: None,
            server,
        })
    }

    /// Goes over to certificates that have replaced ours.
    fn renew(&mut self) {
        if !self.changes.seen() {
            return;
        }
        match self.server.options.tls.server_config(ALPN_GRPC) {
            Ok(config) => self.acceptor = Arc::new(config).into(),
            Err(error) => tracing::error!(%error, "gRPC goes on with the old certificates"),
        }
    }

    /// Starts a handshake if there is room for a connection.
    fn begin(&mut self, stream: TcpStream, remote: SocketAddr) {
        // Without a permit the stream is dropped, which closes it.
        if let Some(permit) = self.server.connection_permit(remote, KIND) {
            self.renew();
            let acceptor = self.acceptor.clone();
            let server = Arc::clone(&self.server);
            self.handshakes
                .spawn(admit(server, acceptor, stream, remote, permit));
        }
    }

    /// Accepts one TCP connection, and begins its handshake.
    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        match ready!(self.listener.poll_accept(context)) {
            Ok((stream, remote)) => self.begin(stream, remote),
            Err(error) if is_of_one_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a TCP connection");
                self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
            }
        }
        Poll::Ready(())
    }
}

impl<H: SessionHandler> Stream for Accepted<H> {
    type Item = io::Result<AcceptedIo>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<AcceptedIo>>> {
        loop {
            match self.handshakes.poll_join_next(context) {
                Poll::Ready(Some(Ok(Some(io)))) => return Poll::Ready(Some(Ok(io))),
                Poll::Ready(Some(_)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            // The kernel's backlog holds the others; the end of a handshake wakes us.
            if self.handshakes.len() >= self.server.options.max_handshakes {
                return Poll::Pending;
            }
            ready!(self.poll_begin(context));
        }
    }
}

/// Whether the next connection may fare better at once.
fn is_of_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// An authenticated connection; else the refusal is reported.
async fn admit<H: SessionHandler>(
    server: Arc<Server<H>>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
) -> Option<AcceptedIo> {
    let limit = server.options.handshake_timeout;
    let timed_out = TransportError::TimedOut {
        peer: remote,
        kind: KIND,
        what: "TLS handshake",
        limit,
    };
    let shaken = timeout(limit, handshake(acceptor, stream, remote)).await;
    match shaken.unwrap_or(Err(timed_out)) {
        Ok((stream, identity)) => {
            let peer = PeerIdentity {
                identity,
                remote,
                sessions: server.session_permits(),
            };
            let admitted = Admitted {
                peer,
                _permit: permit,
            };
            Some(AcceptedIo::new(stream, &server.killed, admitted))
        }
        Err(error) => {
            server.refusals.report(remote, KIND, error);
            None
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    peer: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Identity), TransportError> {
    let failed = |reason, cause| TransportError::Handshake {
        peer,
        kind: KIND,
        reason,
        cause,
    };
    tcp.set_nodelay(true)
        .map_err(|error| failed(error.to_string(), Some(error.into())))?;
    let stream = acceptor
        .accept(tcp)
        .await
        .map_err(|error| failed(explain_handshake(&error), Some(error.into())))?;
    let session = stream.get_ref().1;
    let identity = identity_of_chain(session.peer_certificates().unwrap_or_default())
        .map_err(|error| failed(error.to_string(), Some(error.into())))?;
    Ok((stream, identity))
}

/// An authenticated connection. It ends when the server does.
pub(crate) type AcceptedIo = EndableIo<TlsStream<TcpStream>, Admitted>;

/// What goes with an authenticated connection.
pub(crate) struct Admitted {
    peer: PeerIdentity,
    _permit: OwnedSemaphorePermit,
}

impl Connected for AcceptedIo {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.kept().peer.clone()
    }
}
