//! What is sent when, and in which order it is applied.

use potemkin_proto::v1;
use prost::Message;

use super::pair::{Pair, at, completed, failed};
use crate::{
    access::{Extent, Posting},
    credit::POSTED_WINDOW,
    front::{Failure, FrontEvent, Refused},
};

#[test]
fn a_read_is_answered_with_the_devices_bytes() {
    let mut pair = Pair::live();

    let sequence = pair.front.read(pair.now, at(0x10), Extent::Single).unwrap();

    assert_eq!(
        pair.settle(),
        [completed(sequence, &[0x10, 0x11, 0x12, 0x13])]
    );
    assert_eq!(pair.front.counters().round_trips, 1);
}

#[test]
fn a_read_that_the_device_refuses_fails_and_the_session_lives() {
    let mut pair = Pair::live();

    let bad = pair
        .front
        .read(pair.now, at(0xbad), Extent::Single)
        .unwrap();
    let good = pair.front.read(pair.now, at(4), Extent::Single).unwrap();

    assert_eq!(
        pair.settle(),
        [failed(bad, Failure::Device), completed(good, &[4, 5, 6, 7])]
    );
}

#[test]
fn a_thousand_posted_writes_and_a_read_are_two_frames_in_order() {
    let mut pair = Pair::live();

    // The first goes at once; while it is in flight the others are collected, and the read pushes them.
    pair.write(0, 0);
    let mut frames = pair.sent();
    for n in 1..1_000 {
        pair.write(n * 4, u32::try_from(n).unwrap());
        frames.extend(pair.sent());
    }
    let read = pair.front.read(pair.now, at(0x20), Extent::Single).unwrap();
    frames.extend(pair.sent());
    let answers = pair.deliver(frames);
    for answer in answers {
        pair.front.handle_frame(answer).unwrap();
    }

    assert_eq!(pair.frames.0, 2);
    assert_eq!(
        pair.front.poll_event(),
        Some(completed(read, &[0x20, 0x21, 0x22, 0x23]))
    );
    let expected: Vec<_> = (0..1_000).map(|n| (n * 4, n)).collect();
    assert_eq!(pair.log, expected);
}

#[test]
fn writes_collected_during_a_flight_go_when_it_lands() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let first = pair.sent();
    pair.write(4, 2);
    pair.write(8, 3);
    assert_eq!(pair.sent().len(), 0, "one flight at a time");

    let acknowledgements = pair.deliver(first);
    assert_eq!(
        acknowledgements.len(),
        1,
        "the host acknowledges on an idle wire"
    );
    pair.front
        .handle_frame(acknowledgements[0].clone())
        .unwrap();

    assert_eq!(pair.sent().len(), 1, "both in one frame");
}

#[test]
fn a_doorbell_goes_at_once_with_what_was_collected() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let mut frames = pair.sent();
    pair.write(4, 2);
    pair.write(8, 3);

    pair.front.push();
    frames.extend(pair.sent());

    assert_eq!(frames.len(), 2);
    pair.deliver(frames);
    assert_eq!(pair.log, [(0, 1), (4, 2), (8, 3)]);
}

#[test]
fn a_full_frame_goes_during_a_flight() {
    let mut pair = Pair::live();
    let block = [7_u8; 4_096];
    let mut frames = 0;
    for _ in 0..40 {
        pair.front
            .write(
                pair.now,
                at(0),
                Extent::Consecutive(1_024),
                Posting::Posted,
                &block,
            )
            .unwrap();
        frames += pair.sent().len();
    }
    // One at once, then frames of 15 blocks each.
    assert_eq!(frames, 1 + 2);
}

#[test]
fn a_non_posted_write_completes_without_bytes() {
    let mut pair = Pair::live();

    let sequence = pair
        .front
        .write(
            pair.now,
            at(4),
            Extent::Single,
            Posting::NonPosted,
            &[1, 0, 0, 0],
        )
        .unwrap();

    assert_eq!(pair.settle(), [completed(sequence, &[])]);
    assert_eq!(pair.log, [(4, 1)]);
}

#[test]
fn string_and_block_accesses_are_one_item() {
    let mut pair = Pair::live();

    pair.front
        .write(pair.now, at(8), Extent::Fixed(3), Posting::Posted, &[1; 12])
        .unwrap();
    let read = pair
        .front
        .read(pair.now, at(2), Extent::Consecutive(2))
        .unwrap();

    assert_eq!(pair.settle(), [completed(read, &[2, 3, 4, 5, 6, 7, 8, 9])]);
    assert_eq!(pair.log, [(8, 12)]);
}

#[test]
fn a_write_without_credit_is_refused_and_unblocked_later() {
    let mut pair = Pair::live();
    for _ in 0..POSTED_WINDOW {
        pair.write(0, 0);
    }
    let refused = pair
        .front
        .write(pair.now, at(0), Extent::Single, Posting::Posted, &[0; 4]);

    assert_eq!(refused, Err(Refused::NoCredit));
    assert_eq!(pair.settle(), [FrontEvent::Unblocked]);
    pair.write(0, 0);
}

#[test]
fn a_reset_stays_in_order_with_writes() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.front.reset(pair.now);
    pair.write(0, 2);

    let level = FrontEvent::Intx(false);
    assert_eq!(pair.settle(), [level], "what it is after the reset");
    assert_eq!(pair.log, [(0, 1), (0, 2)]);
}

#[test]
fn a_reset_without_credit_goes_before_the_next_access() {
    let mut pair = Pair::live();
    for _ in 0..POSTED_WINDOW {
        pair.write(0, 0);
    }
    pair.front.reset(pair.now);
    let refused = pair
        .front
        .write(pair.now, at(0), Extent::Single, Posting::NonPosted, &[0; 4]);
    assert_eq!(refused, Err(Refused::NoCredit), "nothing passes the reset");

    let events = [FrontEvent::Unblocked, FrontEvent::Intx(false)];
    assert_eq!(pair.settle(), events);

    assert_eq!(pair.resets, 1);
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
}

#[test]
fn reads_find_nothing_until_the_host_has_confirmed_a_reset() {
    let mut pair = Pair::live();
    let before = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.front.reset(pair.now);
    let resetting = |pair: &mut Pair| pair.front.read(pair.now, at(0), Extent::Single);
    assert_eq!(resetting(&mut pair), Err(Refused::Resetting));
    let frames = pair.sent();
    assert_eq!(resetting(&mut pair), Err(Refused::Resetting));

    for answer in pair.deliver(frames) {
        pair.front.handle_frame(answer).unwrap();
    }

    assert_eq!(
        pair.front.poll_event(),
        Some(completed(before, &[0, 1, 2, 3]))
    );
    assert!(resetting(&mut pair).is_ok());
}

#[test]
fn our_encoding_is_that_of_the_schema() {
    let mut pair = Pair::live();
    pair.write(0xfffc, 0x0102_0304);
    pair.write(0, 5);
    pair.front
        .read(pair.now, at(4), Extent::Consecutive(3))
        .unwrap();

    let frames = pair.sent();
    let answers = pair.deliver(frames.clone());

    for frame in frames.into_iter().chain(answers) {
        let decoded = v1::Frame::decode(frame.clone()).unwrap();
        assert!(decoded.batch.is_some());
        assert_eq!(decoded.encode_to_vec(), frame);
    }
}
