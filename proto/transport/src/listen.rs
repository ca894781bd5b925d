//! Serving both transports on one port number.

mod server;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::Endpoint;
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::{FrameStream, Identity, ListenOptions, TransportError, TransportKind, grpc, quic};

pub(crate) use server::Server;

/// Port numbers that are tried when the one that TCP was given is taken for UDP.
const PORT_ATTEMPTS: u32 = 16;

/// What happens on sessions' streams.
pub trait SessionHandler: Send + Sync + 'static {
    /// Serves one stream, in a task of its own. When this returns, or when the listener stops, the stream is dropped:
    /// [`finish`](crate::FrameSender::finish) it first for a graceful end.
    fn session(
        &self,
        peer: Identity,
        kind: TransportKind,
        remote: SocketAddr,
        stream: FrameStream,
    ) -> impl Future<Output = ()> + Send;
}

/// Binds TCP and UDP on one port number. Connections are accepted by [`Listener::serve`].
///
/// # Errors
/// A port cannot be bound, or an option or the TLS material is unusable.
pub async fn listen(options: ListenOptions) -> Result<Listener, TransportError> {
    options.check()?;
    let (tcp, udp) = bind(options.addr).await?;
    let addr = tcp.local_addr().map_err(bind_error("TCP", options.addr))?;
    let endpoint = quic::bind_server(udp, &options)?;
    Ok(Listener {
        tcp,
        endpoint,
        addr,
        options,
    })
}

/// A bound port, for TCP and UDP.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    endpoint: Endpoint,
    addr: SocketAddr,
    options: ListenOptions,
}

impl Listener {
    /// Where it listens, for TCP and UDP.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves sessions with `handler` and other gRPC services with `routes`, until `shutdown` resolves. Then nothing new is
    /// accepted, sessions may go on for `drain_timeout`, and what is left is dropped.
    ///
    /// # Errors
    /// The gRPC server failed as a whole, or the TLS material is unusable.
    pub async fn serve<H: SessionHandler>(
        self,
        handler: H,
        routes: Routes,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), TransportError> {
        let server = Arc::new(Server::new(handler, self.options));
        let accepted = grpc::Accepted::new(self.tcp, Arc::clone(&server))?;
        let both = async {
            let quic = quic::serve(self.endpoint, Arc::clone(&server));
            let grpc = async {
                let result = grpc::serve(accepted, routes, Arc::clone(&server)).await;
                if result.is_err() {
                    server.kill();
                }
                result
            };
            tokio::join!(quic, grpc).1
        };
        let stop = async {
            shutdown.await;
            server.drain().await;
        };
        let mut both = std::pin::pin!(both);
        tokio::select! {
            result = &mut both => result,
            () = stop => both.await,
        }
    }
}

async fn bind(addr: SocketAddr) -> Result<(TcpListener, UdpSocket), TransportError> {
    let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let tcp = TcpListener::bind(addr)
            .await
            .map_err(bind_error("TCP", addr))?;
        let taken = tcp.local_addr().map_err(bind_error("TCP", addr))?;
        match UdpSocket::bind(taken) {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(bind_error("UDP", taken)(error)),
        }
    }
}

fn bind_error(socket: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> TransportError {
    move |source| TransportError::Bind {
        socket,
        address,
        source,
    }
}
