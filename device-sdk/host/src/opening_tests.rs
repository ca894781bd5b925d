#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use potemkin_devices::Scratch;
use potemkin_proto::v1::{FrameHeader, SessionOpen};
use potemkin_session::frame::{Body, Frame, encode};

use super::*;
use potemkin_session::gate::FenceOrder;

const SESSION: SessionId = SessionId::from_bytes([0xaa; 16]);
const INCARNATION: Incarnation = Incarnation::from_bytes([7; 16]);
const BROKER: &str = "spiffe://potemkin.dev/broker/dev";

/// One device, "scratch-0", fenced for `SESSION` at epoch 5.
fn pool() -> Pool {
    let served = Served::new(
        "scratch-0".into(),
        "scratch".into(),
        BTreeMap::new(),
        Box::new(Scratch::new(64).unwrap()),
        Epoch(4),
    );
    let order = FenceOrder {
        epoch: Epoch(5),
        session: Some(SESSION),
    };
    served.shut(order).unwrap();
    served.open(order).unwrap();
    Pool::from_iter([served])
}

fn header() -> FrameHeader {
    let (session_hi, session_lo) = SESSION.halves();
    FrameHeader {
        session_hi,
        session_lo,
        epoch: 5,
        attach_number: 1,
        first_sequence: 1,
        ..FrameHeader::default()
    }
}

fn open() -> SessionOpen {
    SessionOpen {
        version_min: 1,
        version_max: 1,
        next_reverse: 1,
        oldest_unacknowledged: 1,
        grant: Some(Grant {
            device_id: "scratch-0".into(),
            agent: "spiffe://potemkin.dev/agent/dev".into(),
        }),
        host_incarnation: INCARNATION.to_bytes(),
        ..SessionOpen::default()
    }
}

fn frame(header: FrameHeader, open: SessionOpen) -> Bytes {
    encode(header, Body::Open(open))
}

fn decide_on(pool: &Pool, peer: &str, frame: Bytes) -> Result<Opened, Refusal> {
    let peer: Identity = peer.parse().unwrap();
    let accept = IdentityPattern::any_of_role("potemkin.dev", Role::Broker).unwrap();
    let door = Door {
        pool,
        accept: &accept,
        incarnation: INCARNATION,
        beat: 1,
    };
    decide(door, &peer, frame)
}

fn begun(decision: Result<Opened, Refusal>) -> Begun {
    match decision.unwrap() {
        Opened::First(begun) => *begun,
        again => panic!("{again:?}"),
    }
}

fn refusal(peer: &str, frame: Bytes) -> Refusal {
    decide_on(&pool(), peer, frame).unwrap_err()
}

#[test]
fn fenced_session_from_a_broker_is_let_in() {
    let pool = pool();

    let opened = begun(decide_on(&pool, BROKER, frame(header(), open())));

    assert_eq!(opened.served.id, "scratch-0");
    assert_eq!(opened.agent.as_str(), "spiffe://potemkin.dev/agent/dev");
    assert_eq!(opened.core.path().session, SESSION);
}

#[test]
fn peers_that_are_no_broker_of_ours_are_refused() {
    for peer in [
        "spiffe://potemkin.dev/agent/dev",
        "spiffe://potemkin.dev/host/dev",
        "spiffe://elsewhere.example/broker/dev",
    ] {
        let refusal = refusal(peer, frame(header(), open()));
        assert_eq!(refusal.code, CloseCode::PermissionDenied);
        assert!(refusal.message.starts_with(peer), "{}", refusal.message);
    }
}

#[test]
fn unsound_openings_are_refused_by_code_and_field() {
    let with_open = |change: &dyn Fn(&mut SessionOpen)| {
        let mut open = open();
        change(&mut open);
        frame(header(), open)
    };
    let with_header = |change: &dyn Fn(&mut FrameHeader)| {
        let mut header = header();
        change(&mut header);
        frame(header, open())
    };
    let with_grant = |device: &str, agent: &str| {
        with_open(&|open| {
            open.grant = Some(Grant {
                device_id: device.into(),
                agent: agent.into(),
            });
        })
    };
    let agent = "spiffe://potemkin.dev/agent/dev";
    let cases = [
        (
            Bytes::from_static(b"\xff\xff\xff"),
            CloseCode::ProtocolViolation,
            "frame",
        ),
        (
            encode(header(), Body::Empty),
            CloseCode::ProtocolViolation,
            "before open",
        ),
        (
            with_open(&|open| (open.version_min, open.version_max) = (3, 9)),
            CloseCode::Version,
            "open.version",
        ),
        (
            with_open(&|open| open.grant = None),
            CloseCode::PermissionDenied,
            "open.grant",
        ),
        (
            with_grant("scratch-0", "dev"),
            CloseCode::PermissionDenied,
            "open.grant.agent",
        ),
        (
            with_grant("scratch-0", BROKER),
            CloseCode::PermissionDenied,
            "open.grant.agent",
        ),
        (
            with_grant("scratch-1", agent),
            CloseCode::UnknownSession,
            "open.grant.device_id",
        ),
        (
            with_open(&|open| open.host_incarnation = vec![8; 16].into()),
            CloseCode::UnknownSession,
            "open.host_incarnation",
        ),
        (
            with_open(&|open| open.host_incarnation = Bytes::new()),
            CloseCode::UnknownSession,
            "open.host_incarnation",
        ),
        (
            with_open(&|open| open.oldest_unacknowledged = 3),
            CloseCode::ProtocolViolation,
            "oldest_unacknowledged",
        ),
        (
            with_header(&|header| header.epoch = 4),
            CloseCode::Superseded,
            "header.epoch",
        ),
        (
            with_header(&|header| header.epoch = 6),
            CloseCode::UnknownSession,
            "header.epoch",
        ),
        (
            with_header(&|header| header.session_lo = 1),
            CloseCode::UnknownSession,
            "header.session_hi, session_lo",
        ),
    ];
    for (frame, code, field) in cases {
        let refusal = refusal(BROKER, frame);
        assert_eq!(refusal.code, code, "{}", refusal.message);
        assert!(refusal.message.contains(field), "{}", refusal.message);
    }
}

#[test]
fn unsound_opening_of_a_live_session_of_version_one_does_not_end_it() {
    let pool = pool();
    let mut live = begun(decide_on(&pool, BROKER, frame(header(), open())));
    let again = FrameHeader {
        attach_number: 2,
        ..header()
    };
    let resuming = SessionOpen {
        oldest_unacknowledged: 3,
        ..open()
    };

    decide_on(&pool, BROKER, frame(again, resuming)).unwrap_err();

    assert!(live.admission.end.try_recv().is_err());
}

#[test]
fn newer_path_of_a_live_session_is_for_its_task() {
    let pool = pool();
    let resumable = SessionOpen {
        version_max: 2,
        ..open()
    };
    let mut live = begun(decide_on(&pool, BROKER, frame(header(), resumable.clone())));
    let again = FrameHeader {
        attach_number: 2,
        ..header()
    };
    let resuming = SessionOpen {
        next_reverse: 7,
        ..resumable
    };

    let opened = decide_on(&pool, BROKER, frame(again, resuming)).unwrap();

    let Opened::Again { opening, .. } = opened else {
        panic!("{opened:?}");
    };
    assert_eq!(opening.path.attach_number, AttachNumber(2));
    assert_eq!(opening.open.next_reverse, 7);
    assert!(live.admission.end.try_recv().is_err());
}

#[test]
fn newer_path_of_another_agent_is_refused() {
    let pool = pool();
    let resumable = SessionOpen {
        version_max: 2,
        ..open()
    };
    begun(decide_on(&pool, BROKER, frame(header(), resumable.clone())));
    let again = FrameHeader {
        attach_number: 2,
        ..header()
    };
    let others = SessionOpen {
        grant: Some(Grant {
            device_id: "scratch-0".into(),
            agent: "spiffe://potemkin.dev/agent/other".into(),
        }),
        ..resumable
    };

    let refusal = decide_on(&pool, BROKER, frame(again, others)).unwrap_err();

    assert_eq!(refusal.code, CloseCode::PermissionDenied);
    assert!(
        refusal.message.contains("another agent"),
        "{}",
        refusal.message
    );
}

#[test]
fn refusal_is_a_close_frame_on_the_same_path() {
    let old = FrameHeader {
        epoch: 4,
        ..header()
    };

    let refusal = refusal(BROKER, frame(old, open()));

    let frame = Frame::decode(refusal.frame()).unwrap();
    assert_eq!(frame.header.epoch, 4);
    assert_eq!(frame.header.session_hi, header().session_hi);
    let Body::Close(close) = frame.body else {
        panic!("{:?}", frame.body);
    };
    assert_eq!(close.code(), CloseCode::Superseded);
    assert!(close.message.starts_with("host: scratch-0:"));
}
