//! Credits: what one side may send before the other has made room again.
//!
//! Limits are cumulative totals since the session began, as QUIC's MAX_DATA: a limit that is repeated or comes late does no harm.

/// Total cost that a session's host reserves for posted writes, in credits.
pub const POSTED_WINDOW: u64 = 16_384;
/// Total cost that a session's host reserves for reads and non-posted writes, in credits.
pub const NON_POSTED_WINDOW: u64 = 1_024;

/// Total cost that a session's agent reserves for DMA writes, in credits.
pub const DMA_WRITE_WINDOW: u64 = 8_192;
/// Total cost of the DMA reads that may be unanswered, in credits: the host has reserved the room for the answers.
pub const DMA_READ_WINDOW: u64 = 8_192;
/// Message-signalled interrupts that may be unacknowledged. Past it they coalesce at the host.
pub const MESSAGE_WINDOW: u32 = 256;

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
}

impl Grant {
    /// A class with `window` credits of reserved room.
    pub const fn new(window: u64) -> Self {
        Self {
            window,
            received: 0,
            freed: 0,
        }
    }

    /// The limit to tell the sender.
    pub const fn limit(&self) -> u64 {
        self.freed + self.window
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
}
