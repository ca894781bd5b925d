//! A session that loses its path: nothing is lost, nothing is done twice.

use bytes::Bytes;
use potemkin_proto::{
    check,
    v1::{CloseCode, Frame},
};
use prost::Message;

use super::pair::{DEADLINE, Pair, at, checked, completed, incarnation};
use crate::{
    Violation,
    access::{Extent, Posting, Vector},
    credit::NON_POSTED_WINDOW,
    frame::header_for,
    front::{FrontEvent, FrontState, Refused},
    host::{Host, Opening},
};

fn read(pair: &mut Pair, offset: u64) -> u64 {
    pair.front
        .read(pair.now, at(offset), Extent::Single)
        .unwrap()
}

fn opening(pair: &mut Pair) -> Opening {
    pair.front.dial(pair.now);
    Opening::decode(pair.front.poll_transmit(pair.now).unwrap()).unwrap()
}

/// A frame with another sequence number, check and all.
fn renumbered(frame: &Bytes, first_sequence: u64) -> Bytes {
    let mut frame = Frame::decode(frame.clone()).unwrap();
    frame.check = None;
    frame.header.as_mut().unwrap().first_sequence = first_sequence;
    checked(&frame)
}

#[test]
fn what_was_lost_on_its_way_is_sent_again() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.write(4, 2);
    let sequence = read(&mut pair, 8);
    pair.sent();
    pair.cut();

    let events = pair.reconnect();

    assert_eq!(pair.log, [(0, 1), (4, 2)]);
    assert!(matches!(&events[0], FrontEvent::Interrupted(why) if why.contains("cut")));
    assert_eq!(events[1], FrontEvent::Resumed);
    assert_eq!(events[2], completed(sequence, &[8, 9, 10, 11]));
    assert_eq!(pair.front.acknowledged(), 3);
    assert_eq!(pair.front.poll_timeout(), None);
}

#[test]
fn an_answer_that_was_lost_comes_from_the_cache() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let sequence = read(&mut pair, 8);
    let frames = pair.sent();
    let lost = pair.deliver(frames);
    assert!(!lost.is_empty());
    pair.cut();

    let events = pair.reconnect();

    assert_eq!(pair.log, [(0, 1)], "applied once");
    assert!(events.contains(&completed(sequence, &[8, 9, 10, 11])));
}

#[test]
fn accesses_without_a_path_wait_for_the_next_one() {
    let mut pair = Pair::live();
    pair.cut();
    pair.write(0, 1);
    let sequence = read(&mut pair, 8);
    assert!(pair.sent().is_empty());
    assert!(pair.front.is_urgent());

    let events = pair.reconnect();

    assert_eq!(pair.log, [(0, 1)]);
    assert!(events.contains(&completed(sequence, &[8, 9, 10, 11])));
}

#[test]
fn without_a_path_the_deadline_counts_from_the_oldest_access() {
    let mut pair = Pair::live();
    pair.cut();
    let taken = pair.now;
    read(&mut pair, 8);
    pair.now += DEADLINE / 2;
    read(&mut pair, 8);
    assert_eq!(pair.front.poll_timeout(), Some(taken + DEADLINE));

    pair.front.handle_timeout(taken + DEADLINE);

    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn what_the_device_did_without_a_path_arrives_once_and_in_order() {
    let mut pair = Pair::live();
    pair.host.dma_write(0, 0x1000, Bytes::from_static(b"first"));
    let lost = pair.host.poll_transmit();
    assert!(lost.is_some());
    pair.cut();
    pair.host.raise(0, Vector::Msi(3));
    pair.host.set_intx(true);
    pair.host
        .dma_write(0, 0x2000, Bytes::from_static(b"second"));

    let mut events = pair.reconnect().into_iter().skip(2);

    assert!(matches!(events.next(), Some(FrontEvent::DmaWrite(w)) if w.address == 0x1000));
    assert!(matches!(events.next(), Some(FrontEvent::Interrupt { .. })));
    assert_eq!(events.next(), Some(FrontEvent::Intx(true)));
    assert!(matches!(events.next(), Some(FrontEvent::DmaWrite(w)) if w.address == 0x2000));
    assert_eq!(events.next(), None);
}

#[test]
fn a_repeated_frame_does_nothing_twice_at_either_end() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let sequence = read(&mut pair, 8);
    let mut frames = pair.sent();
    frames.extend(frames.clone());

    let mut answers = pair.deliver(frames);
    answers.extend(answers.clone());
    for answer in answers {
        pair.front.handle_frame(answer).unwrap();
    }

    assert_eq!(pair.log, [(0, 1)]);
    assert_eq!(
        pair.front.poll_event(),
        Some(completed(sequence, &[8, 9, 10, 11]))
    );
    assert_eq!(pair.front.poll_event(), None);
}

#[test]
fn other_contents_under_numbers_that_were_used_end_the_session() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let frames = pair.sent();
    pair.deliver(frames);
    pair.write(0, 2);
    pair.front.push();
    let other = renumbered(&pair.sent()[0], 1);

    let refused = pair.host.handle_frame(other).unwrap_err();

    assert_eq!(refused, Violation::Repeat { first: 1 });
    assert!(pair.host.is_closed());
    assert_eq!(pair.log, [(0, 1)]);
}

#[test]
fn a_gap_breaks_the_path_and_not_the_session() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();
    read(&mut pair, 8);
    let behind = pair.sent().remove(0);

    pair.host.handle_frame(behind).unwrap_err();

    assert!(!pair.host.is_closed() && !pair.host.is_connected());
    let close = pair.host.poll_transmit().unwrap();
    pair.front.handle_frame(close).unwrap();
    assert_eq!(pair.front.state(), FrontState::Interrupted);
    pair.reconnect();
    assert_eq!(pair.log, [(0, 1)]);
}

#[test]
fn a_garbled_frame_breaks_the_path_and_has_no_effect() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let frame = pair.sent().remove(0);
    for bit in 0..8 * frame.len() {
        let mut garbled = frame.to_vec();
        garbled[bit / 8] ^= 1 << (bit % 8);
        let (mut host, _accept) = super::pair::accepted();

        let refused = host.handle_frame(garbled.into());

        // Other bytes may encode the same frame's absence of a check, but nothing is done.
        assert!(refused.is_err(), "bit {bit}");
        assert!(host.next_work().is_none(), "bit {bit}");
        assert!(!host.is_closed(), "bit {bit}: {refused:?}");
    }
}

#[test]
fn a_frame_of_an_older_path_is_ignored() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let old = pair.sent();
    let old_answers = {
        pair.host.set_intx(true);
        pair.host.poll_transmit().unwrap()
    };
    pair.cut();
    for frame in pair.dial() {
        pair.front.handle_frame(frame).unwrap();
    }

    for frame in old {
        pair.host.handle_frame(frame).unwrap();
    }
    pair.front.handle_frame(old_answers).unwrap();

    assert!(pair.host.next_work().is_none());
    pair.settle();
    assert_eq!(pair.log, [(0, 1)]);
}

#[test]
fn a_batch_that_comes_too_late_is_refused_and_sent_again_with_a_fresh_beat() {
    let mut pair = Pair::live();
    let stale = u64::try_from(DEADLINE.as_millis()).unwrap();
    pair.host.set_beat(stale);
    pair.write(0, 1);
    pair.write(4, 2);
    let sequence = read(&mut pair, 8);
    let mut frames = pair.sent();
    pair.write(12, 3);
    pair.front.push();
    frames.extend(pair.sent());

    let refusals = pair.deliver(frames);

    assert!(pair.log.is_empty());
    assert_eq!(refusals.len(), 1, "what is behind it is dropped");
    for refusal in refusals {
        pair.front.handle_frame(refusal).unwrap();
    }
    let events = pair.settle();
    assert_eq!(pair.log, [(0, 1), (4, 2), (12, 3)]);
    assert_eq!(events, [completed(sequence, &[8, 9, 10, 11])]);
}

#[test]
fn completions_that_are_not_acknowledged_hold_their_credit() {
    let mut pair = Pair::live();
    let mut waiting = 0;
    // Reads whose answers are lost with the path.
    while pair.front.read(pair.now, at(0), Extent::Single).is_ok() {
        waiting += 1;
    }
    assert_eq!(waiting, NON_POSTED_WINDOW);
    let frames = pair.sent();
    pair.deliver(frames);
    pair.cut();

    for frame in pair.dial() {
        pair.front.handle_frame(frame).unwrap();
    }
    while pair.front.poll_event().is_some() {}
    assert_eq!(
        pair.front.read(pair.now, at(0), Extent::Single),
        Err(Refused::NoCredit)
    );

    // The agent acknowledges by itself, and the host tells that there is room.
    let events = pair.settle();
    let unblocked = events.iter().filter(|e| **e == FrontEvent::Unblocked);
    assert_eq!(unblocked.count(), 1);
    read(&mut pair, 0);
}

#[test]
fn a_path_that_stands_still_for_a_quarter_of_the_deadline_is_replaced() {
    let mut pair = Pair::live();
    read(&mut pair, 8);
    pair.sent();
    let stalls = pair.now + DEADLINE / 4;
    assert_eq!(pair.front.poll_timeout(), Some(stalls));
    assert!(!pair.front.wants_path());

    pair.front.handle_timeout(stalls);

    assert!(pair.front.wants_path());
    assert_eq!(pair.front.state(), FrontState::Live);
    pair.now = stalls;
    pair.reconnect();
    assert!(!pair.front.wants_path());
}

#[test]
fn an_agent_that_went_back_in_time_is_refused() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let _ = read(&mut pair, 8);
    pair.settle();
    read(&mut pair, 8);
    pair.settle();
    pair.cut();
    let mut opening = opening(&mut pair);
    opening.open.next_reverse = 1;

    let refused = pair.host.resume(&opening, 1).unwrap_err();

    assert!(refused.to_string().contains("next_reverse"), "{refused}");
    assert!(pair.host.is_closed());
    let close = pair.host.poll_transmit().unwrap();
    pair.front.handle_frame(close).unwrap();
    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn a_host_that_lost_accesses_is_not_resumed() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.settle();
    pair.cut();
    let mut opening = opening(&mut pair);
    opening.open.oldest_unacknowledged = 1;
    opening.open.next_reverse = 1;
    let mut other = Host::accept(&opening, incarnation(), 1).unwrap();

    let refused = pair
        .front
        .handle_frame(other.poll_transmit().unwrap())
        .unwrap_err();

    assert!(refused.to_string().contains("next_forward"), "{refused}");
    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn a_path_that_is_lost_while_it_opens_is_dialled_again() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();
    pair.cut();
    opening(&mut pair);
    pair.front.handle_lost("again");
    assert_eq!(pair.front.state(), FrontState::Interrupted);

    pair.reconnect();

    assert_eq!(pair.log, [(0, 1)]);
}

#[test]
fn non_posted_writes_are_answered_again() {
    let mut pair = Pair::live();
    let (now, one) = (pair.now, 1_u32.to_le_bytes());
    let sequence = pair
        .front
        .write(now, at(0), Extent::Single, Posting::NonPosted, &one)
        .unwrap();
    let frames = pair.sent();
    pair.deliver(frames);
    pair.cut();

    let events = pair.reconnect();

    assert_eq!(pair.log, [(0, 1)]);
    assert!(events.contains(&completed(sequence, &[])));
}

#[test]
fn with_a_peer_of_version_one_a_lost_path_ends_the_session() {
    let mut pair = Pair::live_with_version(1);
    read(&mut pair, 8);
    pair.sent();

    pair.front.handle_lost("cut");

    assert_eq!(pair.front.state(), FrontState::Contained);
    assert!(!pair.host.is_resumable());
}

#[test]
fn a_session_of_version_one_does_what_it_did() {
    let mut pair = Pair::live_with_version(1);
    for round in 0..2_000 {
        pair.write(0, round);
        let sequence = read(&mut pair, 8);
        let events = pair.settle();
        assert_eq!(events, [completed(sequence, &[8, 9, 10, 11])]);
    }
    assert_eq!(pair.log.len(), 2_000);
}

#[test]
fn a_check_is_on_every_frame() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    read(&mut pair, 8);
    for frame in pair.sent() {
        assert_eq!(check::verify(&frame), check::Check::Good);
        for answer in pair.deliver(vec![frame]) {
            assert_eq!(check::verify(&answer), check::Check::Good);
        }
    }
}

#[test]
fn a_batch_that_was_lost_is_not_acknowledged_over() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let frames = pair.sent();
    pair.host.dma_write(0, 0x1000, Bytes::from_static(b"lost"));
    let lost = pair.host.poll_transmit();
    assert!(lost.is_some());
    let acknowledgement = pair.deliver(frames).remove(0);

    let refused = pair.front.handle_frame(acknowledgement).unwrap_err();

    assert!(refused.is_of_path(), "{refused}");
    assert_eq!(pair.front.acknowledged(), 0);
    pair.host.suspend();
    let events = pair.reconnect();
    assert!(events.iter().any(|e| matches!(e, FrontEvent::DmaWrite(_))));
    assert_eq!(pair.front.acknowledged(), 1);
}

#[test]
fn an_accept_without_its_check_is_not_taken() {
    let mut front = crate::front::Front::new(super::pair::config(), std::time::Instant::now());
    let (_host, accept) = super::pair::accepted();

    let cut = accept.slice(..accept.len() - check::CHECK_BYTES);

    assert_eq!(front.handle_frame(cut), Err(Violation::Unchecked));
    assert_eq!(front.state(), FrontState::Contained);
}

#[test]
fn a_device_that_is_slow_is_not_taken_for_a_path_that_stands_still() {
    let mut pair = Pair::live();
    read(&mut pair, 8);
    pair.sent();
    pair.now += DEADLINE / 4;
    pair.front.handle_timeout(pair.now);
    assert!(pair.front.wants_path());
    pair.cut();
    for frame in pair.dial() {
        pair.front.handle_frame(frame).unwrap();
    }
    pair.sent();

    // Another path has not brought the answer: it may take twice as long now.
    pair.now += DEADLINE / 4;
    pair.front.handle_timeout(pair.now);
    assert!(!pair.front.wants_path());
    pair.now += DEADLINE / 4;
    pair.front.handle_timeout(pair.now);
    assert!(pair.front.wants_path());
}

#[test]
fn patience_with_a_slow_device_ends_with_its_answer() {
    let mut pair = Pair::live();
    read(&mut pair, 8);
    pair.sent();
    pair.reconnect();
    pair.reconnect();
    pair.now += DEADLINE;
    read(&mut pair, 8);
    pair.sent();

    pair.now += DEADLINE / 4;
    pair.front.handle_timeout(pair.now);

    assert!(pair.front.wants_path());
}

#[test]
fn a_relays_word_on_a_path_does_not_end_the_session() {
    for code in [
        CloseCode::Superseded,
        CloseCode::Unreachable,
        CloseCode::GoingAway,
    ] {
        let mut pair = Pair::live();
        pair.write(0, 1);
        pair.sent();
        let close = crate::front::close_frame(header_for(super::pair::path()), code, String::new());

        pair.host.handle_frame(close).unwrap();

        assert!(
            !pair.host.is_closed() && !pair.host.is_connected(),
            "{code:?}"
        );
        pair.front.handle_lost("closed");
        pair.reconnect();
        assert_eq!(pair.log, [(0, 1)]);
    }
}

#[test]
fn a_wait_for_credit_has_a_deadline_of_its_own() {
    let mut pair = Pair::live();
    while pair.front.read(pair.now, at(0), Extent::Single).is_ok() {}
    let frames = pair.sent();
    // All is answered, and the news of more room is lost.
    for answer in pair.deliver(frames) {
        pair.front.handle_frame(answer).unwrap();
    }
    while pair.front.poll_event().is_some() {}
    let blocked = pair.front.read(pair.now, at(0), Extent::Single);
    assert_eq!(blocked, Err(Refused::NoCredit));
    pair.sent();
    let stalls = pair.now + DEADLINE / 4;
    assert_eq!(pair.front.poll_timeout(), Some(stalls));
    assert!(pair.front.is_urgent());

    pair.front.handle_timeout(stalls);
    assert!(pair.front.wants_path());
    pair.front.handle_timeout(pair.now + DEADLINE);

    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn late_batches_cost_one_refusal_until_it_is_sent() {
    let mut pair = Pair::live();
    pair.host.set_beat(100_000);
    pair.write(0, 1);
    let late = pair.sent().remove(0);

    for _ in 0..1_000 {
        pair.host.handle_frame(late.clone()).unwrap();
    }

    assert!(pair.host.poll_transmit().is_some());
    assert_eq!(pair.host.poll_transmit(), None);
}

#[test]
fn an_agent_that_never_acknowledges_is_not_kept_for_without_end() {
    let mut pair = Pair::live();
    let mut opening = opening(&mut pair);
    opening.open.dma_write_limit = u64::MAX;
    pair.host.resume(&opening, 1).unwrap();
    let data = Bytes::from(vec![7; 1 << 20]);

    let written = (1..).find(|_| {
        pair.host.dma_write(0, 0, data.clone());
        while pair.host.poll_transmit().is_some() {}
        pair.host.is_closed()
    });

    assert!(written.unwrap() < 64, "MiB");
}

#[test]
fn an_older_relay_costs_a_path_and_not_the_session() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();
    pair.cut();
    opening(&mut pair);
    let path = pair.front.path();
    let close = crate::front::close_frame(header_for(path), CloseCode::Version, String::new());

    pair.front.handle_frame(close).unwrap();

    assert_eq!(pair.front.state(), FrontState::Interrupted);
    pair.reconnect();
    assert_eq!(pair.log, [(0, 1)]);
}

#[test]
fn a_dial_that_resumes_without_its_check_is_refused() {
    let mut pair = Pair::live();
    pair.cut();
    pair.front.dial(pair.now);
    let open = pair.front.poll_transmit(pair.now).unwrap();

    let cut = open.slice(..open.len() - check::CHECK_BYTES);

    assert_eq!(Opening::decode(cut).unwrap_err(), Violation::Unchecked);
    assert!(Opening::decode(open).is_ok());
}
