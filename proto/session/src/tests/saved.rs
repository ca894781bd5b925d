//! A front half that is saved and restored: nothing is lost, nothing is repeated.

use bytes::Bytes;
use proptest::prelude::*;

use super::pair::{DEADLINE, Pair, at, completed};
use crate::{
    access::{Extent, Vector},
    front::{Front, FrontEvent, FrontState, NotSaved, Revocation, SavedFront},
};

/// As another process has it: through text, and at the same time of the clock.
fn moved(pair: &mut Pair) {
    while pair.front.poll_event().is_some() {}
    let saved = pair.front.save(pair.now).unwrap();
    pair.front = restored(&saved, pair);
}

fn restored(saved: &SavedFront, pair: &Pair) -> Front {
    let text = serde_json::to_string(saved).unwrap();
    let again: SavedFront = serde_json::from_str(&text).unwrap();
    assert_eq!(again, *saved);
    let mut front = Front::restore(again, pair.now).unwrap();
    if !saved.contained {
        assert_eq!(front.save(pair.now).unwrap(), *saved);
    }
    front
}

#[test]
fn what_is_under_way_arrives_after_a_move() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();
    pair.write(4, 2);
    let read = pair.front.read(pair.now, at(8), Extent::Single).unwrap();
    let timeout = pair.front.poll_timeout();
    pair.cut();
    moved(&mut pair);
    assert_eq!(pair.front.state(), FrontState::Interrupted);
    assert!(pair.front.wants_path() && pair.front.is_urgent());
    assert!(timeout.is_some());

    let events = pair.reconnect();

    assert_eq!(pair.log, [(0, 1), (4, 2)]);
    assert_eq!(
        events,
        [FrontEvent::Resumed, completed(read, &[8, 9, 10, 11])]
    );
    assert_eq!(pair.front.poll_timeout(), None);
}

#[test]
fn deadlines_go_on() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.sent();
    let until = pair.now + DEADLINE;
    pair.now += DEADLINE / 2;
    pair.cut();
    moved(&mut pair);

    assert_eq!(pair.front.poll_timeout(), Some(until));
    pair.now = until + DEADLINE;
    moved(&mut pair);
    assert_eq!(pair.front.poll_timeout(), Some(until));
    pair.front.handle_timeout(pair.now);
    assert_eq!(pair.front.state(), FrontState::Contained);
    moved(&mut pair);
    assert_eq!(pair.front.state(), FrontState::Contained);
}

#[test]
fn what_moves_or_cannot_be_resumed_is_not_saved() {
    let mut pair = Pair::live();
    assert_eq!(pair.front.save(pair.now), Err(NotSaved::Moving));
    pair.front.handle_lost("cut");
    assert_eq!(pair.front.save(pair.now), Err(NotSaved::Moving));

    let mut old = Pair::live_with_version(1);
    assert!(!old.front.is_savable());
    assert_eq!(old.front.save(old.now), Err(NotSaved::NotResumable));
}

#[test]
fn a_saved_half_that_cannot_be_is_refused() {
    let mut pair = Pair::live();
    pair.write(0, 1);
    pair.front.read(pair.now, at(8), Extent::Single).unwrap();
    pair.cut();
    while pair.front.poll_event().is_some() {}
    let good = pair.front.save(pair.now).unwrap();
    let bad: [fn(&mut SavedFront); 13] = [
        |saved| saved.version = 1,
        |saved| saved.attach_number = u32::MAX,
        |saved| saved.next_sequence = 0,
        |saved| saved.next_sequence += 1,
        |saved| saved.acknowledged = 2,
        |saved| saved.acknowledged = u64::MAX,
        |saved| saved.flights.clear(),
        |saved| saved.flights[0].body = Bytes::from_static(b"\x0a\x01\x00"),
        |saved| saved.flights[0].header = vec![0xff],
        |saved| saved.outstanding[0].sequence = 7,
        |saved| saved.posted.used = u64::MAX,
        |saved| saved.dma.writes.freed = 1,
        |saved| saved.resetting = Some(9),
    ];
    for (index, change) in bad.iter().enumerate() {
        let mut saved = good.clone();
        change(&mut saved);
        assert!(Front::restore(saved, pair.now).is_err(), "{index}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(u8),
    Read,
    Reset,
    Revoke,
    /// The device does something.
    Dma,
    Raise,
    Intx(bool),
    /// All that is on its way arrives.
    Settle,
    /// What the agent sends arrives, and the answers are lost.
    Lose,
    /// Nothing arrives.
    Drop,
    /// The process changes, and dials.
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Write),
        3 => Just(Step::Read),
        1 => Just(Step::Reset),
        1 => Just(Step::Revoke),
        2 => Just(Step::Dma),
        2 => Just(Step::Raise),
        1 => any::<bool>().prop_map(Step::Intx),
        2 => Just(Step::Settle),
        2 => Just(Step::Lose),
        2 => Just(Step::Drop),
        2 => Just(Step::Move),
    ]
}

/// What both ends did, in order.
#[derive(Default)]
struct Ledger {
    written: Vec<(u64, u64)>,
    read: Vec<u64>,
    answered: Vec<u64>,
    resets: usize,
    sent: Vec<u64>,
    dma: Vec<u64>,
}

impl Ledger {
    fn take(&mut self, pair: &mut Pair, events: Vec<FrontEvent>) {
        for event in events {
            match event {
                FrontEvent::Completed { sequence, outcome } => {
                    outcome.unwrap();
                    self.answered.push(sequence);
                }
                FrontEvent::DmaWrite(write) => {
                    self.dma.push(write.address);
                    pair.front.dma_written(&write, Ok(()));
                }
                _ => {}
            }
        }
    }

    fn events(&mut self, pair: &mut Pair) {
        let events = std::iter::from_fn(|| pair.front.poll_event()).collect();
        self.take(pair, events);
    }

    fn run(&mut self, pair: &mut Pair, step: &Step) {
        match step {
            Step::Write(value) => {
                let offset = 4 * u64::from(value % 8);
                pair.write(offset, (*value).into());
                self.written.push((offset, (*value).into()));
            }
            Step::Read => {
                if let Ok(sequence) = pair.front.read(pair.now, at(8), Extent::Single) {
                    self.read.push(sequence);
                }
            }
            Step::Reset => {
                pair.front.reset(pair.now);
                self.resets += 1;
            }
            Step::Revoke => {
                pair.front.revoke(pair.now, Revocation::Unmapped);
            }
            Step::Dma => {
                let address = 0x1000 * (1 + self.sent.len() as u64);
                pair.host.dma_write(0, address, Bytes::from_static(b"data"));
                self.sent.push(address);
            }
            Step::Raise => pair.host.raise(0, Vector::Msix(3)),
            Step::Intx(level) => pair.host.set_intx(*level),
            Step::Settle => {
                let events = pair.settle();
                self.take(pair, events);
            }
            Step::Lose => {
                let frames = pair.sent();
                pair.deliver(frames);
            }
            Step::Drop => drop(pair.sent()),
            Step::Move => {
                self.events(pair);
                pair.cut();
                self.events(pair);
                let saved = pair.front.save(pair.now).unwrap();
                pair.front = restored(&saved, pair);
                let events = pair.reconnect();
                self.take(pair, events);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_move_at_any_point_loses_and_repeats_nothing(
        steps in proptest::collection::vec(step(), 0..60)
    ) {
        let mut pair = Pair::live();
        let mut ledger = Ledger::default();
        for step in &steps {
            // What was lost on a path comes on the next only.
            ledger.run(&mut pair, step);
            if matches!(step, Step::Lose | Step::Drop) {
                ledger.run(&mut pair, &Step::Move);
            }
        }
        ledger.run(&mut pair, &Step::Move);
        ledger.run(&mut pair, &Step::Settle);

        prop_assert_eq!(&pair.log, &ledger.written);
        prop_assert_eq!(&ledger.read, &ledger.answered);
        // A reset voids what began before.
        prop_assert!(ledger.dma.is_sorted_by(|one, next| one < next), "repeated: {:?}", ledger.dma);
        prop_assert!(ledger.resets > 0 || ledger.sent == ledger.dma);
        prop_assert!(pair.resets <= ledger.resets);
        prop_assert_eq!(pair.resets > 0, ledger.resets > 0);
        prop_assert_eq!(pair.front.acknowledged(), pair.front.last_sequence());
        prop_assert_eq!(pair.front.poll_timeout(), None);
    }
}
