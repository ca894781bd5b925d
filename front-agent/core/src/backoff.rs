//! How long to wait before the next attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// Doubles with each attempt, and takes away up to a half at random so that many agents do not come back at once.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        // Without random numbers agents may come back together: no reason to give up.
        self.delay_with(getrandom::u32().unwrap_or(0))
    }

    /// `random` is any number.
    fn delay_with(&mut self, random: u32) -> Duration {
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

        let delays: Vec<u128> = (0..7).map(|_| backoff.delay_with(0).as_millis()).collect();

        assert_eq!(delays, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn jitter_takes_away_at_most_a_half() {
        for random in [0, 1, u32::MAX / 2, u32::MAX] {
            let delay = Backoff::default().delay_with(random);
            assert!(delay >= FIRST / 2 && delay <= FIRST, "{delay:?}");
        }
    }
}
