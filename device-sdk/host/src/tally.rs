//! What a session did at its device in one turn.

use potemkin_session::access::{Access, Operation, Posting};

use crate::bus::Traffic;
use crate::guarded::Outcome;

/// What a turn did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) reads: u64,
    pub(crate) posted_writes: u64,
    pub(crate) non_posted_writes: u64,
    pub(crate) resets: u64,
    pub(crate) bus_master_offs: u64,
    /// Reads of guest memory that are over.
    pub(crate) dma_reads: u64,
    pub(crate) traffic: Traffic,
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
        let callbacks = self.resets + self.bus_master_offs + self.dma_reads;
        self.reads + self.posted_writes + self.non_posted_writes + callbacks == 0
            && self.traffic == Traffic::default()
    }

    pub(crate) fn access(&mut self, access: &Access, outcome: Outcome) {
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
