//! Which bytes of a read the host must be asked for.

use std::ops::Range;

/// The bytes of a read that hold volatile bits: the shortest run that has them all. Usually empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Volatile {
    range: Range<usize>,
}

impl Volatile {
    pub(super) const NONE: Self = Self { range: 0..0 };

    /// Those among the first `length` of `masks`.
    pub(super) fn within(masks: &[u8], length: usize) -> Self {
        let masks = &masks[..length.min(masks.len())];
        let first = masks.iter().position(|&mask| mask != 0);
        let last = masks.iter().rposition(|&mask| mask != 0);
        match (first, last) {
            (Some(first), Some(last)) => Self {
                range: first..last + 1,
            },
            _ => Self::NONE,
        }
    }

    /// Whether the local answer is complete.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Where they are, relative to the read's first byte.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}
