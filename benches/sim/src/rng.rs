//! Random numbers of a seed: the same on every machine, and fast.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, and any seed is a good one.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Self(seed);
        // Seeds are counted up: one step takes neighbours apart.
        let first = rng.next();
        Self(first)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A stream of its own, so that what one part draws does not change what another draws.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// `0..bound`; 0 for 0. The bias is below 2^-32 for the small bounds used here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// `least..=most`.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True `per_mille` times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap_or(0)]
    }

    /// Small numbers often, great ones seldom: each power of two is equally likely.
    pub(crate) fn skewed(&mut self, most: u64) -> u64 {
        let bits = self.within(0, u64::from(most.ilog2()));
        self.within(1, (1 << (bits + 1)) - 1).min(most)
    }
}

/// The finaliser of SplitMix64: each bit of the result depends on each bit of `x`.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A hash of bytes: of data whose corruption is to be seen, not of an adversary's.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state ^ u64::from_le_bytes(word));
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut rng = Rng::new(1);
        let drawn: Vec<_> = (0..1000).map(|_| rng.within(3, 5)).collect();
        assert!([3, 4, 5].iter().all(|n| drawn.contains(n)));
        assert!(drawn.iter().all(|n| (3..=5).contains(n)));
        assert!((0..1000).all(|_| (1..=100).contains(&rng.skewed(100))));
    }

    #[test]
    fn neighbouring_seeds_draw_different_numbers() {
        assert_ne!(Rng::new(1).next(), Rng::new(2).next());
    }
}
