//! Credits: what one side may send before the other has made room again.
//!
//! Limits are cumulative totals since the session began, as QUIC's MAX_DATA: a limit that is repeated or comes late does no harm.

/// Total cost that a session's host reserves for posted writes, in credits.
pub const POSTED_WINDOW: u64 = 16_384;
/// Total cost that a session's host reserves for reads and non-posted writes, in credits.
pub const NON_POSTED_WINDOW: u64 = 1_024;

/// Total cost that a session's agent reserves for DMA writes, in credits.
pub const DMA_WRITE_WINDOW: u64 = 8_192;
/// What the agent adds to that, in credits, while an access waits for its completion: the VMM may carry out no DMA before it has that, and
/// the completion comes behind DMA writes.
pub const DMA_WRITE_LENT_MAX: u64 = 32 * DMA_WRITE_WINDOW;
/// Total cost of the DMA reads that may be unanswered, in credits: the host has reserved the room for the answers.
pub const DMA_READ_WINDOW: u64 = 8_192;
/// Message-signalled interrupts that may be unacknowledged. Past it they coalesce at the host.
pub const MESSAGE_WINDOW: u32 = 256;

/// More than a session ever comes to: totals below it can be added up.
const TOTAL_MAX: u64 = u64::MAX / 4;

/// What an item with this many data bytes costs.
pub const fn cost(data_bytes: usize) -> u64 {
    1 + data_bytes as u64 / 64
}

/// The sender's side of one class.
#[derive(Debug, Default, Clone, Copy)]
pub struct Allowance {
    used: u64,
    limit: u64,
}

impl Allowance {
    /// Whether the limit allows `cost` more.
    #[must_use]
    pub fn fits(&self, cost: u64) -> bool {
        self.used + cost <= self.limit
    }

    /// Takes `cost` if the limit allows it.
    #[must_use]
    pub fn take(&mut self, cost: u64) -> bool {
        let fits = self.fits(cost);
        if fits {
            self.used += cost;
        }
        fits
    }

    /// Used and limit, for [`Self::restore`].
    pub(crate) fn parts(&self) -> (u64, u64) {
        (self.used, self.limit)
    }

    /// None when more was used than allowed.
    pub(crate) fn restore(used: u64, limit: u64) -> Option<Self> {
        (used <= limit && limit <= TOTAL_MAX).then_some(Self { used, limit })
    }

    /// The peer's news; an older, lower limit says nothing.
    pub fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// The receiver's side of one class.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    window: u64,
    received: u64,
    freed: u64,
    /// The limit that was lent, as a total.
    lent: u64,
}

impl Grant {
    /// A class with `window` credits of reserved room.
    pub const fn new(window: u64) -> Self {
        Self {
            window,
            received: 0,
            freed: 0,
            lent: 0,
        }
    }

    /// Received, freed and lent, for [`Self::restore`].
    pub(crate) fn parts(&self) -> (u64, u64, u64) {
        (self.received, self.freed, self.lent)
    }

    /// None when these cannot be a class's with that window.
    pub(crate) fn restore(window: u64, (received, freed, lent): (u64, u64, u64)) -> Option<Self> {
        let grant = Self {
            window,
            received,
            freed,
            lent,
        };
        let sound = freed <= received && received <= TOTAL_MAX && lent <= TOTAL_MAX;
        (sound && received <= grant.limit()).then_some(grant)
    }

    /// The limit to tell the sender.
    pub fn limit(&self) -> u64 {
        self.lent.max(self.freed + self.window)
    }

    /// Gives the sender as much room again as is taken, at most `max`. It is paid back as what is taken is freed.
    pub fn lend(&mut self, max: u64) {
        let taken = self.received - self.freed;
        self.lent = self.limit().max(self.freed + self.window + taken.min(max));
    }

    /// Counts an item that came; `Err` has the total used when the sender had no credit for it.
    pub fn receive(&mut self, cost: u64) -> Result<(), u64> {
        let used = self.received + cost;
        if used > self.limit() {
            return Err(used);
        }
        self.received = used;
        Ok(())
    }

    /// The room of an item is free again.
    pub fn free(&mut self, cost: u64) {
        self.freed += cost;
        debug_assert!(self.freed <= self.received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_refuses_what_it_did_not_grant() {
        let mut grant = Grant::new(2);
        assert_eq!(grant.receive(1), Ok(()));
        assert_eq!(grant.receive(2), Err(3));
        assert_eq!(grant.receive(1), Ok(()));
        grant.free(1);
        assert_eq!(grant.limit(), 3);
        assert_eq!(grant.receive(1), Ok(()));
    }

    #[test]
    fn an_older_limit_takes_nothing_back() {
        let mut allowance = Allowance::default();
        allowance.raise(3);
        assert!(allowance.take(2));
        allowance.raise(1);
        assert!(allowance.take(1));
        assert!(!allowance.take(1));
    }

    #[test]
    fn what_was_lent_is_paid_back_by_what_is_freed() {
        let mut grant = Grant::new(4);
        assert_eq!(grant.receive(4), Ok(()));
        assert_eq!(grant.receive(1), Err(5));
        grant.lend(2);
        assert_eq!(grant.limit(), 6);
        assert_eq!(grant.receive(2), Ok(()));
        grant.lend(2);
        assert_eq!(grant.limit(), 6, "no more than that");
        grant.free(2);
        assert_eq!(grant.limit(), 6);
        grant.free(4);
        assert_eq!(grant.limit(), 10);
    }
}
