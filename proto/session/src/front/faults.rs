//! What only planted faults do.

use super::*;

impl Front {
    /// Planted: a new path, a new deadline.
    pub(super) fn renew_deadlines(&mut self, deadline: Instant) {
        self.flights.renew(deadline);
        self.batch_until = self.batch_until.map(|_| deadline);
    }

    /// Planted: a new path, an empty batch.
    pub(super) fn forget_collected(&mut self) {
        self.batch = BatchWriter::default();
        self.next_sequence = self.batch_first;
        self.batch_until = None;
    }

    /// Planted: forgets what the host lacks, and goes on with its numbers.
    pub(super) fn renumber(&mut self, next_forward: u64) {
        self.flights.clear();
        self.batch_first = next_forward;
        self.next_sequence = next_forward + self.batch.len() as u64;
    }
}
