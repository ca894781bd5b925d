//! Bounded waiting: what the guest gets when nothing comes back.

use std::time::{Duration, Instant};

use super::pair::{DEADLINE, Pair, at, config, failed};
use crate::{
    access::{Extent, Posting},
    front::{Failure, Front, FrontEvent, FrontState, Refused},
};

#[test]
fn a_read_past_its_deadline_is_contained_and_the_next_one_refused() {
    let mut pair = Pair::live();
    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.sent();
    let deadline = pair.now + DEADLINE;

    pair.front.handle_timeout(deadline);

    assert_eq!(
        pair.front.poll_event(),
        Some(failed(read, Failure::Contained))
    );
    assert!(matches!(
        pair.front.poll_event(),
        Some(FrontEvent::Contained(reason)) if reason.contains("1000 ms")
    ));
    assert_eq!(
        pair.front.read(deadline, at(0), Extent::Single),
        Err(Refused::NotLive)
    );
    assert_eq!(pair.front.poll_timeout(), None);
}

#[test]
fn an_early_timer_contains_nothing() {
    let mut pair = Pair::live();
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.sent();

    pair.front
        .handle_timeout(pair.now + DEADLINE - Duration::from_millis(1));

    assert_eq!(pair.front.state(), FrontState::Live);
}

#[test]
fn an_unacknowledged_posted_write_is_contained_too() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();

    pair.front.handle_timeout(pair.now + DEADLINE);

    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn an_idle_session_has_no_deadline() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.settle();

    assert_eq!(pair.front.poll_timeout(), None);
}

#[test]
fn a_host_that_never_accepts_is_contained() {
    let now = Instant::now();
    let mut front = Front::new(config(), now);
    front.poll_transmit(now);
    assert_eq!(
        front.write(now, at(0), Extent::Single, Posting::Posted, &[0; 4]),
        Err(Refused::NoCredit)
    );

    front.handle_timeout(now + DEADLINE);

    assert_eq!(front.state(), FrontState::Contained);
}

#[test]
fn what_comes_late_is_not_shown() {
    let mut pair = Pair::live();
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    let frames = pair.sent();
    let answers = pair.deliver(frames);
    pair.front.handle_timeout(pair.now + DEADLINE);
    while pair.front.poll_event().is_some() {}

    for answer in answers {
        pair.front.handle_frame(answer).unwrap();
    }

    assert_eq!(pair.front.poll_event(), None);
}

#[test]
fn a_session_that_is_given_up_fails_what_waits_at_once() {
    let mut pair = Pair::live();
    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();

    pair.front.abandon("no broker can be reached");

    assert_eq!(
        pair.front.poll_event(),
        Some(failed(read, Failure::Contained))
    );
    assert_eq!(
        pair.front.poll_event(),
        Some(FrontEvent::Contained("no broker can be reached".to_owned()))
    );
}

#[test]
fn a_wait_for_credit_counts_against_the_deadline() {
    let mut pair = Pair::live();
    while pair
        .front
        .write(pair.now, at(0), Extent::Single, Posting::NonPosted, &[0; 4])
        .is_ok()
    {}
    let began = pair.now;
    pair.now += DEADLINE * 3 / 4;
    pair.settle();

    let read = pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.front.answer_by(began + DEADLINE);
    pair.sent();

    // A quarter of the deadline is left.
    assert_eq!(pair.front.poll_timeout(), Some(began + DEADLINE));
    pair.front.handle_timeout(began + DEADLINE);
    assert_eq!(
        pair.front.poll_event(),
        Some(failed(read, Failure::Contained))
    );
}

#[test]
fn an_earlier_deadline_rings_before_that_of_an_older_flight() {
    let mut pair = Pair::live();
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.sent();
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    let until = pair.now + DEADLINE / 8;
    pair.front.answer_by(until);
    pair.sent();

    assert_eq!(pair.front.poll_timeout(), Some(until));
    // A later batch has all of its time.
    pair.now += DEADLINE / 16;
    pair.front.read(pair.now, at(0), Extent::Single).unwrap();
    pair.sent();
    assert_eq!(pair.front.poll_timeout(), Some(until));
}

#[test]
fn an_access_that_never_gets_credit_is_contained() {
    let mut pair = Pair::live();

    pair.front.handle_starved();

    assert_eq!(pair.front.state(), FrontState::Contained);
    assert!(matches!(
        pair.front.poll_event(),
        Some(FrontEvent::Contained(reason)) if reason.contains("no room at the host within 1000 ms")
    ));
}
