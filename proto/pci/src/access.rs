//! Where an access goes and how wide it is.

use std::fmt;

/// Number of base address registers in a type 0 header.
const BAR_COUNT: u8 = 6;

/// Index of a base address register: 0 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarIndex(u8);

impl BarIndex {
    /// How many there are.
    pub const COUNT: usize = BAR_COUNT as usize;
    /// BAR 0.
    pub const B0: Self = Self(0);
    /// BAR 1.
    pub const B1: Self = Self(1);
    /// BAR 2.
    pub const B2: Self = Self(2);
    /// BAR 3.
    pub const B3: Self = Self(3);
    /// BAR 4.
    pub const B4: Self = Self(4);
    /// BAR 5.
    pub const B5: Self = Self(5);

    /// The BAR with this index; `None` above 5.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < BAR_COUNT {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The index, 0 to 5.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The index, for use with an array of [`Self::COUNT`].
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }

    /// The one after it, which holds the upper half of a 64-bit BAR; `None` after 5.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// All of them, in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..BAR_COUNT).map(Self)
    }
}

impl fmt::Display for BarIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of BARs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BarSet(u8);

impl BarSet {
    /// No BAR.
    pub const EMPTY: Self = Self(0);

    /// Whether no BAR is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `bar` is in it.
    #[must_use]
    pub const fn contains(self, bar: BarIndex) -> bool {
        self.0 & (1 << bar.0) != 0
    }

    /// Adds `bar`.
    pub const fn insert(&mut self, bar: BarIndex) {
        self.0 |= 1 << bar.0;
    }

    /// Those in it, in order.
    pub fn iter(self) -> impl Iterator<Item = BarIndex> {
        BarIndex::all().filter(move |&bar| self.contains(bar))
    }
}

impl FromIterator<BarIndex> for BarSet {
    fn from_iter<I: IntoIterator<Item = BarIndex>>(bars: I) -> Self {
        let mut set = Self::EMPTY;
        for bar in bars {
            set.insert(bar);
        }
        set
    }
}

/// One of a function's address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Behind a base address register.
    Bar(BarIndex),
    /// The expansion ROM.
    Rom,
    /// Configuration space.
    Config,
}

impl Space {
    /// The number used on the wire and by VFIO region indices: 0 to 5 BARs, 6 the ROM, 7 configuration space.
    #[must_use]
    pub const fn to_code(self) -> u8 {
        match self {
            Self::Bar(bar) => bar.get(),
            Self::Rom => 6,
            Self::Config => 7,
        }
    }

    /// The inverse of [`Self::to_code`]; `None` above 7.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            6 => Some(Self::Rom),
            7 => Some(Self::Config),
            _ => match BarIndex::new(code) {
                Some(bar) => Some(Self::Bar(bar)),
                None => None,
            },
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bar(bar) => write!(f, "BAR {bar}"),
            Self::Rom => f.write_str("ROM"),
            Self::Config => f.write_str("config"),
        }
    }
}

/// Width of one element of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// A byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes.
    B8,
}

impl Width {
    /// Narrowest first.
    pub const ALL: [Self; 4] = [Self::B1, Self::B2, Self::B4, Self::B8];

    /// Bytes: 1, 2, 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.log2()
    }

    /// Log2 of the bytes: 0 to 3.
    #[must_use]
    pub const fn log2(self) -> u8 {
        match self {
            Self::B1 => 0,
            Self::B2 => 1,
            Self::B4 => 2,
            Self::B8 => 3,
        }
    }

    /// The width of so many bytes, if there is one.
    #[must_use]
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::B1),
            2 => Some(Self::B2),
            4 => Some(Self::B4),
            8 => Some(Self::B8),
            _ => None,
        }
    }

    /// The inverse of [`Self::log2`]; `None` above 3.
    #[must_use]
    pub const fn from_log2(log2: u8) -> Option<Self> {
        match log2 {
            0 => Some(Self::B1),
            1 => Some(Self::B2),
            2 => Some(Self::B4),
            3 => Some(Self::B8),
            _ => None,
        }
    }

    /// What a read of this width returns when nobody answers.
    #[must_use]
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bar_index_above_5_is_refused() {
        assert_eq!(BarIndex::new(5), Some(BarIndex::B5));
        assert_eq!(BarIndex::new(6), None);
        assert_eq!(BarIndex::new(255), None);
        assert_eq!(BarIndex::B5.next(), None);
        assert_eq!(BarIndex::B0.next(), Some(BarIndex::B1));
    }

    #[test]
    fn every_space_code_round_trips() {
        for code in 0..8 {
            assert_eq!(Space::from_code(code).unwrap().to_code(), code);
        }
        assert_eq!(Space::from_code(8), None);
        assert_eq!(Space::from_code(255), None);
    }

    #[test]
    fn every_width_round_trips_by_bytes_and_log2() {
        for width in Width::ALL {
            assert_eq!(Width::from_bytes(width.bytes()), Some(width));
            assert_eq!(Width::from_log2(width.log2()), Some(width));
        }
        for bytes in [0, 3, 5, 6, 7, 9, 16] {
            assert_eq!(Width::from_bytes(bytes), None);
        }
        assert_eq!(Width::from_log2(4), None);
    }

    #[test]
    fn all_ones_fills_exactly_the_width() {
        let ones = Width::ALL.map(Width::all_ones);
        assert_eq!(ones, [0xff, 0xffff, 0xffff_ffff, u64::MAX]);
    }

    #[test]
    fn a_bar_set_holds_what_was_inserted() {
        let set: BarSet = [BarIndex::B4, BarIndex::B1].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [BarIndex::B1, BarIndex::B4]);
        assert!(!set.contains(BarIndex::B0));
        assert!(BarSet::EMPTY.is_empty() && !set.is_empty());
    }
}
