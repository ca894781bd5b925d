//! Cuts a byte range into accesses that a PCI function understands.
//!
//! A guest's access is 1, 2, 4 or 8 bytes; a VMM may pass longer blocks, as its copy loops do. Those travel as one access with a
//! count; its elements are as wide as alignment and length allow.

use potemkin_pci::{Space, Width};
use potemkin_session::access::{Extent, Location, MAX_ACCESS_BYTES};

/// One access of a longer range: where it begins in the caller's buffer, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) at: Location,
    pub(crate) extent: Extent,
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        self.at.width.bytes() * self.extent.count()
    }
}

/// The accesses that cover `len` bytes from `offset`, in ascending order.
pub(crate) fn pieces(space: Space, offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = len - start;
        if left == 0 {
            return None;
        }
        let offset = offset + start as u64;
        let piece = next_piece(space, offset, start, left);
        start += piece.len();
        Some(piece)
    })
}

fn next_piece(space: Space, offset: u64, start: usize, left: usize) -> Piece {
    let single = Width::from_bytes(left);
    let width = single.unwrap_or_else(|| widest(offset, left));
    let count = (left.min(MAX_ACCESS_BYTES)) / width.bytes();
    let extent = match u16::try_from(count) {
        Ok(1) | Err(_) => Extent::Single,
        Ok(count) => Extent::Consecutive(count),
    };
    Piece {
        start,
        at: Location {
            space,
            offset,
            width,
        },
        extent,
    }
}

/// The widest element that is aligned at `offset` and fits in `left` bytes.
fn widest(offset: u64, left: usize) -> Width {
    [Width::B8, Width::B4, Width::B2]
        .into_iter()
        .find(|width| width.bytes() <= left && offset.is_multiple_of(width.bytes() as u64))
        .unwrap_or(Width::B1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use potemkin_pci::BarIndex;
    use proptest::prelude::*;

    use super::*;

    fn bar0() -> Space {
        Space::Bar(BarIndex::new(0).unwrap())
    }

    #[test]
    fn a_dword_is_one_access_even_unaligned() {
        let all: Vec<_> = pieces(bar0(), 3, 4).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].at.width, Width::B4);
        assert_eq!(all[0].extent, Extent::Single);
    }

    #[test]
    fn a_page_is_one_access_of_quadwords() {
        let all: Vec<_> = pieces(bar0(), 0x1000, 4_096).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].extent, Extent::Consecutive(512));
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_in_order(offset in 0_u64..64, len in 1_usize..10_000) {
            let mut next = 0;
            for piece in pieces(bar0(), offset, len) {
                prop_assert_eq!(piece.start, next);
                prop_assert_eq!(piece.at.offset, offset + next as u64);
                prop_assert!(piece.len() <= MAX_ACCESS_BYTES);
                next += piece.len();
            }
            prop_assert_eq!(next, len);
        }
    }
}
