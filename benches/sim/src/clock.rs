//! Time: the world's, and each actor's own.

use std::time::{Duration, Instant};

/// Microseconds of virtual time since the run began.
pub(crate) type Micros = u64;

/// One second.
pub(crate) const SECOND: Micros = 1_000_000;
/// One millisecond.
pub(crate) const MILLI: Micros = 1_000;

/// An actor's clock: runs a little fast or slow, and may jump forward (a machine that slept).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Parts per million by which it runs fast.
    drift: i64,
    /// What jumps have added.
    jumped: Micros,
}

impl Clock {
    pub(crate) fn new(drift: i64) -> Self {
        Self { drift, jumped: 0 }
    }

    /// What it shows at `now`.
    pub(crate) fn local(&self, now: Micros) -> Micros {
        let ran = i128::from(now) * i128::from(1_000_000 + self.drift) / 1_000_000;
        u64::try_from(ran).unwrap_or(0) + self.jumped
    }

    /// The first moment at which it shows at least `local`, or `now` if that is past.
    pub(crate) fn when(&self, local: Micros, now: Micros) -> Micros {
        let ran = i128::from(local.saturating_sub(self.jumped)) * 1_000_000;
        let rate = i128::from(1_000_000 + self.drift);
        // Rounded up, or the actor would be woken just too early, again and again.
        let at = u64::try_from((ran + rate - 1) / rate).unwrap_or(u64::MAX);
        at.max(now)
    }

    pub(crate) fn jump(&mut self, by: Micros) {
        self.jumped += by;
    }
}

/// Turns virtual time into what the session core takes. The origin is arbitrary: only differences count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin(Instant);

impl Origin {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn instant(self, local: Micros) -> Instant {
        self.0 + Duration::from_micros(local)
    }

    pub(crate) fn micros(self, instant: Instant) -> Micros {
        let since = instant.saturating_duration_since(self.0);
        u64::try_from(since.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_not_early_at_the_time_it_gives() {
        for drift in [-300, 0, 77, 300] {
            let mut clock = Clock::new(drift);
            clock.jump(12_345);
            for local in [20_000, 1_000_001, 999_999_999] {
                assert!(clock.local(clock.when(local, 0)) >= local);
            }
        }
    }
}
