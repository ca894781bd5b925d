//! What came lately, to tell a repeat from something else with its numbers.

use std::collections::VecDeque;

use potemkin_proto::v1::FrameHeader;

use crate::{
    planted::{self, Bug},
    violation::Violation,
};

/// Batches that are remembered. An agent repeats none that this host has, unless a path doubles frames or the agent has gone back in
/// time (a machine restored from a snapshot); what is older than this is not told apart, and breaks the path.
const BATCHES_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Received {
    batches: VecDeque<Batch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    /// Number of its first item.
    first: u64,
    digest: u32,
}

/// What a batch is, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The next one.
    New,
    /// One that came before, byte for byte.
    Repeated,
    /// Something between is missing, or it is too old to tell.
    Gap,
}

impl Received {
    /// `next`: number of the first item that has not come.
    ///
    /// # Errors
    /// When it has the number of one that was another.
    pub(super) fn arrival(
        &self,
        header: &FrameHeader,
        next: u64,
        batch: &[u8],
    ) -> Result<Arrival, Violation> {
        let first = header.first_sequence;
        if first == next {
            return Ok(Arrival::New);
        }
        let oldest = self.batches.front().map_or(next, |batch| batch.first);
        if first > next || first < oldest {
            return Ok(Arrival::Gap);
        }
        let digest = crc32c::crc32c(batch);
        if planted::is(Bug::ForgetDigest) || self.batches.contains(&Batch { first, digest }) {
            return Ok(Arrival::Repeated);
        }
        Err(Violation::Repeat { first })
    }

    /// A batch with items from `first` up to before `next` was taken.
    pub(super) fn note(&mut self, first: u64, next: u64, batch: &[u8]) {
        if first == next {
            // Nothing in it that could be repeated.
            return;
        }
        if self.batches.len() == BATCHES_MAX {
            self.batches.pop_front();
        }
        let digest = crc32c::crc32c(batch);
        self.batches.push_back(Batch { first, digest });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn header(first_sequence: u64) -> FrameHeader {
        FrameHeader {
            first_sequence,
            ..FrameHeader::default()
        }
    }

    fn received() -> Received {
        let mut received = Received::default();
        received.note(1, 4, b"abc");
        received.note(4, 6, b"de");
        received
    }

    #[test]
    fn numbers_tell_the_next_from_a_repeat_and_from_a_gap() {
        let received = received();
        let arrival = |first, batch| received.arrival(&header(first), 6, batch);
        assert_eq!(arrival(6, b"f"), Ok(Arrival::New));
        assert_eq!(arrival(7, b"g"), Ok(Arrival::Gap));
        assert_eq!(arrival(1, b"abc"), Ok(Arrival::Repeated));
        assert_eq!(arrival(4, b"de"), Ok(Arrival::Repeated));
    }

    #[test]
    fn other_contents_under_the_same_number_are_refused() {
        let received = received();
        for (first, batch) in [(1, &b"abx"[..]), (4, b"d"), (2, b"bc")] {
            assert_eq!(
                received.arrival(&header(first), 6, batch),
                Err(Violation::Repeat { first })
            );
        }
    }

    #[test]
    fn what_is_too_old_to_tell_is_a_gap() {
        let mut received = Received::default();
        for first in 1..=300 {
            received.note(first, first + 1, &first.to_le_bytes());
        }
        let arrival = |first: u64| received.arrival(&header(first), 301, &first.to_le_bytes());
        assert_eq!(arrival(44), Ok(Arrival::Gap));
        assert_eq!(arrival(45), Ok(Arrival::Repeated));
    }
}
