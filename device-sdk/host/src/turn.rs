//! One turn of a session at its device: a bounded number of callbacks, and what the device started in them.

use bytes::Bytes;
use potemkin_sdk::ResetKind;
use potemkin_sdk::hosting::Outbox;
use potemkin_session::access::{Access, DmaError, Status};
use potemkin_session::host::{Host, Work};

use crate::bus;
use crate::guarded::Guarded;
use crate::tally::Tally;

/// Callbacks that a session may cause before others have their turn. Long enough that the turn itself costs nothing, short
/// enough that a flood of one session delays the others by less than a round trip.
const TURN_MAX: usize = 256;

/// Executes what the session has received, in order, and tells the device when that was all. What the device started meanwhile, in callbacks or
/// on threads of its own, goes to the core.
pub(crate) fn take_turn(core: &mut Host, device: &mut Guarded, outbox: &mut Outbox) -> Tally {
    let mut turn = Turn {
        core,
        device,
        outbox,
        tally: Tally {
            more: true,
            ..Tally::default()
        },
    };
    turn.take();
    turn.tally
}

struct Turn<'a> {
    core: &'a mut Host,
    device: &'a mut Guarded,
    outbox: &'a mut Outbox,
    tally: Tally,
}

impl Turn<'_> {
    fn take(&mut self) {
        self.pass_on();
        for _ in 0..TURN_MAX {
            let work = self.core.next_work();
            // Also when there is no work: what the guest does to its memory is none for the device.
            self.outbox.set_generations(bus::generations(self.core));
            let Some(work) = work else {
                self.tally.more = false;
                break;
            };
            self.execute(work);
        }
        self.offer_room();
        if !self.tally.more && !self.tally.is_empty() {
            self.device.idle();
            self.pass_on();
        }
        self.tally.device_failed = self.device.failed().is_some();
    }

    /// What the device starts in the callback goes to the core before the answer does.
    fn execute(&mut self, work: Work) {
        match work {
            Work::Access(access) => return self.access(&access),
            Work::Reset => self.reset(),
            Work::BusMasterOff => {
                self.tally.bus_master_offs += 1;
                self.device.bus_master_off();
            }
            Work::DmaRead { tag, outcome } => self.dma_read_done(tag, outcome),
            Work::DmaWriteFailed(error) => {
                self.tally.traffic.failure(error);
                self.device.dma_write_failed(bus::told(error));
            }
        }
        self.pass_on();
        self.core.complete(Status::Ok, &[]);
    }

    fn access(&mut self, access: &Access) {
        let outcome = self.device.execute(access);
        self.tally.access(access, outcome);
        self.pass_on();
        self.core
            .complete(Status::from(outcome), self.device.answer());
    }

    fn reset(&mut self) {
        self.tally.resets += 1;
        self.core.set_intx(false);
        self.outbox.close();
        self.device.reset(ResetKind::Function);
        self.outbox.open(bus::generations(self.core));
        // What the core still has of before counts.
        self.outbox.set_under_way(self.core.dma_backlog());
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<Bytes, DmaError>) {
        self.tally.dma_reads += 1;
        match &outcome {
            Ok(data) => self.tally.traffic.read_bytes += data.len() as u64,
            Err(error) => self.tally.traffic.failure(*error),
        }
        let outcome = outcome.as_deref().map_err(|error| bus::told(*error));
        self.device.dma_read_done(tag, outcome);
    }

    /// Tells the device that waits for room when there is some.
    fn offer_room(&mut self) {
        self.outbox.set_under_way(self.core.dma_backlog());
        if self.outbox.take_ready() {
            self.device.dma_ready();
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        bus::pass_on(self.core, self.outbox, &mut self.tally.traffic);
    }
}

#[cfg(test)]
#[path = "turn_tests.rs"]
mod tests;
