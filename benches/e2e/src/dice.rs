//! Random bytes that a seed brings back (SplitMix64).
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::time::{SystemTime, UNIX_EPOCH};

/// What one peer, or one round, does at random. The same seed, kind and number give the same.
#[derive(Debug)]
pub struct Dice {
    /// The peer's number in its crowd.
    pub number: u64,
    state: u64,
}

impl Dice {
    /// The dice of one.
    #[must_use]
    pub fn new(seed: u64, kind: &str, number: u64) -> Self {
        let mixed = kind.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let state = mixed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d);
        Self { number, state }
    }

    /// One of these, in turn from peer to peer, so that a crowd has them all.
    #[must_use]
    pub fn in_turn<'a, T>(&self, of: &'a [T]) -> &'a T {
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
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        let span = u64::try_from(most - least).unwrap() + 1;
        least + usize::try_from(self.next() % span).unwrap()
    }

    /// One of these.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.between(0, of.len() - 1)]
    }

    /// So many.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes())
            .flatten()
            .take(count)
            .collect()
    }
}

/// For a run that asks for no seed.
#[must_use]
pub fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() ^ u64::from(now.subsec_nanos()).rotate_left(32)
}
