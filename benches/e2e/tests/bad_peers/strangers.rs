//! Peers that are refused before they are anybody: wrong certificates, no certificates, no TLS at all.

use std::{net::SocketAddr, sync::Arc};

use potemkin_transport::TransportKind::{self, Grpc, Quic};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

use crate::{
    dice::Dice,
    kind::{Kind, Verdict, Who, expect},
    scene::Scene,
    tls::Shown,
    wire::{ALPN_GRPC, End, framed, listen_in_tls, say_in_tls},
};

pub(crate) fn kinds() -> Vec<Kind> {
    [Who::Broker, Who::Host]
        .into_iter()
        .flat_map(kinds_at)
        .collect()
}

fn kinds_at(at: Who) -> Vec<Kind> {
    let name = |what: &str| format!("{}: {what}", at.name());
    let mut kinds = vec![];
    for transport in [Quic, Grpc] {
        kinds.push(
            Kind::new(name(&format!("foreign authority over {transport}")), move |scene, _| async move {
                let told = dial(&scene, at, transport, &scene.certificates.foreign).await;
                expect(&told, "UnknownCA|unknown CA|BadSignature|DecryptError|error 48|error 51|error decrypting")
            })
            .logged(at, &["peer refused", "not signed by our CA"]),
        );
        kinds.push(
            Kind::new(
                name(&format!("no certificate over {transport}")),
                move |scene, _| async move {
                    let told = dial(&scene, at, transport, &Shown::NOTHING).await;
                    expect(&told, "CertificateRequired|certificate required|error 116")
                },
            )
            .logged(at, &["peer refused", "certificate"]),
        );
    }
    kinds.extend([
        Kind::new(
            name("another protocol in TLS"),
            move |scene, _| async move {
                let (to, shown) = (scene.address(at), scene.welcome(at));
                let told = say_in_tls(to, shown, b"http/1.1", b"GET / HTTP/1.1\r\n\r\n").await;
                expect(
                    &told,
                    "NoApplicationProtocol|no application protocol|error 120",
                )
            },
        )
        .logged(at, &["peer refused"]),
        Kind::new(name("garbage in TLS"), move |scene, mut dice| async move {
            let garbage = http2_garbage(&mut dice);
            let _ = say_in_tls(scene.address(at), scene.welcome(at), ALPN_GRPC, &garbage).await;
            Ok(())
        }),
        Kind::new(
            name("garbage over TCP"),
            move |scene, mut dice| async move {
                let length = dice.between(1, 4096);
                tcp(scene.address(at), &dice.bytes(length)).await
            },
        )
        .logged(at, &["peer refused"]),
        Kind::new(name("plain HTTP"), move |scene, _| async move {
            tcp(scene.address(at), b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").await
        })
        .logged(at, &["peer refused"]),
        Kind::new(
            name("half a TLS greeting"),
            move |scene, mut dice| async move {
                let hello = client_hello(scene.welcome(at));
                let length = dice.between(1, hello.len() - 1);
                tcp(scene.address(at), &hello[..length]).await
            },
        )
        .logged(at, &["peer refused", "hung up"]),
        Kind::new(name("connects and closes"), move |scene, _| async move {
            let stream = TcpStream::connect(scene.address(at)).await;
            stream.map(drop).map_err(|error| error.to_string())
        })
        .logged(at, &["peer refused", "hung up"]),
        Kind::new(
            name("garbage over UDP"),
            move |scene, mut dice| async move { udp(scene.address(at), &mut dice).await },
        ),
        wrong_role(at),
    ]);
    kinds
}

/// What a stranger is told. Over TCP it only listens: what it says to a server that has hung up already would make the
/// operating system throw away what the server said.
async fn dial(scene: &Scene, at: Who, transport: TransportKind, shown: &Shown) -> String {
    let to = scene.address(at);
    match transport {
        Grpc => listen_in_tls(to, shown, ALPN_GRPC).await,
        Quic => {
            let bytes = framed(Quic, b"hello");
            scene
                .wire
                .session(Quic, to, shown, bytes, End::AtOnce)
                .await
                .end
        }
    }
}

/// Half of it begins as HTTP/2 does.
fn http2_garbage(dice: &mut Dice) -> Vec<u8> {
    let preface: &[u8] = if dice.number.is_multiple_of(2) {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    } else {
        b""
    };
    let length = dice.between(9, 20_000);
    [preface, &dice.bytes(length)].concat()
}

/// Sends bytes and waits for the server to hang up.
async fn tcp(to: SocketAddr, bytes: &[u8]) -> Verdict {
    let mut stream = TcpStream::connect(to)
        .await
        .map_err(|error| error.to_string())?;
    // The server may be quicker to hang up than this is to write and read.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    Ok(())
}

fn client_hello(shown: &Shown) -> Vec<u8> {
    let config = Arc::new(shown.config(ALPN_GRPC));
    let name = ServerName::try_from("server").unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Noise, and noise that begins as a QUIC packet does (RFC 9000 section 17.2).
async fn udp(to: SocketAddr, dice: &mut Dice) -> Verdict {
    let socket = UdpSocket::bind("127.0.0.1:0")
        .await
        .map_err(|error| error.to_string())?;
    for start in [
        &[][..],
        &[0xc3, 0, 0, 0, 1, 8],
        &[0xc3, 0xfa, 0xce, 0xb0, 0x0c, 8],
        &[0x40],
    ] {
        let length = dice.between(1, 1_300);
        let padded = dice.bytes(length.max(1_200 * (start.len() / 6)));
        let _ = socket.send_to(&[start, &padded].concat(), to).await;
    }
    Ok(())
}

/// Good certificates of roles that are not served.
fn wrong_role(at: Who) -> Kind {
    let words: &'static [&'static str] = match at {
        Who::Host => &["spiffe://potemkin.dev/agent/bad may not open sessions"],
        Who::Broker | Who::Front => &["spiffe://potemkin.dev/host/bad has another"],
    };
    Kind::new(
        format!("{}: session of the wrong role", at.name()),
        move |scene, dice| async move {
            let shown = &scene.certificates;
            let strangers = match at {
                Who::Host => [&shown.agent, &shown.host, &shown.operator],
                Who::Broker | Who::Front => [&shown.host, &shown.broker, &shown.operator],
            };
            let transport = *dice.in_turn(&[Quic, Quic, Quic, Grpc, Grpc, Grpc]);
            let bytes = framed(transport, &crate::first_frames::sound_open());
            let to = scene.address(at);
            let stranger = dice.in_turn(&strangers);
            let told = scene
                .wire
                .session(transport, to, stranger, bytes, End::AfterServer)
                .await;
            expect(&told.text(), "CLOSE_CODE_PERMISSION_DENIED")
        },
    )
    .logged(at, words)
}
