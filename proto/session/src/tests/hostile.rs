//! Peers that break the protocol: each field is refused by name, nothing of the frame is executed, and nothing panics.

use std::time::Instant;

use bytes::Bytes;
use potemkin_proto::v1::{Batch, Frame, FrameHeader};
use proptest::prelude::*;
use prost::Message;

use super::pair::{Pair, accepted, checked, config, path};
use crate::{Violation, front::Front, front::FrontState, host::Opening};

/// A forward frame with one posted write of 4 bytes to BAR 0, and whatever `spoil` does to it.
fn write_frame(spoil: impl FnOnce(&mut FrameHeader, &mut Batch)) -> Bytes {
    let (session_hi, session_lo) = path().session.halves();
    let mut header = FrameHeader {
        session_hi,
        session_lo,
        epoch: 7,
        attach_number: 1,
        first_sequence: 1,
        posted: 1,
        ..FrameHeader::default()
    };
    let mut batch = Batch {
        ops: Bytes::from_static(&[(1 << 5) | (2 << 3)]),
        args: vec![0],
        data: Bytes::from_static(&[1, 2, 3, 4]),
    };
    spoil(&mut header, &mut batch);
    checked(&Frame {
        header: Some(header),
        batch: Some(batch),
        ..Frame::default()
    })
}

/// What a fresh host says to a frame; if it refused it must have executed nothing, and have given up the path or, where that cannot be at
/// fault, the session.
fn refusal(frame: Bytes) -> Option<String> {
    let (mut host, _accept) = accepted();
    let violation = host.handle_frame(frame).err()?;
    assert_eq!(host.is_closed(), !violation.is_of_path());
    assert!(host.is_closed() || !host.is_connected());
    assert!(host.next_work().is_none(), "nothing of it is executed");
    assert!(host.poll_transmit().is_some(), "a close frame says why");
    Some(violation.to_string())
}

#[test]
fn the_unspoiled_frame_is_taken() {
    assert_eq!(refusal(write_frame(|_, _| {})), None);
}

type Spoil = fn(&mut FrameHeader, &mut Batch);

#[test]
fn each_wrong_field_is_refused_by_name() {
    let cases: &[(&str, Spoil)] = &[
        ("header.session_hi", |h, _| h.session_hi += 1),
        ("header.session_lo", |h, _| h.session_lo += 1),
        ("header.epoch", |h, _| h.epoch = 6),
        ("header.attach_number", |h, _| h.attach_number = 2),
        ("header.first_sequence", |h, _| h.first_sequence = 2),
        ("header.acknowledged", |h, _| h.acknowledged = 1),
        ("header.posted", |h, _| h.posted = 2),
        ("header.non_posted", |h, _| h.non_posted = 1),
        ("header.events", |h, _| h.events = 1),
        ("header.interrupts", |h, _| h.interrupts = 1),
        ("batch.args: item 0: truncated", |_, b| b.args.clear()),
        ("batch.args: 1 bytes are left over", |_, b| b.args.push(0)),
        ("batch.data: item 0: truncated", |_, b| {
            b.data = Bytes::from_static(&[1, 2, 3]);
        }),
        ("batch.data: 1 bytes are left over", |_, b| {
            b.data = Bytes::from_static(&[1, 2, 3, 4, 5]);
        }),
        ("batch.ops: item 0: unknown operation", |_, b| {
            b.ops = Bytes::from_static(&[6 << 5]);
        }),
        ("batch.ops: item 0: unknown event", |_, b| {
            b.ops = Bytes::from_static(&[(7 << 5) | 31]);
        }),
        ("batch.args: item 0: offset wraps", |_, b| b.args[0] = 1),
        ("batch.args: item 0: count is 0", |_, b| {
            b.ops = Bytes::from_static(&[(4 << 5) | (2 << 3)]);
            b.args = vec![0, 0];
        }),
        ("batch.args: item 0: count is 0 or exceeds", |_, b| {
            b.ops = Bytes::from_static(&[(4 << 5) | (3 << 3)]);
            b.args = vec![0, 513 << 1];
        }),
    ];
    for (expected, spoil) in cases {
        let found = refusal(write_frame(spoil));
        assert!(
            found.as_ref().is_some_and(|text| text.contains(expected)),
            "{expected}: {found:?}"
        );
    }
}

#[test]
fn accesses_beyond_the_credit_are_refused() {
    let (mut host, _accept) = accepted();
    let too_many = 1_025;
    let frame = write_frame(|header, batch| {
        header.posted = 0;
        header.non_posted = too_many;
        batch.ops = vec![2 << 3; too_many as usize].into();
        batch.args = vec![0; too_many as usize];
        batch.data = Bytes::new();
    });

    let violation = host.handle_frame(frame).unwrap_err();

    assert_eq!(
        violation,
        Violation::Credit {
            class: "non_posted",
            used: 1_025,
            limit: 1_024
        }
    );
}

#[test]
fn a_frame_longer_than_the_limit_is_refused_unread() {
    assert_eq!(
        refusal(Bytes::from(vec![0; 65_537])).unwrap(),
        "frame: 65537 bytes exceed the limit of 65536"
    );
}

#[test]
fn a_completion_nobody_waits_for_contains_the_front() {
    let mut pair = Pair::live();
    let (session_hi, session_lo) = path().session.halves();
    let frame = Frame {
        header: Some(FrameHeader {
            session_hi,
            session_lo,
            epoch: 7,
            attach_number: 1,
            first_sequence: 1,
            completions: 1,
            ..FrameHeader::default()
        }),
        batch: Some(Batch {
            ops: Bytes::from_static(&[0]),
            args: vec![2, 0],
            data: Bytes::new(),
        }),
        ..Frame::default()
    };

    let violation = pair.front.handle_frame(checked(&frame)).unwrap_err();

    assert!(violation.to_string().contains("completion of access 1"));
    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn an_opening_without_a_common_version_is_refused() {
    let mut front = Front::new(config(), Instant::now());
    let open = front.poll_transmit(Instant::now()).unwrap();
    let mut frame = Frame::decode(open).unwrap();
    frame.check = None;
    let body = frame.open.as_mut().unwrap();
    (body.version_min, body.version_max) = (3, 4);

    let refused = Opening::decode(checked(&frame)).unwrap_err();

    assert_eq!(
        refused,
        Violation::Version {
            min: 3,
            max: 4,
            ours: 2
        }
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic_either_half(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let (mut host, _accept) = accepted();
        let _ = host.handle_frame(bytes.clone().into());
        let _ = Opening::decode(bytes.clone().into());
        let mut pair = Pair::live();
        let _ = pair.front.handle_frame(bytes.into());
    }

    #[test]
    fn random_batches_never_panic_and_keep_the_counts(
        ops in proptest::collection::vec(any::<u8>(), 0..32),
        args in proptest::collection::vec(any::<u64>(), 0..64),
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let frame = write_frame(|_, batch| {
            batch.ops = ops.into();
            batch.args = args;
            batch.data = data.into();
        });
        let (mut host, _accept) = accepted();
        if host.handle_frame(frame).is_ok() {
            prop_assert!(host.next_work().is_some());
        }
    }
}
