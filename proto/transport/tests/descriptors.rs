//! File descriptors, counted in a process of their own.
#![allow(clippy::unwrap_used)]

mod support;

use potemkin_transport::{DialOptions, TransportKind};
use support::{AGENT, Pki, dialer, hand_over_server, send};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::yield_now;

#[tokio::test]
async fn hundreds_of_bad_peers_leave_no_descriptor_open() {
    let (ours, foreign) = (Pki::new(), Pki::new());
    let (mut server, mut sessions) = hand_over_server(&ours, |_| {}).await;
    let bad = dialer(
        foreign.material_trusting(AGENT, &ours.ca_path()),
        DialOptions::default(),
    );
    let before = open_descriptors();

    for round in 0..150 {
        let mut garbage = TcpStream::connect(server.addr).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut garbage, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        let _ = garbage.read(&mut [0; 64]).await;
        drop(garbage);
        let _ = bad.connect(TransportKind::Grpc, server.addr).await;
        server.refusals.recv().await.unwrap();
        server.refusals.recv().await.unwrap();
        if round % 10 == 0 {
            let _ = bad.connect(TransportKind::Quic, server.addr).await;
            server.refusals.recv().await.unwrap();
        }
    }

    // Dropped connections close their sockets in tasks of their own; the test ends when the last has.
    while open_descriptors() > before {
        yield_now().await;
    }
    let client = dialer(ours.material(AGENT), DialOptions::default())
        .connect(TransportKind::Grpc, server.addr)
        .await
        .unwrap();
    let mut stream = client.open().await.unwrap();
    send(&mut stream, b"!").await;
    sessions.recv().await.unwrap();
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
