//! Ends that break the protocol, and dials that must not be.

use bytes::Bytes;
use potemkin_proto::v1::{self, CloseCode};
use potemkin_transport::TransportKind;
use prost::Message;

use crate::kit::agent::{KINDS, attach, attached, connect, connected, dial, path, stream};
use crate::kit::frames::Path;
use crate::kit::host::Host;
use crate::kit::{Broker, in_time};

#[tokio::test]
async fn dials_that_must_not_be_are_refused_each_with_its_code() {
    let (broker, _host, path) = attached("quic").await;
    let unknown = Path {
        session: path.session ^ 1,
        ..path
    };
    let old = Path {
        epoch: path.epoch - 1,
        ..path
    };
    let zero = Path {
        attach_number: 0,
        ..path
    };
    let mut version = path.open();
    version.open.as_mut().unwrap().version_min = 3;
    version.open.as_mut().unwrap().version_max = 3;
    let two_bodies = v1::Frame {
        batch: Some(v1::Batch::default()),
        ..path.open()
    };
    let headless = v1::Frame {
        header: None,
        ..path.open()
    };
    let cases = [
        ("agent", unknown.open(), CloseCode::Unreachable, "session"),
        ("agent", old.open(), CloseCode::Superseded, "epoch"),
        ("agent", zero.open(), CloseCode::Superseded, "attach_number"),
        (
            "agent-two",
            path.open(),
            CloseCode::PermissionDenied,
            "not yours",
        ),
        ("host", path.open(), CloseCode::PermissionDenied, "role"),
        ("agent", version, CloseCode::Version, "version"),
        ("agent", path.batch(1), CloseCode::ProtocolViolation, "open"),
        ("agent", two_bodies, CloseCode::ProtocolViolation, "body"),
        ("agent", headless, CloseCode::ProtocolViolation, "header"),
    ];
    for kind in KINDS {
        for (name, first, code, word) in &cases {
            let mut agent = dial(&broker, name, kind, first).await;
            let close = agent.closed().await;
            assert_eq!(close.code(), *code, "{}", close.message);
            assert!(close.message.contains(word), "{}", close.message);
        }
    }
}

#[tokio::test]
async fn a_first_frame_that_does_not_come_or_is_no_protobuf_is_refused() {
    let broker = Broker::start("[sessions]\nopen_timeout = \"50ms\"\n");
    for kind in KINDS {
        // A gRPC stream exists for the server from its headers on, a QUIC stream from its first byte on.
        let mut agent = stream(&broker, "agent", kind).await;
        agent
            .stream
            .sender
            .send(Bytes::from_static(&[0x0a, 0x00, 0xff]))
            .unwrap();
        in_time(agent.stream.sender.flushed()).await.unwrap();
        let close = agent.closed().await;
        assert_eq!(close.code(), CloseCode::ProtocolViolation);
    }
    let mut silent = stream(&broker, "agent", TransportKind::Grpc).await;
    let close = silent.closed().await;
    assert_eq!(close.code(), CloseCode::ProtocolViolation);
    assert!(close.message.contains("50 ms"), "{}", close.message);
}

/// Sends one bad frame from one end, and gives the close frames of offender and other end.
async fn violate(by_agent: bool, frame: Bytes) -> (v1::SessionClose, v1::SessionClose) {
    let (broker, _host, _path, mut agent, mut far) = connected().await;
    let sender = if by_agent {
        &mut agent.stream.sender
    } else {
        &mut far.stream.sender
    };
    sender.send(frame).unwrap();
    in_time(sender.flushed()).await.unwrap();
    let at_agent = agent.closed().await;
    let at_host = far.recv().await.unwrap().close.unwrap();
    drop(broker);
    if by_agent {
        (at_agent, at_host)
    } else {
        (at_host, at_agent)
    }
}

/// Breaks a header.
type Change = fn(&mut v1::FrameHeader);

#[tokio::test]
async fn an_end_that_breaks_the_protocol_is_told_the_field_and_the_other_that_it_did() {
    let broken: [(&str, Change); 3] = [
        ("session", |h| h.session_lo ^= 1),
        ("epoch", |h| h.epoch += 1),
        ("attach_number", |h| h.attach_number = 9),
    ];
    for by_agent in [true, false] {
        for (field, change) in broken {
            let (broker, _host, path, mut agent, mut far) = connected().await;
            let mut frame = path.batch(1);
            change(frame.header.as_mut().unwrap());
            if by_agent {
                agent.send(&frame).await;
            } else {
                far.send(&frame).await;
            }
            let at_agent = agent.closed().await;
            let at_host = far.recv().await.unwrap().close.unwrap();
            let (offender, other) = if by_agent {
                (at_agent, at_host)
            } else {
                (at_host, at_agent)
            };
            assert_eq!(offender.code(), CloseCode::PathBroken);
            assert!(offender.message.contains(field), "{}", offender.message);
            assert_eq!(other.code(), CloseCode::Unreachable);
            assert!(other.message.contains("violated"), "{}", other.message);
            drop(broker);
        }
    }
}

#[tokio::test]
async fn frames_whose_header_cannot_be_read_end_the_path() {
    let no_header = v1::Frame {
        batch: Some(v1::Batch::default()),
        ..v1::Frame::default()
    };
    let cases = [
        Bytes::new(),
        Bytes::from_static(&[0xff; 40]),
        Bytes::from_static(&[0x0a, 0x7f, 0x00]),
        Bytes::from_static(&[0x0a, 0x81, 0x02]),
        Bytes::from(no_header.encode_to_vec()),
    ];
    for frame in cases {
        let (offender, other) = violate(true, frame.clone()).await;
        assert_eq!(offender.code(), CloseCode::PathBroken, "{frame:?}");
        assert_eq!(other.code(), CloseCode::Unreachable);
    }
}

#[tokio::test]
async fn a_violation_ends_one_session_only() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0", "edu-1"]).await;
    let first = path(&attach(&broker, &mut host, "edu-0").await);
    let second = path(&attach(&broker, &mut host, "edu-1").await);
    let (mut bad, _bad_far) = connect(&broker, &mut host, first, TransportKind::Quic).await;
    let (mut good, mut good_far) = connect(&broker, &mut host, second, TransportKind::Quic).await;

    bad.send(&second.batch(1)).await;
    bad.closed().await;

    good.send(&second.batch(7)).await;
    assert_eq!(good_far.recv().await.unwrap(), second.batch(7));
}

#[tokio::test]
async fn a_host_that_answers_with_something_else_than_accept_is_refused() {
    let (broker, mut host, path) = attached("quic").await;
    let mut agent = dial(&broker, "agent", TransportKind::Quic, &path.open()).await;
    let mut far = host.session().await;
    far.recv().await.unwrap();

    far.send(&path.batch(1)).await;

    let close = far.recv().await.unwrap().close.unwrap();
    assert_eq!(close.code(), CloseCode::ProtocolViolation);
    assert_eq!(agent.closed().await.code(), CloseCode::Unreachable);
}
