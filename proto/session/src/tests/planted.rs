//! Planted faults whose hooks no other test would notice: each makes a history wrong that is right without it.

use bytes::Bytes;
use potemkin_proto::v1::CloseCode;

use super::pair::{DEADLINE, Pair, at};
use crate::{
    access::{Extent, Posting, Status, Vector},
    credit::POSTED_WINDOW,
    front::{FrontEvent, FrontState},
    ids::AttachNumber,
    planted::{self, Bug},
};

/// A scenario, and whether its history was right.
type Scenario = fn() -> bool;

const SCENARIOS: &[(Bug, Scenario)] = &[
    (
        Bug::AcknowledgeBeforeApply,
        a_write_is_done_before_it_is_acknowledged,
    ),
    (Bug::AcceptAcknowledges, an_accept_acknowledges_nothing),
    (Bug::EvictCompletion, lost_answers_come_again),
    (Bug::ResendNewAcknowledgement, lost_answers_come_again),
    (
        Bug::AcknowledgementNotRepeated,
        a_lost_acknowledgement_comes_again,
    ),
    (Bug::LoseQueueWithoutPath, what_waits_is_done_without_a_path),
    (Bug::PostedCreditEarly, a_slow_device_holds_its_credit),
    (Bug::ExecuteAfterClose, nothing_is_done_after_the_end),
    (Bug::DeadlineFromDial, a_dial_does_not_move_the_deadline),
    (Bug::LandedInPart, the_rest_of_a_batch_keeps_its_deadline),
    (
        Bug::ResendOldBeat,
        what_was_refused_is_taken_the_second_time,
    ),
    (Bug::DmaWriteTwice, a_repeated_dma_write_is_dropped),
    (
        Bug::FrontHearsOldPath,
        a_farewell_on_the_old_path_is_ignored,
    ),
];

#[test]
fn each_of_these_makes_its_history_wrong() {
    for (bug, is_right) in SCENARIOS {
        planted::set(None);
        assert!(is_right(), "without {bug}");
        planted::set(Some(*bug));
        assert!(!is_right(), "with {bug}");
    }
    planted::set(None);
}

/// What is sent comes to the host, whose device does not get to it.
fn idle_device(pair: &mut Pair) {
    for frame in pair.sent() {
        pair.host.handle_frame(frame).unwrap();
    }
}

/// Frames of the host come to the agent, which may find fault with them.
fn answer(pair: &mut Pair, frames: impl IntoIterator<Item = Bytes>) {
    for frame in frames {
        let _ = pair.front.handle_frame(frame);
    }
}

fn from_host(pair: &mut Pair) -> Vec<Bytes> {
    std::iter::from_fn(|| pair.host.poll_transmit()).collect()
}

fn events(pair: &mut Pair, wanted: fn(&FrontEvent) -> bool) -> usize {
    let all = std::iter::from_fn(|| pair.front.poll_event());
    all.filter(wanted).count()
}

fn read(pair: &mut Pair) {
    let read = pair.front.read(pair.now, at(0), Extent::Single);
    read.unwrap();
}

fn a_write_is_done_before_it_is_acknowledged() -> bool {
    let mut pair = Pair::live();
    pair.write(0, 1);
    idle_device(&mut pair);
    pair.host.raise(0, Vector::Msi(0));
    let frames = from_host(&mut pair);
    answer(&mut pair, frames);
    pair.front.acknowledged() == 0
}

fn an_accept_acknowledges_nothing() -> bool {
    let mut pair = Pair::live();
    read(&mut pair);
    let frames = pair.sent();
    pair.deliver(frames);
    pair.cut();
    let accept = pair.dial().into_iter().take(1);
    answer(&mut pair, accept);
    pair.front.acknowledged() == 0
}

fn lost_answers_come_again() -> bool {
    let mut pair = Pair::live();
    for _ in 0..3 {
        read(&mut pair);
        let frames = pair.sent();
        pair.deliver(frames);
    }
    pair.cut();
    let frames = pair.dial();
    answer(&mut pair, frames);
    let good = |event: &FrontEvent| matches!(event, FrontEvent::Completed { outcome: Ok(_), .. });
    events(&mut pair, good) == 3
}

fn a_lost_acknowledgement_comes_again() -> bool {
    let mut pair = Pair::live();
    pair.write(0, 1);
    let frames = pair.sent();
    pair.deliver(frames);
    pair.cut();
    let frames = pair.dial();
    answer(&mut pair, frames);
    pair.front.acknowledged() == 1
}

fn what_waits_is_done_without_a_path() -> bool {
    let mut pair = Pair::live();
    pair.write(0, 1);
    idle_device(&mut pair);
    pair.cut();
    pair.work();
    pair.log == [(0, 1)]
}

/// Whether there was credit for a write.
fn post(pair: &mut Pair) -> bool {
    let (at, extent) = (at(0), Extent::Single);
    let written = pair
        .front
        .write(pair.now, at, extent, Posting::Posted, &[0; 4]);
    written.is_ok()
}

fn a_slow_device_holds_its_credit() -> bool {
    let mut pair = Pair::live();
    let mut taken = 0;
    for _ in 0..3 {
        while post(&mut pair) {
            taken += 1;
        }
        idle_device(&mut pair);
        let frames = from_host(&mut pair);
        answer(&mut pair, frames);
    }
    taken <= POSTED_WINDOW
}

fn nothing_is_done_after_the_end() -> bool {
    let mut pair = Pair::live();
    pair.write(0, 1);
    idle_device(&mut pair);
    let code = CloseCode::Superseded;
    pair.host.close(code, "fenced".to_owned());
    pair.host.next_work().is_none()
}

fn a_dial_does_not_move_the_deadline() -> bool {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();
    pair.cut();
    pair.now += DEADLINE / 2;
    pair.front.dial(pair.now);
    pair.now += DEADLINE / 2;
    pair.front.handle_timeout(pair.now);
    pair.front.state() == FrontState::Contained
}

fn the_rest_of_a_batch_keeps_its_deadline() -> bool {
    let mut pair = Pair::live();
    pair.write(0, 1);
    read(&mut pair);
    idle_device(&mut pair);
    pair.host.next_work();
    pair.host.complete(Status::Ok, &[]);
    pair.host.raise(0, Vector::Msi(0));
    let frames = from_host(&mut pair);
    answer(&mut pair, frames);
    pair.now += DEADLINE;
    pair.front.handle_timeout(pair.now);
    pair.front.state() == FrontState::Contained
}

fn what_was_refused_is_taken_the_second_time() -> bool {
    let mut pair = Pair::live();
    pair.host.set_beat(DEADLINE.as_secs() * 1_000);
    pair.write(0, 1);
    let frames = pair.sent();
    let refusals = pair.deliver(frames);
    answer(&mut pair, refusals);
    let frames = pair.sent();
    pair.deliver(frames);
    pair.log == [(0, 1)]
}

fn a_repeated_dma_write_is_dropped() -> bool {
    let mut pair = Pair::live();
    pair.host.dma_write(0, 0x1000, Bytes::from_static(b"data"));
    let frames = from_host(&mut pair);
    answer(&mut pair, [frames.clone(), frames].concat());
    let writes = |event: &FrontEvent| matches!(event, FrontEvent::DmaWrite(_));
    events(&mut pair, writes) == 1
}

fn a_farewell_on_the_old_path_is_ignored() -> bool {
    let mut pair = Pair::live();
    pair.front.handle_lost("cut");
    pair.host.leave_path(AttachNumber(2));
    let farewell = from_host(&mut pair);
    let frames = pair.dial();
    answer(&mut pair, frames);
    answer(&mut pair, farewell);
    pair.front.state() == FrontState::Live
}
