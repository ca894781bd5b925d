//! When the next attempt at a path is due.

use std::time::{Duration, Instant};

/// Between two attempts while an access waits: an attempt that was begun while a link is down waits for a retransmission, up to a second after
/// the link is back, so that a new one is quicker.
const SHORT: Duration = Duration::from_millis(50);
/// The longest, when nothing waits.
const LONG: Duration = Duration::from_secs(1);

/// Attempts follow each other at a short distance while an access waits, else at one that doubles each time. Each distance is longer by up to
/// half of it, at random, so that many agents that lost the same broker do not come together.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the last attempt was begun; before the first, when one was wanted.
    last: Instant,
    begun: bool,
    /// The next distance when nothing waits.
    distance: Duration,
    /// 0 to 1.
    jitter: f64,
}

impl Pace {
    /// Nothing was tried yet. `random` is any number.
    pub(crate) fn new(now: Instant, random: u32) -> Self {
        Self {
            last: now,
            begun: false,
            distance: SHORT,
            jitter: share(random),
        }
    }

    /// When the next attempt is due. The first is at once, unless nothing waits: then it has time, and those of many agents are spread.
    pub(crate) fn due(&self, urgent: bool) -> Instant {
        let distance = match (self.begun, urgent) {
            (false, true) => Duration::ZERO,
            (false, false) => SHORT.mul_f64(self.jitter),
            (true, true) => SHORT.mul_f64(1.0 + self.jitter / 2.0),
            (true, false) => self.distance.mul_f64(1.0 + self.jitter / 2.0),
        };
        self.last + distance
    }

    /// An attempt was begun.
    pub(crate) fn begin(&mut self, now: Instant, urgent: bool, random: u32) {
        if self.begun && !urgent {
            self.distance = (self.distance * 2).min(LONG);
        }
        self.begun = true;
        self.last = now;
        self.jitter = share(random);
    }
}

fn share(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds from one attempt to the next.
    fn distances(pace: &mut Pace, mut now: Instant, urgent: bool, count: usize) -> Vec<u128> {
        let mut distances = Vec::new();
        for _ in 0..count {
            let due = pace.due(urgent);
            distances.push((due - now).as_millis());
            now = due;
            pace.begin(now, urgent, 0);
        }
        distances
    }

    #[test]
    fn while_an_access_waits_the_first_is_at_once_and_the_others_soon() {
        let now = Instant::now();
        let mut pace = Pace::new(now, u32::MAX);

        assert_eq!(distances(&mut pace, now, true, 4), [0, 50, 50, 50]);
    }

    #[test]
    fn when_nothing_waits_distances_double_up_to_a_second() {
        let now = Instant::now();
        let mut pace = Pace::new(now, 0);

        let distances = distances(&mut pace, now, false, 8);

        assert_eq!(distances, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn an_access_that_comes_brings_the_next_attempt_forward() {
        let now = Instant::now();
        let mut pace = Pace::new(now, 0);
        distances(&mut pace, now, false, 8);

        assert_eq!(pace.due(false) - pace.last, LONG);
        assert_eq!(pace.due(true) - pace.last, SHORT);
    }

    #[test]
    fn jitter_adds_up_to_a_half() {
        let now = Instant::now();
        let mut pace = Pace::new(now, u32::MAX);
        assert_eq!(pace.due(false) - now, SHORT, "spread");

        pace.begin(now, true, u32::MAX);

        assert_eq!(pace.due(true) - now, SHORT * 3 / 2);
        assert_eq!(pace.due(false) - now, SHORT * 3 / 2);
    }
}
