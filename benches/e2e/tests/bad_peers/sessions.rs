//! Agents that break the protocol on a live session of their own.

use std::sync::Arc;

use potemkin_proto::v1;
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use prost::Message;

use crate::{
    control::Agent,
    dice::Dice,
    first_frames::open_frame,
    kind::{Kind, Verdict, Who, expect},
    pool,
    scene::Scene,
    wire::{End, announced, framed},
};

/// What follows the open, and what the agent is told.
struct Misbehaviour {
    name: &'static str,
    act: Act,
    told: &'static str,
    /// Who finds it out.
    finder: Who,
}

enum Act {
    /// A frame that is sound but for this change.
    Frame(fn(&mut v1::Frame)),
    /// Bytes on the stream, whose end follows at once or not.
    Bytes(fn(TransportKind) -> Vec<u8>, End),
}

const MISBEHAVIOURS: &[Misbehaviour] = &[
    frame("counts items that are not there", "header.posted", |f| {
        header(f).posted = 3
    }),
    frame("sends items that it does not count", "header.", |f| {
        f.batch = Some(read_batch())
    }),
    frame("leaves items without arguments", "batch.", |f| {
        header(f).non_posted = 1;
        f.batch = Some(v1::Batch {
            args: vec![],
            ..read_batch()
        });
    }),
    frame("sends an unknown item", "batch.ops", |f| {
        header(f).non_posted = 1;
        f.batch = Some(v1::Batch {
            ops: vec![0xc0].into(),
            ..read_batch()
        });
    }),
    frame("leaves data over", "batch.data", |f| {
        header(f).non_posted = 1;
        f.batch = Some(v1::Batch {
            data: vec![1; 9].into(),
            ..read_batch()
        });
    }),
    frame("reads more than an access may carry", "batch.", |f| {
        header(f).non_posted = 1;
        f.batch = Some(v1::Batch {
            ops: vec![0x70].into(),
            args: vec![0, 1 << 40],
            ..read_batch()
        });
    }),
    frame("skips sequence numbers", "header.first_sequence", |f| {
        let header = header(f);
        (header.first_sequence, header.non_posted) = (7, 1);
        f.batch = Some(read_batch());
    }),
    frame(
        "acknowledges what was never sent",
        "header.acknowledged",
        |f| header(f).acknowledged = 99,
    ),
    frame("accepts its own session", "accept", |f| {
        f.accept = Some(v1::SessionAccept::default())
    }),
    frame("opens twice", "open", |f| {
        f.open = Some(v1::SessionOpen::default())
    }),
    relayed("speaks for an older epoch", "header.epoch", |f| {
        header(f).epoch -= 1
    }),
    relayed("speaks for another session", "header.session_hi", |f| {
        header(f).session_lo ^= 1
    }),
    relayed("speaks for another dial", "header.attach_number", |f| {
        header(f).attach_number = 2
    }),
    stream("sends no header", "header: ", |t| framed(t, &[0x12, 0])),
    stream("sends an empty frame", "frame: it is empty", |t| {
        framed(t, &[])
    }),
    stream(
        "sends a header that is too long",
        "header: it is longer than 256 bytes",
        |t| {
            framed(
                t,
                &[&[0x0a, 0xac, 0x02, 0xaa, 0x06, 0xa8, 0x02][..], &[0; 296]].concat(),
            )
        },
    ),
    stream(
        "sends an oversized frame",
        "65536|65,536|too long|too large",
        |t| announced(t, 70_000, &vec![0; 70_000]),
    ),
    cut_off("cuts a frame off", "cut|truncated|ended|status", |t| {
        announced(t, 100, &[0x0a; 10])
    }),
];

const fn frame(name: &'static str, told: &'static str, change: fn(&mut v1::Frame)) -> Misbehaviour {
    Misbehaviour {
        name,
        act: Act::Frame(change),
        told,
        finder: Who::Host,
    }
}

/// A frame that comes no further than the broker.
const fn relayed(
    name: &'static str,
    told: &'static str,
    change: fn(&mut v1::Frame),
) -> Misbehaviour {
    Misbehaviour {
        finder: Who::Broker,
        ..frame(name, told, change)
    }
}

const fn stream(
    name: &'static str,
    told: &'static str,
    bytes: fn(TransportKind) -> Vec<u8>,
) -> Misbehaviour {
    Misbehaviour {
        name,
        act: Act::Bytes(bytes, End::AfterServer),
        told,
        finder: Who::Broker,
    }
}

const fn cut_off(
    name: &'static str,
    told: &'static str,
    bytes: fn(TransportKind) -> Vec<u8>,
) -> Misbehaviour {
    Misbehaviour {
        act: Act::Bytes(bytes, End::AtOnce),
        ..stream(name, told, bytes)
    }
}

pub(crate) fn kinds() -> Vec<Kind> {
    MISBEHAVIOURS.iter().map(kind).collect()
}

fn kind(misbehaviour: &'static Misbehaviour) -> Kind {
    let words: &'static [&'static str] = match misbehaviour.finder {
        Who::Host => &[
            "session closed: protocol violation",
            "spiffe://potemkin.dev/agent/bad",
        ],
        Who::Broker | Who::Front => &[
            "session's path ended",
            "spiffe://potemkin.dev/agent/bad",
            "why=",
        ],
    };
    Kind::new(
        format!("session: {}", misbehaviour.name),
        move |scene, dice| misbehave(scene, dice, misbehaviour),
    )
    .at_a_time(pool::NAMES.len())
    .logged(misbehaviour.finder, words)
}

async fn misbehave(scene: Arc<Scene>, dice: Dice, misbehaviour: &Misbehaviour) -> Verdict {
    let (broker, shown) = (scene.stack.broker_address, scene.welcome(Who::Broker));
    let agent = Agent::new(broker, shown);
    let device = scene.hostile_agents.take().await;
    let attached = agent.attach_when_free(device.name).await;
    let transport = *dice.in_turn(&[Quic, Grpc]);
    let header = header_of(&attached);
    let (bad, end) = match misbehaviour.act {
        Act::Bytes(bytes, end) => (bytes(transport), end),
        Act::Frame(change) => (framed(transport, &spoilt(header, change)), End::AfterServer),
    };
    let mut bytes = framed(transport, &open(header, &attached).encode_to_vec());
    bytes.extend(bad);

    let told = scene
        .wire
        .session(transport, broker, shown, bytes, end)
        .await;

    agent.detach(&attached.session_id).await;
    let accepted = told.messages.first().cloned().unwrap_or_default();
    if !v1::Frame::decode(accepted).is_ok_and(|frame| frame.accept.is_some()) {
        return Err(format!(
            "{transport}: the session was not accepted: {told:?}"
        ));
    }
    let told = told.text();
    let mut verdict = expect(&told, misbehaviour.told);
    if misbehaviour.finder == Who::Host {
        // A program can tell a violation from an end on purpose, also when the broker is the quicker one to say it.
        verdict = verdict.and(expect(&told, "CLOSE_CODE_PROTOCOL_VIOLATION"));
    }
    verdict.map_err(|why| format!("{transport}: {why}"))
}

fn header_of(attached: &v1::AttachReply) -> v1::FrameHeader {
    let (high, low) = attached.session_id.split_at(8);
    v1::FrameHeader {
        session_hi: u64::from_be_bytes(high.try_into().unwrap()),
        session_lo: u64::from_be_bytes(low.try_into().unwrap()),
        epoch: attached.epoch,
        attach_number: 1,
        first_sequence: 1,
        ..v1::FrameHeader::default()
    }
}

fn open(header: v1::FrameHeader, attached: &v1::AttachReply) -> v1::Frame {
    let mut frame = open_frame(header);
    let open = frame.open.as_mut().unwrap();
    open.host_incarnation = attached.host_incarnation.clone();
    frame
}

fn spoilt(header: v1::FrameHeader, change: fn(&mut v1::Frame)) -> Vec<u8> {
    let mut frame = v1::Frame {
        header: Some(header),
        ..v1::Frame::default()
    };
    change(&mut frame);
    frame.encode_to_vec()
}

fn header(frame: &mut v1::Frame) -> &mut v1::FrameHeader {
    frame.header.as_mut().unwrap()
}

/// A sound read of four bytes at offset 0 of BAR 0.
fn read_batch() -> v1::Batch {
    v1::Batch {
        ops: vec![0b0001_0000].into(),
        args: vec![0],
        data: Vec::new().into(),
    }
}
