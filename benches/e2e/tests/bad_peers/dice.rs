//! Random bytes that a seed brings back (SplitMix64).

use std::time::{SystemTime, UNIX_EPOCH};

/// What one peer does at random. The same seed, kind and number give the same peer.
pub(crate) struct Dice {
    /// The peer's number in its crowd.
    pub(crate) number: u64,
    state: u64,
}

impl Dice {
    pub(crate) fn new(seed: u64, kind: &str, number: u64) -> Self {
        let mixed = kind.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let state = mixed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d);
        Self { number, state }
    }

    /// One of these, in turn from peer to peer, so that a crowd has them all.
    pub(crate) fn in_turn<'a, T>(&self, of: &'a [T]) -> &'a T {
        let count = u64::try_from(of.len()).unwrap();
        &of[usize::try_from(self.number % count).unwrap()]
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        let span = u64::try_from(most - least).unwrap() + 1;
        least + usize::try_from(self.next() % span).unwrap()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes())
            .flatten()
            .take(count)
            .collect()
    }
}

/// For a run that asks for no seed.
pub(crate) fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() ^ u64::from(now.subsec_nanos()).rotate_left(32)
}
