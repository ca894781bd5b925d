//! Certificates that are replaced while a server and a client run.

use potemkin_transport::{DialOptions, TransportKind};

use crate::on_both;
use crate::support::{AGENT, BROKER, Pki, dialer, hand_over_server, recv, send};

on_both!(new_connections_use_replaced_certificates_and_old_ones_go_on);

async fn new_connections_use_replaced_certificates_and_old_ones_go_on(kind: TransportKind) {
    let (ours, newer) = (Pki::new(), Pki::named("newer CA"));
    let mut server_tls = None;
    let keep = |options: &mut potemkin_transport::ListenOptions| {
        server_tls = Some(options.tls.clone());
    };
    let (server, mut sessions) = hand_over_server(&ours, keep).await;
    let client_tls = ours.material(AGENT);
    let connector = dialer(client_tls.clone(), DialOptions::default());
    let old = connector.connect(kind, server.addr).await.unwrap();
    let mut near = old.open().await.unwrap();
    send(&mut near, b"before").await;
    let mut far = sessions.recv().await.unwrap();
    assert_eq!(recv(&mut far.stream).await, b"before"[..]);

    server_tls
        .unwrap()
        .replace(&newer.material(BROKER))
        .unwrap();
    let distrusted = connector.connect(kind, server.addr).await;
    client_tls.replace(&newer.material(AGENT)).unwrap();
    let new = connector.connect(kind, server.addr).await.unwrap();

    distrusted.map(drop).unwrap_err();
    let mut second = new.open().await.unwrap();
    send(&mut second, b"after").await;
    let mut other = sessions.recv().await.unwrap();
    assert_eq!(recv(&mut other.stream).await, b"after"[..]);
    send(&mut near, b"still here").await;
    assert_eq!(recv(&mut far.stream).await, b"still here"[..]);
}
