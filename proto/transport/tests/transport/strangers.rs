//! Peers that do not keep to the protocol.

use bytes::Bytes;
use http::{HeaderMap, Request};
use potemkin_transport::{FrameStream, TransportError, TransportKind};
use rustls::version::TLS13;
use tokio::sync::mpsc;

use crate::handshakes::{dial_quic, dial_tcp};
use crate::on_both;
use crate::support::{AGENT, Pki, Server, Session, hand_over_server, recv, recv_error};

on_both!(
    oversized_frame_is_named_before_it_came,
    truncated_payload_is_named,
    truncated_prefix_is_named,
    frame_in_many_pieces_is_put_together,
);

async fn oversized_frame_is_named_before_it_came(kind: TransportKind) {
    let mut stranger = Stranger::dial(kind).await;

    let mut stream = stranger.send_prefix_and(70_000, b"begin").await;

    let error = recv_error(&mut stream).await;
    assert_eq!(error.to_string(), "frame length 70000 exceeds 65536");
}

async fn truncated_payload_is_named(kind: TransportKind) {
    let mut stranger = Stranger::dial(kind).await;

    let mut stream = stranger.send_prefix_and(9, b"abc").await;
    stranger.end();

    assert_eq!(
        recv_error(&mut stream).await.to_string(),
        "stream ended within a frame: 3 of 9 bytes of its payload came"
    );
}

async fn truncated_prefix_is_named(kind: TransportKind) {
    let mut stranger = Stranger::dial(kind).await;

    let mut stream = stranger.begin(b"\0\0").await;
    stranger.end();

    let error = recv_error(&mut stream).await;
    assert!(
        matches!(
            error,
            TransportError::Truncated {
                field: "length prefix",
                received: 2,
                ..
            }
        ),
        "{error}"
    );
}

async fn frame_in_many_pieces_is_put_together(kind: TransportKind) {
    let mut stranger = Stranger::dial(kind).await;

    let mut stream = stranger.send_prefix_and(300, b"").await;
    for _ in 0..300 {
        stranger.send(b"x").await;
    }

    assert_eq!(recv(&mut stream).await, vec![b'x'; 300]);
}

#[tokio::test]
async fn compressed_message_is_named() {
    let mut stranger = Stranger::dial(TransportKind::Grpc).await;

    let mut stream = stranger.begin(b"\x01\0\0\0\x01x").await;

    assert_eq!(
        recv_error(&mut stream).await.to_string(),
        "gRPC compressed flag is 1: must be 0, frames are never compressed"
    );
}

#[tokio::test]
async fn cancelled_call_is_an_abort() {
    let mut stranger = Stranger::dial(TransportKind::Grpc).await;
    let mut stream = stranger.send_prefix_and(1, b"x").await;
    recv(&mut stream).await;

    stranger.cancel();

    let error = recv_error(&mut stream).await;
    assert!(
        matches!(error, TransportError::Reset { code: 8 }),
        "{error}"
    );
}

#[tokio::test]
async fn unknown_method_is_unimplemented() {
    let trailers = call("/potemkin.v1.Data/Other", "identity").await;

    assert_eq!(trailers["grpc-status"], "12");
    assert!(
        trailers["grpc-message"]
            .to_str()
            .unwrap()
            .contains("Session")
    );
}

#[tokio::test]
async fn compressed_call_is_unimplemented() {
    let trailers = call("/potemkin.v1.Data/Session", "gzip").await;

    assert_eq!(trailers["grpc-status"], "12");
}

#[tokio::test]
async fn unidirectional_quic_stream_is_not_allowed() {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let connection = quic(&pki, &server).await;

    let mut opening = std::pin::pin!(connection.open_uni());
    let opened = std::future::poll_fn(|context| {
        std::task::Poll::Ready(opening.as_mut().poll(context).is_ready())
    });

    assert!(!opened.await);
    assert_eq!(connection.max_datagram_size(), None);
}

/// A client of raw streams, connected and certified.
struct Stranger {
    link: Link,
    sessions: mpsc::UnboundedReceiver<Session>,
    _server: Server,
    _pki: Pki,
}

enum Link {
    Quic {
        stream: Option<quinn::SendStream>,
        _connection: quinn::Connection,
    },
    Grpc {
        stream: h2::SendStream<Bytes>,
        _response: h2::client::ResponseFuture,
    },
}

impl Stranger {
    async fn dial(kind: TransportKind) -> Self {
        let pki = Pki::new();
        let (server, sessions) = hand_over_server(&pki, |_| {}).await;
        let link = match kind {
            TransportKind::Quic => {
                let connection = quic(&pki, &server).await;
                let (stream, _) = connection.open_bi().await.unwrap();
                Link::Quic {
                    stream: Some(stream),
                    _connection: connection,
                }
            }
            TransportKind::Grpc => {
                let request = session_request("/potemkin.v1.Data/Session", "identity");
                let (response, stream) = http2(&pki, &server)
                    .await
                    .send_request(request, false)
                    .unwrap();
                Link::Grpc {
                    stream,
                    _response: response,
                }
            }
        };
        Self {
            link,
            sessions,
            _server: server,
            _pki: pki,
        }
    }

    /// Sends a frame's prefix, and what is to follow it.
    async fn send_prefix_and(&mut self, length: u32, payload: &[u8]) -> FrameStream {
        let mut bytes = match self.link {
            Link::Quic { .. } => vec![],
            Link::Grpc { .. } => vec![0],
        };
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(payload);
        self.begin(&bytes).await
    }

    /// Sends first bytes. The stream as the server got it.
    async fn begin(&mut self, bytes: &[u8]) -> FrameStream {
        self.send(bytes).await;
        self.sessions.recv().await.unwrap().stream
    }

    async fn send(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Quic { stream, .. } => {
                stream.as_mut().unwrap().write_all(bytes).await.unwrap();
            }
            Link::Grpc { stream, .. } => stream
                .send_data(Bytes::copy_from_slice(bytes), false)
                .unwrap(),
        }
    }

    fn end(&mut self) {
        match &mut self.link {
            Link::Quic { stream, .. } => stream.as_mut().unwrap().finish().unwrap(),
            Link::Grpc { stream, .. } => stream.send_data(Bytes::new(), true).unwrap(),
        }
    }

    fn cancel(&mut self) {
        match &mut self.link {
            Link::Quic { stream, .. } => drop(stream.take()),
            Link::Grpc { stream, .. } => stream.send_reset(h2::Reason::CANCEL),
        }
    }
}

async fn quic(pki: &Pki, server: &Server) -> quinn::Connection {
    dial_quic(
        pki.raw_client(b"potemkin/1", &TLS13, Some(&[AGENT])),
        server.addr,
    )
    .await
}

async fn http2(pki: &Pki, server: &Server) -> h2::client::SendRequest<Bytes> {
    let config = pki.raw_client(b"h2", &TLS13, Some(&[AGENT]));
    let stream = dial_tcp(config, server.addr).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests.ready().await.unwrap()
}

/// A call that the server refuses. Its status.
async fn call(path: &str, encoding: &str) -> HeaderMap {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let mut requests = http2(&pki, &server).await;

    let (response, _stream) = requests
        .send_request(session_request(path, encoding), false)
        .unwrap();

    response.await.unwrap().headers().clone()
}

fn session_request(path: &str, encoding: &str) -> Request<()> {
    Request::post(format!("https://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(())
        .unwrap()
}
