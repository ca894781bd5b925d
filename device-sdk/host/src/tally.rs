//! One turn of a session at its device: a bounded number of accesses, counted.

use potemkin_sdk::ResetKind;
use potemkin_session::access::{Access, Operation, Posting, Status};
use potemkin_session::host::{Host, Work};

use crate::guarded::{Guarded, Outcome};

/// Accesses that a session may execute before others have their turn. Long enough that the turn itself costs nothing, short
/// enough that a flood of one session delays the others by less than a round trip.
const TURN_MAX: usize = 256;

/// What a turn did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) reads: u64,
    pub(crate) posted_writes: u64,
    pub(crate) non_posted_writes: u64,
    pub(crate) resets: u64,
    pub(crate) refused: u64,
    pub(crate) out_of_bounds: u64,
    /// The turn was used up: more may be waiting.
    pub(crate) more: bool,
    /// The device has failed, in this turn or before.
    pub(crate) device_failed: bool,
}

impl Tally {
    /// Whether nothing was done.
    pub(crate) fn is_empty(&self) -> bool {
        self.reads + self.posted_writes + self.non_posted_writes + self.resets == 0
    }

    fn count(&mut self, access: &Access, outcome: Outcome) {
        *match &access.operation {
            Operation::Read => &mut self.reads,
            Operation::Write(Posting::Posted, _) => &mut self.posted_writes,
            Operation::Write(Posting::NonPosted, _) => &mut self.non_posted_writes,
        } += 1;
        match outcome {
            Outcome::Done | Outcome::Failed => {}
            Outcome::Refused => self.refused += 1,
            Outcome::OutOfBounds => self.out_of_bounds += 1,
        }
    }
}

/// Executes what the session has received, in order, and tells the device when that was all.
pub(crate) fn take_turn(core: &mut Host, device: &mut Guarded) -> Tally {
    let mut tally = Tally {
        more: true,
        ..Tally::default()
    };
    for _ in 0..TURN_MAX {
        let Some(work) = core.next_work() else {
            tally.more = false;
            break;
        };
        match work {
            Work::Access(access) => {
                let outcome = device.execute(&access);
                tally.count(&access, outcome);
                core.complete(Status::from(outcome), device.answer());
            }
            Work::Reset => {
                device.reset(ResetKind::Function);
                tally.resets += 1;
                core.complete(Status::Ok, &[]);
            }
        }
    }
    if !tally.more && !tally.is_empty() {
        device.idle();
    }
    tally.device_failed = device.failed().is_some();
    tally
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use potemkin_devices::Scratch;
    use potemkin_sdk::{BarIndex, Device, Space, Width};
    use potemkin_session::access::{Extent, Location};
    use potemkin_session::front::{Front, FrontConfig};
    use potemkin_session::host::Opening;
    use potemkin_session::ids::{AttachNumber, Epoch, Incarnation, Path, SessionId};

    use super::*;

    const INCARNATION: Incarnation = Incarnation::from_bytes([7; 16]);

    fn scratch() -> Guarded {
        let device = Scratch::new(64).unwrap();
        let descriptor = device.descriptor().clone();
        Guarded::new("scratch-0", Box::new(device), &descriptor)
    }

    /// Both ends of a session that the host has accepted.
    fn session() -> (Front, Host) {
        let config = FrontConfig {
            path: Path {
                session: SessionId::from_bytes([0xaa; 16]),
                epoch: Epoch(1),
                attach_number: AttachNumber(1),
            },
            host_incarnation: INCARNATION,
            deadline: Duration::from_secs(1),
        };
        let mut front = Front::new(config, Instant::now());
        let open = front.poll_transmit(Instant::now()).unwrap();
        let opening = Opening::decode(open).unwrap();
        let mut host = Host::accept(&opening, INCARNATION).unwrap();
        front.handle_frame(host.poll_transmit().unwrap()).unwrap();
        (front, host)
    }

    fn write(front: &mut Front) {
        let at = Location {
            space: Space::Bar(BarIndex::B0),
            offset: 0,
            width: Width::B4,
        };
        front
            .write(Instant::now(), at, Extent::Single, Posting::Posted, &[1; 4])
            .unwrap();
    }

    fn deliver(front: &mut Front, host: &mut Host) {
        front.push();
        while let Some(frame) = front.poll_transmit(Instant::now()) {
            host.handle_frame(frame).unwrap();
        }
    }

    #[test]
    fn flood_is_executed_turn_by_turn() {
        let (mut front, mut host) = session();
        let mut device = scratch();
        for _ in 0..TURN_MAX + 3 {
            write(&mut front);
        }
        deliver(&mut front, &mut host);

        let first = take_turn(&mut host, &mut device);
        let second = take_turn(&mut host, &mut device);
        let third = take_turn(&mut host, &mut device);

        assert_eq!((first.posted_writes, first.more), (TURN_MAX as u64, true));
        assert_eq!((second.posted_writes, second.more), (3, false));
        assert!(third.is_empty() && !third.more);
    }

    #[test]
    fn reset_is_counted_and_reaches_the_device_in_order() {
        let (mut front, mut host) = session();
        let mut device = scratch();
        write(&mut front);
        front.reset(Instant::now());
        deliver(&mut front, &mut host);

        let tally = take_turn(&mut host, &mut device);

        assert_eq!((tally.posted_writes, tally.resets), (1, 1));
        let counters = Location {
            space: Space::Bar(BarIndex::B2),
            offset: 4,
            width: Width::B4,
        };
        let read = Access {
            at: counters,
            extent: Extent::Single,
            operation: Operation::Read,
        };
        assert_eq!(device.execute(&read), Outcome::Done);
        assert_eq!(device.answer(), &[0; 4]);
    }
}
