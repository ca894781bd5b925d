//! Connections and listeners: limits, ends, ports.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use potemkin_transport::{
    DialOptions, ListenOptions, Refusal, TransportError, TransportKind, listen,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::on_both;
use crate::support::{AGENT, BROKER, Pair, Pki, dialer, hand_over_server, recv_error, send};

on_both!(
    closed_connection_ends_its_streams,
    connection_lives_as_long_as_its_streams,
    abandoned_connection_is_given_up_by_the_server,
    connection_beyond_the_limit_is_refused,
    room_of_a_closed_connection_is_used_again,
    stream_beyond_the_limit_waits_for_room,
    stopped_server_drops_what_does_not_end,
    drained_server_lets_sessions_end,
    nobody_listening_is_a_named_error,
);

async fn closed_connection_ends_its_streams(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;

    pair.client.close();

    pair.client.closed().await;
    assert!(pair.client.is_closed());
    recv_error(&mut client).await;
    recv_error(&mut server).await;
    pair.client.open().await.unwrap_err();
}

async fn connection_lives_as_long_as_its_streams(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;
    let pki = Pki::new();
    let (other, _) = hand_over_server(&pki, |_| {}).await;
    let connect = dialer(pki.material(AGENT), DialOptions::default());

    pair.client = connect.connect(kind, other.addr).await.unwrap();

    send(&mut client, b"still here").await;
    assert_eq!(crate::support::recv(&mut server).await, b"still here"[..]);
}

async fn abandoned_connection_is_given_up_by_the_server(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (client, mut server) = pair.streams().await;
    let Pair { client: link, .. } = pair;

    drop((client, link));

    recv_error(&mut server).await;
}

async fn connection_beyond_the_limit_is_refused(kind: TransportKind) {
    let mut pair = Pair::with_options(kind, DialOptions::default(), |options| {
        options.max_connections = 1;
    })
    .await;
    let second = dialer(pair.pki.material(AGENT), DialOptions::default());

    let error = second.connect(kind, pair.server.addr).await.unwrap_err();

    assert!(error.to_string().contains("connection limit"), "{error}");
    let Refusal { reason, .. } = pair.server.refusals.recv().await.unwrap();
    assert!(
        matches!(
            reason,
            TransportError::Limit {
                what: "connection",
                limit: 1,
                ..
            }
        ),
        "{reason}"
    );
    // The first one is not disturbed.
    pair.streams().await;
}

async fn room_of_a_closed_connection_is_used_again(kind: TransportKind) {
    let pair = Pair::with_options(kind, DialOptions::default(), |options| {
        options.max_connections = 1;
    })
    .await;
    let again = dialer(pair.pki.material(AGENT), DialOptions::default());

    pair.client.close();

    // The server hears of the end at some time.
    while again.connect(kind, pair.server.addr).await.is_err() {}
}

async fn stream_beyond_the_limit_waits_for_room(kind: TransportKind) {
    let mut pair = Pair::with_options(kind, DialOptions::default(), |options| {
        options.max_sessions_per_connection = 1;
    })
    .await;
    let first = pair.streams().await;
    let connection = pair.client.clone();

    let second = tokio::spawn(async move {
        let mut stream = connection.open().await.unwrap();
        send(&mut stream, b"second").await;
        stream
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(pair.sessions.try_recv().is_err());
    drop(first);

    let mut session = pair.sessions.recv().await.unwrap();
    assert_eq!(
        crate::support::recv(&mut session.stream).await,
        b"second"[..]
    );
    second.await.unwrap();
}

async fn stopped_server_drops_what_does_not_end(kind: TransportKind) {
    let pki = Pki::new();
    let server = crate::support::Server::start(
        pki.material(BROKER),
        crate::support::Echo,
        Default::default(),
        |options| options.drain_timeout = Duration::ZERO,
    )
    .await;
    let client = dialer(pki.material(AGENT), DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap();
    let mut stream = client.open().await.unwrap();
    send(&mut stream, b"!").await;
    assert_eq!(crate::support::recv(&mut stream).await, b"!"[..]);

    server.stop().await.unwrap();

    recv_error(&mut stream).await;
    client.closed().await;
}

async fn drained_server_lets_sessions_end(kind: TransportKind) {
    let pki = Pki::new();
    let server = crate::support::Server::start(
        pki.material(BROKER),
        crate::support::Echo,
        Default::default(),
        |options| options.drain_timeout = Duration::from_secs(600),
    )
    .await;
    let client = dialer(pki.material(AGENT), DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap();
    let mut stream = client.open().await.unwrap();
    send(&mut stream, b"!").await;
    assert_eq!(crate::support::recv(&mut stream).await, b"!"[..]);

    let stop = tokio::spawn(server.stop());
    send(&mut stream, b"?").await;
    assert_eq!(crate::support::recv(&mut stream).await, b"?"[..]);
    stream.sender.finish().await;

    assert!(stream.receiver.recv().await.unwrap().is_none());
    stop.await.unwrap().unwrap();
}

async fn nobody_listening_is_a_named_error(kind: TransportKind) {
    let pki = Pki::new();
    // An address of its own, where no other test listens.
    let port = TcpListener::bind("127.0.0.3:0").unwrap();
    let addr = port.local_addr().unwrap();
    drop(port);
    let options = DialOptions {
        connect_timeout: Duration::from_millis(50),
        ..DialOptions::default()
    };

    let error = dialer(pki.material(AGENT), options)
        .connect(kind, addr)
        .await
        .unwrap_err();

    let text = error.to_string();
    assert!(text.contains(&addr.to_string()), "{text}");
    match kind {
        TransportKind::Quic => {
            assert!(matches!(error, TransportError::TimedOut { .. }), "{text}");
        }
        TransportKind::Grpc => {
            assert!(matches!(error, TransportError::Connect { .. }), "{text}");
        }
    }
}

#[tokio::test]
async fn stalled_handshake_is_dropped() {
    let pki = Pki::new();
    let (mut server, _sessions) = hand_over_server(&pki, |options| {
        options.handshake_timeout = Duration::from_millis(20);
    })
    .await;

    let mut stalled = TcpStream::connect(server.addr).await.unwrap();

    let Refusal { reason, remote, .. } = server.refusals.recv().await.unwrap();
    assert!(
        matches!(reason, TransportError::TimedOut { .. }),
        "{reason}"
    );
    assert_eq!(remote, stalled.local_addr().unwrap());
    assert_eq!(stalled.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn stalled_handshakes_do_not_hold_up_others_below_their_limit() {
    let pki = Pki::new();
    let (server, mut sessions) = hand_over_server(&pki, |options| {
        options.max_handshakes = 3;
    })
    .await;
    let _stalled = [
        TcpStream::connect(server.addr).await.unwrap(),
        TcpStream::connect(server.addr).await.unwrap(),
    ];

    let client = dialer(pki.material(AGENT), DialOptions::default())
        .connect(TransportKind::Grpc, server.addr)
        .await
        .unwrap();
    let mut stream = client.open().await.unwrap();
    send(&mut stream, b"!").await;

    sessions.recv().await.unwrap();
}

#[tokio::test]
async fn picked_port_is_bound_for_tcp_and_udp() {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;

    assert_ne!(server.addr.port(), 0);
    TcpListener::bind(server.addr).unwrap_err();
    UdpSocket::bind(server.addr).unwrap_err();
}

#[tokio::test]
async fn taken_udp_port_is_a_named_error() {
    let pki = Pki::new();
    // An address of its own: on the usual one, a connection of another test may have the TCP port.
    let taken = UdpSocket::bind("127.0.0.2:0").unwrap();
    let addr = taken.local_addr().unwrap();

    let error = listen(ListenOptions::new(addr, pki.material(BROKER)))
        .await
        .unwrap_err();

    let text = error.to_string();
    assert!(text.contains(&format!("UDP {addr}")), "{text}");
}
