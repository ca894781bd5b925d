//! How registers are treated: which range an access falls into, and what that means for it.

use std::ops::Range;

use super::Descriptor;
use crate::{BarIndex, Space};

/// Whether a write waits for its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WritePolicy {
    /// The guest goes on at once.
    Posted,
    /// The guest waits until the device has taken it.
    NonPosted,
}

/// How a range of registers is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RegisterRange {
    /// Which BAR.
    pub bar: BarIndex,
    /// First byte.
    pub offset: u64,
    /// Bytes, at least 1; the range ends within the BAR.
    pub length: u64,
    /// Overrides the default for the BAR's kind.
    pub writes: Option<WritePolicy>,
    /// Adjacent writes may be merged into one access.
    pub combining: bool,
    /// A write here is worth sending at once.
    pub doorbell: bool,
    /// Contents never change: a read may be answered from a copy.
    pub constant: bool,
}

impl RegisterRange {
    /// A range with the defaults.
    #[must_use]
    pub const fn new(bar: BarIndex, offset: u64, length: u64) -> Self {
        Self {
            bar,
            offset,
            length,
            writes: None,
            combining: false,
            doorbell: false,
            constant: false,
        }
    }

    /// The same range with this write policy.
    #[must_use]
    pub const fn writes(mut self, policy: WritePolicy) -> Self {
        self.writes = Some(policy);
        self
    }

    /// The same range, whose writes may be merged.
    #[must_use]
    pub const fn combining(mut self) -> Self {
        self.combining = true;
        self
    }

    /// The same range, whose writes are worth sending at once.
    #[must_use]
    pub const fn doorbell(mut self) -> Self {
        self.doorbell = true;
        self
    }

    /// The same range, whose contents never change.
    #[must_use]
    pub const fn constant(mut self) -> Self {
        self.constant = true;
        self
    }

    /// Whether `length` bytes at `offset` lie in it.
    #[must_use]
    pub const fn contains(&self, offset: u64, length: u64) -> bool {
        if offset < self.offset {
            return false;
        }
        let start = offset - self.offset;
        start < self.length && length <= self.length - start
    }
}

/// Ranges, in order of BAR and offset, none overlapping another.
#[derive(PartialEq, Eq)]
pub(super) struct Ranges {
    all: Vec<RegisterRange>,
    /// Which of them belong to each BAR.
    by_bar: [Range<usize>; BarIndex::COUNT],
}

impl Ranges {
    /// `all` must be sorted by BAR and offset.
    pub(super) fn from_sorted(all: Vec<RegisterRange>) -> Self {
        let mut by_bar: [Range<usize>; BarIndex::COUNT] = Default::default();
        for bar in BarIndex::all() {
            let start = all.partition_point(|range| range.bar < bar);
            let end = all.partition_point(|range| range.bar <= bar);
            by_bar[bar.as_usize()] = start..end;
        }
        Self { all, by_bar }
    }

    fn at(&self, bar: BarIndex, offset: u64) -> Option<&RegisterRange> {
        self.touched(bar, offset, 1).first()
    }

    /// Those that have a byte in common with `length` bytes at `offset`.
    fn touched(&self, bar: BarIndex, offset: u64, length: u64) -> &[RegisterRange] {
        let ranges = &self.all[self.by_bar[bar.as_usize()].clone()];
        let start = ranges.partition_point(|range| range.offset + range.length <= offset);
        let end = offset.saturating_add(length);
        let count = ranges[start..].partition_point(|range| range.offset < end);
        &ranges[start..start + count]
    }
}

impl Descriptor {
    /// How register ranges are treated, in order of BAR and offset.
    #[must_use]
    pub fn ranges(&self) -> &[RegisterRange] {
        &self.inner.ranges.all
    }

    /// The range that the byte at `offset` of a BAR falls into.
    #[must_use]
    pub fn range_at(&self, bar: BarIndex, offset: u64) -> Option<&RegisterRange> {
        self.inner.ranges.at(bar, offset)
    }

    /// Whether a write of `length` bytes at `offset` of `space` waits: it does when any of its bytes does.
    ///
    /// Where the descriptor does not say otherwise: memory writes are posted; port and configuration writes are not (PCI 3.0 section 3.2.5).
    #[must_use]
    pub fn write_policy(&self, space: Space, offset: u64, length: u64) -> WritePolicy {
        match space {
            Space::Config => self.inner.config.writes.unwrap_or(WritePolicy::NonPosted),
            Space::Rom => WritePolicy::Posted,
            Space::Bar(bar) => self.bar_policy(bar, offset, length),
        }
    }

    fn bar_policy(&self, bar: BarIndex, offset: u64, length: u64) -> WritePolicy {
        let default = self.default_policy(bar);
        let ranges = self.inner.ranges.touched(bar, offset, length);
        let of = |range: &RegisterRange| range.writes.unwrap_or(default);
        match ranges {
            [only] if only.contains(offset, length) => of(only),
            _ if ranges.iter().all(|range| of(range) == WritePolicy::Posted) => default,
            _ => WritePolicy::NonPosted,
        }
    }

    /// Whether a write of `length` bytes at `offset` of `space` is worth sending at once: any of its bytes is.
    #[must_use]
    pub fn is_doorbell(&self, space: Space, offset: u64, length: u64) -> bool {
        match space {
            Space::Bar(bar) => {
                let mut ranges = self.inner.ranges.touched(bar, offset, length).iter();
                ranges.any(|range| range.doorbell)
            }
            Space::Rom | Space::Config => false,
        }
    }

    /// Whether a write of `length` bytes may be merged with adjacent ones: it lies in one combining range.
    #[must_use]
    pub fn is_combining(&self, space: Space, offset: u64, length: u64) -> bool {
        self.range_of(space, offset)
            .is_some_and(|range| range.combining && range.contains(offset, length))
    }

    /// Whether a read of `length` bytes may be answered from a copy: it lies in one constant range, or in the ROM.
    #[must_use]
    pub fn is_constant(&self, space: Space, offset: u64, length: u64) -> bool {
        match space {
            Space::Rom => true,
            _ => self
                .range_of(space, offset)
                .is_some_and(|range| range.constant && range.contains(offset, length)),
        }
    }

    fn range_of(&self, space: Space, offset: u64) -> Option<&RegisterRange> {
        match space {
            Space::Bar(bar) => self.range_at(bar, offset),
            Space::Rom | Space::Config => None,
        }
    }

    fn default_policy(&self, bar: BarIndex) -> WritePolicy {
        match self.region(bar) {
            Some(region) if region.memory => WritePolicy::Posted,
            _ => WritePolicy::NonPosted,
        }
    }
}
