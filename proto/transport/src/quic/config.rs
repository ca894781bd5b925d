//! quinn's configuration: nothing is left unbounded.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use rustix::net::sockopt;

use crate::options::{CONNECTION_WINDOW, SEND_WINDOW, STREAM_WINDOW, UDP_BUFFER_BYTES};
use crate::tls::{ALPN_QUIC, TlsError};
use crate::{DialOptions, IdentityPattern, ListenOptions, TlsMaterial, TransportError};

/// Largest UDP payload that we take, in bytes: Ethernet's, as far as quinn's path MTU discovery goes by default. quinn
/// reserves memory for each endpoint by it.
const MAX_UDP_PAYLOAD: u16 = 1_472;
/// Connections whose handshake has not begun, and the bytes that may wait for each and for all of them.
const MAX_INCOMING: usize = 1_024;
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFER_TOTAL_BYTES: u64 = 4 << 20;

/// An endpoint that accepts connections on a bound socket.
pub(crate) fn bind_server(
    socket: UdpSocket,
    options: &ListenOptions,
) -> Result<Endpoint, TransportError> {
    let address = options.addr;
    let config = server_config(options)?;
    endpoint(socket, Some(config)).map_err(|source| TransportError::Bind {
        socket: "UDP",
        address,
        source,
    })
}

/// An endpoint that connects to `peer`.
pub(super) fn bind_client(peer: SocketAddr) -> std::io::Result<Endpoint> {
    let local: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    endpoint(UdpSocket::bind(local)?, None)
}

pub(super) fn client_config(
    tls: &TlsMaterial,
    expect: &IdentityPattern,
    options: &DialOptions,
) -> Result<ClientConfig, TransportError> {
    let tls = tls.client_config(ALPN_QUIC, expect)?;
    let tls = QuicClientConfig::try_from(tls).map_err(no_initial_suite)?;
    let mut config = ClientConfig::new(Arc::new(tls));
    // Only the dialling side opens streams.
    config.transport_config(Arc::new(transport(
        options.keep_alive,
        options.idle_timeout,
        0,
    )?));
    Ok(config)
}

pub(super) fn server_config(options: &ListenOptions) -> Result<ServerConfig, TransportError> {
    let tls = options.tls.server_config(ALPN_QUIC)?;
    let tls = QuicServerConfig::try_from(tls).map_err(no_initial_suite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(
            options.keep_alive,
            options.idle_timeout,
            options.max_sessions_per_connection,
        )?))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES);
    Ok(config)
}

fn transport(
    keep_alive: Option<Duration>,
    idle_timeout: Duration,
    max_streams: u32,
) -> Result<TransportConfig, TransportError> {
    let idle_timeout = IdleTimeout::try_from(idle_timeout).map_err(|_| TransportError::Option {
        field: "idle_timeout",
        problem: "must be shorter than 2^62 ms",
    })?;
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(max_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(keep_alive);
    Ok(config)
}

fn endpoint(socket: UdpSocket, server: Option<ServerConfig>) -> std::io::Result<Endpoint> {
    enlarge_buffers(&socket);
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(MAX_UDP_PAYLOAD)
        .map_err(std::io::Error::other)?;
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
}

/// Bursts overrun the default buffers. Smaller ones cost speed only, so a refusal is no error.
fn enlarge_buffers(socket: &UdpSocket) {
    let _ = sockopt::set_socket_recv_buffer_size(socket, UDP_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(socket, UDP_BUFFER_BYTES);
}

fn no_initial_suite(error: quinn::crypto::rustls::NoInitialCipherSuite) -> TransportError {
    TlsError::Configuration(rustls::Error::General(error.to_string())).into()
}
