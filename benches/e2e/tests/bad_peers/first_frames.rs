//! Peers whose certificate is good and whose first frame is not.

use std::sync::Arc;

use potemkin_proto::v1;
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use prost::Message;

use crate::{
    dice::Dice,
    kind::{Kind, Verdict, Who, expect},
    scene::Scene,
    wire::{End, announced, framed},
};

/// A stream's bytes for a transport, and what broker and host say to it.
pub(crate) struct Opening {
    name: &'static str,
    bytes: fn(TransportKind) -> Vec<u8>,
    end: End,
    told: &'static str,
}

const OPENINGS: &[Opening] = &[
    opening(
        "not an open",
        |t| framed(t, &changed(|f| f.open = None)),
        "open",
    ),
    opening(
        "no header",
        |t| framed(t, &changed(|f| f.header = None)),
        "header: ",
    ),
    opening(
        "empty",
        |t| framed(t, &[]),
        "frame: it is empty|header: missing",
    ),
    opening(
        "malformed",
        |t| framed(t, &malformed()),
        "protobuf|malformed",
    ),
    opening(
        "an open and a batch",
        |t| framed(t, &changed(|f| f.batch = Some(v1::Batch::default()))),
        "another body|batch|frame",
    ),
    opening(
        "versions that nobody speaks",
        |t| framed(t, &changed(version_9)),
        "open.version_min",
    ),
    opening(
        "a session that is not there",
        |t| framed(t, &sound_open()),
        "CLOSE_CODE_UNREACHABLE|open.grant",
    ),
    opening("nothing before the end", |_| Vec::new(), "before").at_once(),
    opening(
        "cut off",
        |t| announced(t, 100, &[0x0a; 10]),
        "cut|truncated|ended|INTERNAL|status",
    )
    .at_once(),
    opening(
        "oversized",
        |t| announced(t, 70_000, &vec![0; 70_000]),
        "65536|65,536|too long|too large",
    ),
];

const fn opening(
    name: &'static str,
    bytes: fn(TransportKind) -> Vec<u8>,
    told: &'static str,
) -> Opening {
    Opening {
        name,
        bytes,
        end: End::AfterServer,
        told,
    }
}

impl Opening {
    const fn at_once(mut self) -> Self {
        self.end = End::AtOnce;
        self
    }
}

pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for at in [Who::Broker, Who::Host] {
        for opening in OPENINGS {
            let name = format!("{}: first frame: {}", at.name(), opening.name);
            let words: &'static [&'static str] = match at {
                Who::Host => &["refused", "spiffe://potemkin.dev/broker/bad"],
                Who::Broker | Who::Front => &["dial refused", "spiffe://potemkin.dev/agent/bad"],
            };
            kinds.push(
                Kind::new(name, move |scene, dice| send(scene, dice, at, opening))
                    .logged(at, words),
            );
        }
    }
    kinds
}

async fn send(scene: Arc<Scene>, dice: Dice, at: Who, opening: &Opening) -> Verdict {
    let transport = *dice.in_turn(&[Quic, Grpc]);
    let bytes = (opening.bytes)(transport);
    let (to, shown) = (scene.address(at), scene.welcome(at));
    let told = scene
        .wire
        .session(transport, to, shown, bytes, opening.end)
        .await;
    expect(&told.text(), opening.told).map_err(|why| format!("{transport}: {why}"))
}

/// An open of a session that does not exist, with nothing else wrong.
pub(crate) fn sound_open() -> Vec<u8> {
    changed(|_| ())
}

fn changed(change: impl FnOnce(&mut v1::Frame)) -> Vec<u8> {
    let header = v1::FrameHeader {
        session_hi: 7,
        session_lo: 9,
        epoch: 1,
        attach_number: 1,
        first_sequence: 1,
        ..v1::FrameHeader::default()
    };
    let mut frame = open_frame(header);
    change(&mut frame);
    frame.encode_to_vec()
}

pub(crate) fn open_frame(header: v1::FrameHeader) -> v1::Frame {
    v1::Frame {
        header: Some(header),
        open: Some(v1::SessionOpen {
            version_min: 1,
            version_max: 1,
            next_reverse: 1,
            oldest_unacknowledged: 1,
            ..v1::SessionOpen::default()
        }),
        ..v1::Frame::default()
    }
}

fn version_9(frame: &mut v1::Frame) {
    let open = frame.open.as_mut().unwrap();
    (open.version_min, open.version_max) = (9, 9);
}

/// A sound header, and behind it a field that ends beyond the frame.
fn malformed() -> Vec<u8> {
    let mut bytes = changed(|f| f.open = None);
    bytes.extend([0x1a, 0x7f, 1, 2, 3]);
    bytes
}
