//! Frames on a stream, and its ends.

use bytes::Bytes;
use potemkin_transport::{
    DialOptions, FrameStream, MAX_FRAME_BYTES, TransportError, TransportKind,
};
use tokio::task::yield_now;

use crate::on_both;
use crate::support::{AGENT, BROKER};
use crate::support::{Echo, Pair, Pki, Server, dialer, recv, recv_error, send};

on_both!(
    frames_of_all_sizes_come_back,
    frames_queued_together_arrive_in_order,
    too_long_frame_is_refused_and_the_stream_lives,
    recv_dropped_before_it_resolves_loses_nothing,
    finished_direction_ends_gracefully_and_the_other_goes_on,
    dropped_client_sender_is_an_abort,
    dropped_server_stream_is_an_abort,
    frames_before_a_finish_arrive,
    send_after_finish_is_refused,
    many_sessions_share_a_connection,
    session_knows_its_peer,
);

async fn frames_of_all_sizes_come_back(kind: TransportKind) {
    let pki = Pki::new();
    let server = Server::start(pki.material(BROKER), Echo, Default::default(), |_| {}).await;
    let client = dialer(pki.material(AGENT), DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap();
    let mut stream = client.open().await.unwrap();

    for size in [0, 1, 1_000, 4_096, 4_097, 20_000, MAX_FRAME_BYTES] {
        let frame = pattern(size);
        send(&mut stream, &frame).await;
        assert_eq!(recv(&mut stream).await, frame, "{size}");
    }
    stream.sender.finish().await;
    assert!(stream.receiver.recv().await.unwrap().is_none());
}

async fn frames_queued_together_arrive_in_order(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;
    let sizes = || (0..300).map(|index| (index * 37) % 7_000);

    for size in sizes() {
        client.sender.send(pattern(size)).unwrap();
    }
    let receive = async {
        for size in sizes() {
            assert_eq!(recv(&mut server).await, pattern(size), "{size}");
        }
    };

    let (flushed, ()) = tokio::join!(client.sender.flushed(), receive);
    flushed.unwrap();
    assert_eq!(client.sender.queued_bytes(), 0);
}

async fn too_long_frame_is_refused_and_the_stream_lives(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;

    let error = client
        .sender
        .send(pattern(MAX_FRAME_BYTES + 1))
        .unwrap_err();

    assert_eq!(error.to_string(), "frame length 65537 exceeds 65536");
    send(&mut client, b"next").await;
    assert_eq!(recv(&mut server).await, b"next"[..]);
}

async fn recv_dropped_before_it_resolves_loses_nothing(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;
    let sizes = [40_000, 3, MAX_FRAME_BYTES, 0, 1_500, 1];

    for size in sizes {
        client.sender.send(pattern(size)).unwrap();
    }
    let receive = async {
        for size in sizes {
            let frame = loop {
                tokio::select! {
                    biased;
                    frame = server.receiver.recv() => break frame.unwrap().unwrap(),
                    () = yield_now() => {}
                }
            };
            assert_eq!(frame, pattern(size), "{size}");
        }
    };

    let (flushed, ()) = tokio::join!(client.sender.flushed(), receive);
    flushed.unwrap();
}

async fn finished_direction_ends_gracefully_and_the_other_goes_on(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;

    client.sender.finish().await;

    assert!(server.receiver.recv().await.unwrap().is_none());
    send(&mut server, b"still here").await;
    assert_eq!(recv(&mut client).await, b"still here"[..]);
    server.sender.finish().await;
    assert!(client.receiver.recv().await.unwrap().is_none());
}

async fn dropped_client_sender_is_an_abort(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (client, mut server) = pair.streams().await;

    drop(client);

    let error = recv_error(&mut server).await;
    assert!(matches!(error, TransportError::Reset { .. }), "{error}");
}

async fn dropped_server_stream_is_an_abort(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, server) = pair.streams().await;

    drop(server);

    let error = recv_error(&mut client).await;
    match kind {
        TransportKind::Quic => assert!(matches!(error, TransportError::Reset { .. }), "{error}"),
        TransportKind::Grpc => assert_eq!(
            error.to_string(),
            "peer ended the stream with gRPC status Aborted: the server ended the session"
        ),
    }
}

async fn frames_before_a_finish_arrive(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, mut server) = pair.streams().await;

    server.sender.send(pattern(30_000)).unwrap();
    server.sender.send(pattern(2)).unwrap();
    server.sender.finish().await;
    drop(server);

    assert_eq!(recv(&mut client).await, pattern(30_000));
    assert_eq!(recv(&mut client).await, pattern(2));
    assert!(client.receiver.recv().await.unwrap().is_none());
}

async fn send_after_finish_is_refused(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let (mut client, _server) = pair.streams().await;

    client.sender.finish().await;

    let error = client.sender.send(Bytes::new()).unwrap_err();
    assert!(matches!(error, TransportError::SendEnded), "{error}");
}

async fn many_sessions_share_a_connection(kind: TransportKind) {
    let mut pair = Pair::with_options(kind, DialOptions::default(), |options| {
        options.max_connections = 1;
    })
    .await;
    let mut streams: Vec<(FrameStream, FrameStream)> = Vec::new();

    for _ in 0..200 {
        streams.push(pair.streams().await);
    }
    for (index, (client, _)) in streams.iter_mut().enumerate() {
        send(client, index.to_string().as_bytes()).await;
    }

    for (index, (_, server)) in streams.iter_mut().enumerate().rev() {
        assert_eq!(recv(server).await, index.to_string().as_bytes());
    }
}

async fn session_knows_its_peer(kind: TransportKind) {
    let mut pair = Pair::new(kind).await;
    let mut stream = pair.client.open().await.unwrap();

    send(&mut stream, b"!").await;

    let session = pair.sessions.recv().await.unwrap();
    assert_eq!(session.peer.as_str(), AGENT);
    assert_eq!(session.kind, kind);
    assert!(session.remote.ip().is_loopback());
    assert_eq!(pair.client.peer().as_str(), BROKER);
    assert_eq!(pair.client.kind(), kind);
}

fn pattern(size: usize) -> Bytes {
    (0..size)
        .map(|index| u8::try_from((index + size) % 251).unwrap())
        .collect()
}
