//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles with each attempt, and takes away up to a half at random so that many hosts do not come back at once.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next delay; `random` is any number.
    pub(super) fn next_delay(&mut self, random: u32) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        full.mul_f64(1.0 - f64::from(random) / f64::from(u32::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let mut backoff = Backoff::default();

        let delays: Vec<u128> = (0..8).map(|_| backoff.next_delay(0).as_millis()).collect();

        assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    }

    #[test]
    fn jitter_takes_away_at_most_a_half() {
        for random in [0, 1, u32::MAX / 2, u32::MAX] {
            let delay = Backoff::default().next_delay(random);
            assert!(delay >= FIRST / 2 && delay <= FIRST, "{delay:?}");
        }
    }
}
