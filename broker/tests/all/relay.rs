//! The relay between hand-made ends, on each transport of each leg.

use std::time::Duration;

use bytes::Bytes;
use potemkin_proto::check::{self, Check};
use potemkin_proto::v1::{self, CloseCode};
use potemkin_transport::{FrameSender, MAX_FRAME_BYTES, TransportKind};

use crate::kit::agent::{KINDS, attach, attached, connect, connected, dial, path, stream};
use crate::kit::frames::{Path, decode, encode};
use crate::kit::host::{Host, hello, serve};
use crate::kit::{Broker, in_time};

#[tokio::test]
async fn frames_pass_as_they_are_on_every_pair_of_transports() {
    for host_kind in KINDS {
        for agent_kind in KINDS {
            let (broker, mut host, path) = attached(&host_kind.to_string()).await;
            let (mut agent, mut far) = connect(&broker, &mut host, path, agent_kind).await;

            for size in [0, 1, 1000, 65_000] {
                let frame = path.batch(size);
                agent.send(&frame).await;
                assert_eq!(far.recv().await.unwrap(), frame, "{agent_kind} {host_kind}");
                far.send(&frame).await;
                assert_eq!(
                    agent.recv().await.unwrap(),
                    frame,
                    "{agent_kind} {host_kind}"
                );
            }

            agent.send(&path.close()).await;
            agent.stream.sender.finish().await;
            assert_eq!(far.recv().await.unwrap(), path.close());
            assert_eq!(far.recv().await, None);
        }
    }
}

#[tokio::test]
async fn the_host_gets_the_brokers_grant_in_place_of_the_agents() {
    let (broker, mut host, path) = attached("quic").await;
    let _agent = dial(&broker, "agent", TransportKind::Quic, &path.open()).await;

    let mut far = host.session().await;
    let open = far.recv().await.unwrap().open.unwrap();

    assert_eq!(far.peer.as_str(), "spiffe://potemkin.dev/broker/dev");
    let grant = open.grant.unwrap();
    assert_eq!(grant.device_id, "edu-0");
    assert_eq!(grant.agent, "spiffe://potemkin.dev/agent/dev");
    assert_eq!((open.version_min, open.next_reverse), (1, 1));
}

#[tokio::test]
async fn unknown_fields_of_a_frame_pass_too() {
    let (_broker, _host, path, mut agent, mut far) = connected().await;
    let mut bytes = encode(&path.batch(3)).to_vec();
    // Field 1000, a varint: a later version's.
    bytes.extend_from_slice(&[0xc0, 0x3e, 0x01]);
    let bytes = Bytes::from(bytes);

    agent.stream.sender.send(bytes.clone()).unwrap();
    in_time(agent.stream.sender.flushed()).await.unwrap();

    let came = in_time(far.stream.receiver.recv()).await.unwrap();
    assert_eq!(came.unwrap(), bytes);
}

#[tokio::test]
async fn a_frame_of_the_largest_size_passes() {
    let (_broker, _host, path, mut agent, mut far) = connected().await;
    let overhead = encode(&path.batch(65_000)).len() - 65_000;
    let frame = path.batch(MAX_FRAME_BYTES - overhead);
    assert_eq!(encode(&frame).len(), MAX_FRAME_BYTES);
    agent.send(&frame).await;
    assert_eq!(far.recv().await.unwrap(), frame);
}

/// Sends until the flush waits: the other end does not read, and every buffer on the way is full.
async fn fill(sender: &mut FrameSender, frame: &Bytes) {
    for _ in 0..1000 {
        sender.send(frame.clone()).unwrap();
        let flush = sender.flushed();
        if tokio::time::timeout(Duration::from_millis(300), flush)
            .await
            .is_err()
        {
            return;
        }
    }
    panic!("the relay takes without end");
}

#[tokio::test]
async fn a_direction_that_stands_still_does_not_stop_the_other() {
    for kind in KINDS {
        for forward_stands in [true, false] {
            let (broker, mut host, path) = attached(&kind.to_string()).await;
            let (mut agent, mut far) = connect(&broker, &mut host, path, kind).await;
            let (stuck, free) = if forward_stands {
                (&mut agent.stream, &mut far.stream)
            } else {
                (&mut far.stream, &mut agent.stream)
            };
            fill(&mut stuck.sender, &encode(&path.batch(60_000))).await;

            for size in [1, 1000, 60_000] {
                let frame = encode(&path.batch(size));
                free.sender.send(frame.clone()).unwrap();
                in_time(free.sender.flushed()).await.unwrap();
                let came = in_time(stuck.receiver.recv()).await.unwrap();
                assert_eq!(came.unwrap(), frame);
            }
        }
    }
}

#[tokio::test]
async fn a_host_that_refuses_is_heard_by_the_agent() {
    let (broker, mut host, path) = attached("quic").await;
    let mut agent = dial(&broker, "agent", TransportKind::Quic, &path.open()).await;
    let mut far = host.session().await;
    far.recv().await.unwrap();

    let refusal = v1::SessionClose {
        code: CloseCode::UnknownSession.into(),
        message: "never heard of it".into(),
    };
    let frame = v1::Frame {
        close: Some(refusal.clone()),
        ..path.frame()
    };
    far.send(&frame).await;

    assert_eq!(agent.closed().await, refusal);
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_named_to_the_agent() {
    for transport in KINDS {
        let broker = Broker::start(&format!(
            "[hosts]\ntransport = \"{transport}\"\n[connections]\nconnect_timeout = \"300ms\"\n"
        ));
        let mut host = Host::unreachable(&broker, &["edu-0"]).await;
        let path = path(&attach(&broker, &mut host, "edu-0").await);
        let mut agent = dial(&broker, "agent", TransportKind::Quic, &path.open()).await;
        let close = agent.closed().await;
        assert_eq!(close.code(), CloseCode::Unreachable);
        assert!(
            close.message.contains("spiffe://potemkin.dev/host/dev"),
            "{}",
            close.message
        );
    }
}

#[tokio::test]
async fn a_host_that_does_not_accept_in_time_is_given_up() {
    let broker = Broker::start("[sessions]\naccept_timeout = \"50ms\"\n");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let path = path(&attach(&broker, &mut host, "edu-0").await);
    let mut agent = dial(&broker, "agent", TransportKind::Quic, &path.open()).await;
    let _far = host.session().await;
    assert_eq!(agent.closed().await.code(), CloseCode::Unreachable);
}

#[tokio::test]
async fn the_loss_of_one_leg_is_told_on_the_other() {
    let (_broker, _host, _path, agent, mut far) = connected().await;
    agent.connection.close();
    let close = far.recv().await.unwrap().close.unwrap();
    assert_eq!(close.code(), CloseCode::Unreachable);
    assert!(close.message.contains("agent"), "{}", close.message);

    let (_broker, _host, _path, mut agent, far) = connected().await;
    // Dropped, a stream is aborted.
    drop(far);
    let close = agent.closed().await;
    assert_eq!(close.code(), CloseCode::Unreachable);
    assert!(close.message.contains("host"), "{}", close.message);
}

#[tokio::test]
async fn an_end_that_goes_without_a_close_frame_is_told_on_the_other() {
    let (_broker, _host, _path, mut agent, mut far) = connected().await;
    agent.stream.sender.finish().await;
    let close = far.recv().await.unwrap().close.unwrap();
    assert_eq!(close.code(), CloseCode::Unreachable);
    assert!(
        close.message.contains("without a close"),
        "{}",
        close.message
    );
}

#[tokio::test]
async fn a_newer_dial_takes_over_from_the_older() {
    let (broker, mut host, path, mut older, _older_far) = connected().await;
    let newer_path = Path {
        attach_number: 2,
        ..path
    };

    let (mut newer, mut far) = connect(&broker, &mut host, newer_path, TransportKind::Grpc).await;

    assert_eq!(older.closed().await.code(), CloseCode::Superseded);
    newer.send(&newer_path.batch(5)).await;
    assert_eq!(far.recv().await.unwrap(), newer_path.batch(5));
}

#[tokio::test]
async fn stopping_the_broker_tells_both_ends() {
    let (mut broker, _host, _path, mut agent, mut far) = connected().await;
    let stopping = tokio::task::spawn_blocking(move || broker.stop());
    let close = agent.closed().await;
    assert_eq!(close.code(), CloseCode::Unreachable);
    assert_eq!(close.message, "the broker is stopping");
    let close = far.recv().await.unwrap().close.unwrap();
    assert_eq!(close.message, "the broker is stopping");
    in_time(stopping).await.unwrap();
}

#[tokio::test]
async fn an_open_with_a_check_comes_to_the_host_with_one_of_the_brokers() {
    let (broker, mut host, path) = attached("quic").await;
    let mut agent = stream(&broker, "agent", TransportKind::Quic).await;
    let mut open = encode(&path.open_up_to(2)).to_vec();
    check::append(&mut open);

    agent.send_bytes(open.into()).await;

    let mut far = host.session().await;
    let came = in_time(far.stream.receiver.recv()).await.unwrap().unwrap();
    assert_eq!(check::verify(&came), Check::Good);
    let open = decode(came).open.unwrap();
    assert_eq!(open.version_max, 2);
    assert_eq!(open.grant.unwrap().device_id, "edu-0");
}

#[tokio::test]
async fn an_open_that_was_garbled_on_the_way_ends_the_path_only() {
    let (broker, _host, path) = attached("quic").await;
    let mut agent = stream(&broker, "agent", TransportKind::Quic).await;
    let mut open = encode(&path.open_up_to(2)).to_vec();
    check::append(&mut open);
    *open.last_mut().unwrap() ^= 0x10;

    agent.send_bytes(open.into()).await;

    assert_eq!(agent.closed().await.code(), CloseCode::PathBroken);
}

#[tokio::test]
async fn a_restarted_host_is_reached_on_a_connection_of_its_own() {
    let (broker, mut host, path) = attached("quic").await;
    let (_agent, far) = connect(&broker, &mut host, path, TransportKind::Quic).await;
    // Another process of the same host: another port here, and the old one still answers.
    let (address, sessions) = serve(&broker, "host").await;
    let mut reborn = hello(address, &["edu-0"]);
    reborn.incarnation = vec![8; 16].into();
    reborn.devices[0].highest_epoch = path.epoch;
    let mut host_two = Host::register(&broker, "host", reborn, sessions)
        .await
        .unwrap();
    host_two.obey().await;

    let path_two = crate::kit::agent::path(&attach(&broker, &mut host_two, "edu-0").await);
    connect(&broker, &mut host_two, path_two, TransportKind::Quic).await;

    drop((host, far));
}
