//! Who is let in.

use std::net::SocketAddr;
use std::sync::Arc;

use potemkin_transport::{
    DialOptions, Dialer, IdentityPattern, Refusal, Role, TransportError, TransportKind,
};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::on_both;
use crate::support::{AGENT, BROKER, Pki, dialer, hand_over_server, recv_error, send};

on_both!(
    client_of_a_foreign_ca_of_the_same_name_is_refused,
    client_of_a_foreign_ca_is_refused,
    server_of_a_foreign_ca_is_refused,
    client_without_a_certificate_is_refused,
    client_with_two_uris_is_refused,
    client_without_a_uri_is_refused,
    client_with_a_malformed_identity_is_refused,
    server_of_another_role_is_refused,
    server_of_another_name_is_refused,
);

async fn client_of_a_foreign_ca_of_the_same_name_is_refused(kind: TransportKind) {
    let (ours, foreign) = (Pki::new(), Pki::new());
    let (mut server, _sessions) = hand_over_server(&ours, |_| {}).await;
    let tls = foreign.material_trusting(AGENT, &ours.ca_path());
    let client = dialer(tls, DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap();

    let error = recv_error(&mut client.open().await.unwrap()).await;

    let error = error.to_string();
    assert!(error.contains("compare [tls] ca"), "{error}");
    refused(server.refusals.recv().await, kind, "compare [tls] ca");
}

async fn client_of_a_foreign_ca_is_refused(kind: TransportKind) {
    let (ours, foreign) = (Pki::new(), Pki::named("another CA"));
    let (mut server, _sessions) = hand_over_server(&ours, |_| {}).await;
    let tls = foreign.material_trusting(AGENT, &ours.ca_path());
    // The client is done before the server has seen its certificate.
    let client = dialer(tls, DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap();

    let mut stream = client.open().await.unwrap();
    let error = recv_error(&mut stream).await.to_string();

    assert!(error.contains("compare [tls] ca"), "{error}");
    refused(server.refusals.recv().await, kind, "UnknownIssuer");
}

async fn server_of_a_foreign_ca_is_refused(kind: TransportKind) {
    let (ours, foreign) = (Pki::new(), Pki::named("another CA"));
    let (mut server, _sessions) = hand_over_server(&foreign, |_| {}).await;
    let client = dialer(ours.material(AGENT), DialOptions::default());

    let error = client.connect(kind, server.addr).await.unwrap_err();

    handshake_failed(&error, server.addr, "UnknownIssuer");
    refused(server.refusals.recv().await, kind, "UnknownCA");
}

async fn client_without_a_certificate_is_refused(kind: TransportKind) {
    stranger_is_refused(kind, None, "peer sent no certificates").await;
}

async fn client_with_two_uris_is_refused(kind: TransportKind) {
    let uris = [AGENT, "spiffe://potemkin.dev/broker/two"];
    stranger_is_refused(kind, Some(&uris), "has 2 URI subject alternative names").await;
}

async fn client_without_a_uri_is_refused(kind: TransportKind) {
    stranger_is_refused(kind, Some(&[]), "has 0 URI subject alternative names").await;
}

async fn client_with_a_malformed_identity_is_refused(kind: TransportKind) {
    let uris = ["spiffe://potemkin.dev/root/one"];
    stranger_is_refused(kind, Some(&uris), "role: must be broker, host").await;
}

async fn server_of_another_role_is_refused(kind: TransportKind) {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let tls = pki.material(AGENT);
    let expect = IdentityPattern::same_domain(tls.identity(), Role::Host);

    let error = Dialer::new(tls, expect, DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap_err();

    let words =
        "identity is spiffe://potemkin.dev/broker/one; expected spiffe://potemkin.dev/host/*";
    handshake_failed(&error, server.addr, words);
}

async fn server_of_another_name_is_refused(kind: TransportKind) {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let expect = "spiffe://potemkin.dev/broker/two".parse().unwrap();

    let error = Dialer::new(pki.material(AGENT), expect, DialOptions::default())
        .connect(kind, server.addr)
        .await
        .unwrap_err();

    handshake_failed(
        &error,
        server.addr,
        "expected spiffe://potemkin.dev/broker/two",
    );
}

#[tokio::test]
async fn tls12_client_is_refused() {
    let pki = Pki::new();
    let (mut server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let config = pki.raw_client(b"h2", &TLS12, Some(&[AGENT]));

    dial_tcp(config, server.addr).await.unwrap_err();

    let refusal = server.refusals.recv().await;
    refused(refusal, TransportKind::Grpc, "TLS 1.3 is required");
}

#[tokio::test]
async fn client_of_another_protocol_is_refused() {
    let pki = Pki::new();
    let (mut server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let config = pki.raw_client(b"http/1.1", &TLS13, Some(&[AGENT]));

    dial_tcp(config, server.addr).await.unwrap_err();

    let refusal = server.refusals.recv().await;
    refused(refusal, TransportKind::Grpc, "any known protocol");
}

#[tokio::test]
async fn no_tickets_are_given_out() {
    let pki = Pki::new();
    let (server, _sessions) = hand_over_server(&pki, |_| {}).await;
    let store = Arc::new(rustls::client::ClientSessionMemoryCache::new(8));
    let mut config = pki.raw_client(b"h2", &TLS13, Some(&[AGENT]));
    config.resumption = rustls::client::Resumption::store(store);

    for _ in 0..2 {
        let mut stream = dial_tcp(config.clone(), server.addr).await.unwrap();
        // HTTP/2's first frame: anything that TLS sends after its handshake came before it.
        stream.read_u8().await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn unusable_options_are_refused_before_anything_is_sent() {
    let pki = Pki::new();
    let options = DialOptions {
        idle_timeout: DialOptions::default().keep_alive.unwrap(),
        ..DialOptions::default()
    };

    let error = dialer(pki.material(AGENT), options)
        .connect(TransportKind::Quic, "127.0.0.1:9".parse().unwrap())
        .await
        .unwrap_err();

    assert_eq!(
        error.to_string(),
        "option idle_timeout: must be longer than keep_alive"
    );
}

/// A client that is not ours, with a certificate of our CA for `uris`.
async fn stranger_is_refused(kind: TransportKind, uris: Option<&[&str]>, words: &str) {
    let pki = Pki::new();
    let (mut server, _sessions) = hand_over_server(&pki, |_| {}).await;

    match kind {
        TransportKind::Quic => {
            let config = pki.raw_client(b"potemkin/1", &TLS13, uris);
            let connection = dial_quic(config, server.addr).await;
            connection.closed().await;
        }
        TransportKind::Grpc => {
            let config = pki.raw_client(b"h2", &TLS13, uris);
            let mut stream = dial_tcp(config, server.addr).await.unwrap();
            stream.read_u8().await.unwrap_err();
        }
    }

    refused(server.refusals.recv().await, kind, words);
}

pub(crate) async fn dial_tcp(
    config: rustls::ClientConfig,
    addr: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::IpAddress(addr.ip().into()), tcp)
        .await
}

pub(crate) async fn dial_quic(config: rustls::ClientConfig, addr: SocketAddr) -> quinn::Connection {
    let config = QuicClientConfig::try_from(config).unwrap();
    quinn::Endpoint::client("127.0.0.1:0".parse().unwrap())
        .unwrap()
        .connect_with(quinn::ClientConfig::new(Arc::new(config)), addr, "server")
        .unwrap()
        .await
        .unwrap()
}

fn handshake_failed(error: &TransportError, peer: SocketAddr, words: &str) {
    let text = error.to_string();
    assert!(matches!(error, TransportError::Handshake { .. }), "{text}");
    assert!(text.contains(&peer.to_string()), "{text}");
    assert!(text.contains(words), "{text}");
}

fn refused(refusal: Option<Refusal>, kind: TransportKind, words: &str) {
    let refusal = refusal.unwrap();
    let text = refusal.reason.to_string();
    assert_eq!(refusal.kind, kind);
    assert!(text.contains(&refusal.remote.to_string()), "{text}");
    assert!(text.contains(words), "{text}");
}

#[tokio::test]
async fn refused_client_leaves_the_server_to_others() {
    let (ours, foreign) = (Pki::new(), Pki::new());
    let (mut server, mut sessions) = hand_over_server(&ours, |_| {}).await;
    let tls = foreign.material_trusting(AGENT, &ours.ca_path());
    let _ = dialer(tls, DialOptions::default())
        .connect(TransportKind::Grpc, server.addr)
        .await;
    server.refusals.recv().await.unwrap();

    let client = dialer(ours.material(AGENT), DialOptions::default())
        .connect(TransportKind::Grpc, server.addr)
        .await
        .unwrap();
    let mut stream = client.open().await.unwrap();
    send(&mut stream, b"!").await;

    assert_eq!(sessions.recv().await.unwrap().peer.as_str(), AGENT);
    assert_eq!(client.peer().as_str(), BROKER);
}
