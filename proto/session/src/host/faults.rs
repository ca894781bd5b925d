//! What only planted faults do.

use super::*;

impl Host {
    /// Planted: everything that came, up to the next access that is answered.
    pub(super) fn received_posted(&self) -> u64 {
        let answered = |access: &Access| !access.is_posted();
        let begun = match &self.current {
            Some(Current::Access(access)) if answered(access) => return self.applied,
            Some(Current::Access(_) | Current::Event) => 1,
            Some(Current::Extra) | None => 0,
        };
        let waits = |item: &&ForwardItem| matches!(item, ForwardItem::Access(a) if answered(a));
        let queued = self.queue.iter().take_while(|item| !waits(item)).count();
        self.applied + begun + queued as u64
    }

    /// Planted: makes room in the cache of completions.
    pub(super) fn evict(&mut self) {
        if let Some((batch, cost)) = self.sent.pop_front() {
            self.sent_bytes -= batch.bytes();
            self.non_posted.free(cost);
        }
    }

    /// Planted: executes what is to come again, or came before.
    pub(super) fn execute_again(&mut self, batch: Bytes) -> Result<(), Violation> {
        let next = self.next_forward;
        let taken = self.take_batch(batch);
        self.next_forward = next;
        taken.map(drop)
    }

    /// Planted: goes on behind a gap as if nothing had been in it.
    pub(super) fn skip_gap(&mut self, header: &FrameHeader, batch: Bytes) -> Result<(), Violation> {
        let missing = header.first_sequence.saturating_sub(self.next_forward);
        self.next_forward += missing;
        self.applied += missing;
        self.take_batch(batch).map(drop)
    }

    /// Planted: forgets what the agent lacks, and goes on with its numbers.
    pub(super) fn renumber(&mut self, next_reverse: u64) {
        let forgotten = self.sent.drain(..).map(|(_, cost)| cost).sum();
        self.non_posted.free(forgotten);
        self.sent_bytes = 0;
        self.batch_first = next_reverse;
    }
}
