//! Walks of capability lists in an image, whose bytes nobody has checked yet.
//!
//! Each position is visited at most once, so that a walk ends whatever the pointers say.

use super::{express, id, msix, power};
use crate::{
    bytes::{le16, le32},
    registers::{
        CAPABILITIES_POINTER, CONFIG_SIZE, EXTENDED_CONFIG_SIZE, HEADER_END, STATUS,
        STATUS_CAPABILITIES,
    },
};

/// Bytes between the header and the end of conventional configuration space.
pub(super) const AREA: usize = CONFIG_SIZE - HEADER_END;
/// Bytes of extended configuration space beyond the conventional one.
pub(super) const EXTENDED_AREA: usize = EXTENDED_CONFIG_SIZE - CONFIG_SIZE;

/// A capability found in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityRef {
    /// What it is.
    pub id: u8,
    /// Where it begins.
    pub offset: usize,
}

/// An extended capability found in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapabilityRef {
    /// What it is.
    pub id: u16,
    /// Which version of it.
    pub version: u8,
    /// Where it begins.
    pub offset: usize,
}

/// A capability list is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// A pointer is not a multiple of 4.
    #[error("capability pointer {pointer:#x} is not dword-aligned")]
    Misaligned {
        /// The pointer.
        pointer: usize,
    },
    /// A pointer leads into the header or past the end.
    #[error("capability pointer {pointer:#x} is outside of {min:#x} to {max:#x}")]
    OutOfBounds {
        /// The pointer.
        pointer: usize,
        /// Lowest allowed.
        min: usize,
        /// Highest allowed.
        max: usize,
    },
    /// A pointer leads back to a capability of the list.
    #[error("capability pointer {pointer:#x} makes a loop")]
    Loop {
        /// The pointer.
        pointer: usize,
    },
}

/// The capabilities of an image, in the order of their list. After an error there are no more.
///
/// None, when the status register says that there is no list or the image is shorter than 256 bytes.
pub fn capabilities(image: &[u8]) -> impl Iterator<Item = Result<CapabilityRef, WalkError>> + '_ {
    let has_list = le16(image, STATUS) & STATUS_CAPABILITIES != 0 && image.len() >= CONFIG_SIZE;
    let first = has_list.then(|| usize::from(image[CAPABILITIES_POINTER]));
    let mut walk = Walk::new(first.unwrap_or(0), HEADER_END, CONFIG_SIZE);
    std::iter::from_fn(move || {
        let offset = walk.step()?;
        Some(offset.map(|offset| {
            walk.next = usize::from(image[offset + 1]);
            CapabilityRef {
                id: image[offset],
                offset,
            }
        }))
    })
}

/// The extended capabilities of an image, in the order of their list. After an error there are no more.
///
/// None, when the image is shorter than 4,096 bytes or the first header is 0, which says so (PCIe 4.0 section 7.6.1).
pub fn extended_capabilities(
    image: &[u8],
) -> impl Iterator<Item = Result<ExtendedCapabilityRef, WalkError>> + '_ {
    let has_list = image.len() >= EXTENDED_CONFIG_SIZE && le32(image, CONFIG_SIZE) != 0;
    let first = if has_list { CONFIG_SIZE } else { 0 };
    let mut walk = Walk::new(first, CONFIG_SIZE, EXTENDED_CONFIG_SIZE);
    std::iter::from_fn(move || {
        let offset = walk.step()?;
        Some(offset.map(|offset| {
            let version_and_next = le16(image, offset + 2);
            walk.next = usize::from(version_and_next >> 4);
            ExtendedCapabilityRef {
                id: le16(image, offset),
                version: (version_and_next & 0xf).to_le_bytes()[0],
                offset,
            }
        }))
    })
}

/// Offset of the first capability with this id in a list that was validated before.
pub(crate) fn find(image: &[u8], id: u8) -> Option<usize> {
    capabilities(image)
        .flatten()
        .find(|capability| capability.id == id)
        .map(|capability| capability.offset)
}

/// Bytes that a capability takes at least, its two header bytes included. Of an id that is not known here: only those.
pub(crate) fn capability_length(image: &[u8], capability: CapabilityRef) -> usize {
    let offset = capability.offset;
    match capability.id {
        id::POWER_MANAGEMENT => power::LENGTH,
        id::MSI => super::MsiView::at(image, offset).length(),
        id::MSIX => msix::LENGTH,
        id::PCI_EXPRESS => express::express_length(image, offset),
        id::VENDOR_SPECIFIC => usize::from(image[offset + 2]).max(3),
        id::ADVANCED_FEATURES => 6,
        _ => 2,
    }
}

/// Where a walk stands.
struct Walk {
    /// The next pointer; 0 ends the list.
    next: usize,
    /// Lowest pointer allowed.
    min: usize,
    /// Just past the image.
    end: usize,
    /// One bit for each dword of 4 KiB.
    visited: [u64; EXTENDED_CONFIG_SIZE / 4 / 64],
}

impl Walk {
    fn new(next: usize, min: usize, end: usize) -> Self {
        Self {
            next,
            min,
            end,
            visited: [0; EXTENDED_CONFIG_SIZE / 4 / 64],
        }
    }

    /// Goes to the next capability, whose header is within the image and was not visited before.
    fn step(&mut self) -> Option<Result<usize, WalkError>> {
        let pointer = std::mem::take(&mut self.next);
        (pointer != 0).then(|| self.visit(pointer))
    }

    fn visit(&mut self, pointer: usize) -> Result<usize, WalkError> {
        if !pointer.is_multiple_of(4) {
            return Err(WalkError::Misaligned { pointer });
        }
        if pointer < self.min || pointer >= self.end {
            return Err(WalkError::OutOfBounds {
                pointer,
                min: self.min,
                max: self.end - 4,
            });
        }
        let (word, bit) = (pointer / 4 / 64, 1 << (pointer / 4 % 64));
        if self.visited[word] & bit != 0 {
            return Err(WalkError::Loop { pointer });
        }
        self.visited[word] |= bit;
        Ok(pointer)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// An image whose list begins at `first`, with (offset, id, next).
    fn image(first: u8, list: &[(usize, u8, u8)]) -> Vec<u8> {
        let mut image = vec![0; CONFIG_SIZE];
        image[STATUS] = 0x10;
        image[CAPABILITIES_POINTER] = first;
        for &(offset, id, next) in list {
            image[offset..offset + 2].copy_from_slice(&[id, next]);
        }
        image
    }

    fn walk(image: &[u8]) -> Result<Vec<(u8, usize)>, WalkError> {
        capabilities(image)
            .map(|step| step.map(|found| (found.id, found.offset)))
            .collect()
    }

    #[test]
    fn a_list_is_walked_in_its_order() {
        let image = image(0x50, &[(0x50, 0x05, 0x40), (0x40, 0x01, 0)]);
        assert_eq!(walk(&image), Ok(vec![(0x05, 0x50), (0x01, 0x40)]));
        assert_eq!(find(&image, 0x01), Some(0x40));
        assert_eq!(find(&image, 0x11), None);
    }

    #[test]
    fn without_the_status_bit_there_is_no_list() {
        let mut image = image(0x50, &[(0x50, 0x05, 0)]);
        image[STATUS] = 0;
        assert_eq!(walk(&image), Ok(vec![]));
    }

    #[test]
    fn a_loop_ends_the_walk_with_an_error() {
        let own_tail = image(0x40, &[(0x40, 1, 0x40)]);
        assert_eq!(walk(&own_tail), Err(WalkError::Loop { pointer: 0x40 }));
        let pair = image(0x40, &[(0x40, 1, 0x50), (0x50, 5, 0x40)]);
        assert_eq!(walk(&pair), Err(WalkError::Loop { pointer: 0x40 }));
        assert_eq!(capabilities(&pair).count(), 3);
    }

    #[test]
    fn pointers_into_the_header_or_misaligned_are_errors() {
        let into_header = image(0x3c, &[]);
        assert!(matches!(
            walk(&into_header),
            Err(WalkError::OutOfBounds { pointer: 0x3c, .. })
        ));
        let misaligned = image(0x42, &[]);
        assert_eq!(
            walk(&misaligned),
            Err(WalkError::Misaligned { pointer: 0x42 })
        );
    }

    #[test]
    fn an_extended_list_is_walked_in_its_order() {
        let mut image = vec![0; EXTENDED_CONFIG_SIZE];
        image[0x100..0x104].copy_from_slice(&(0x0003_u32 | 1 << 16 | 0xffc << 20).to_le_bytes());
        image[0xffc..0x1000].copy_from_slice(&(0x000b_u32 | 2 << 16).to_le_bytes());
        let found: Vec<_> = extended_capabilities(&image)
            .map(|step| step.map(|found| (found.id, found.version, found.offset)))
            .collect();
        assert_eq!(found, [Ok((3, 1, 0x100)), Ok((0xb, 2, 0xffc))]);
    }

    #[test]
    fn an_extended_pointer_into_conventional_space_is_an_error() {
        let mut image = vec![0; EXTENDED_CONFIG_SIZE];
        image[0x100..0x104].copy_from_slice(&(0x0003_u32 | 0x0fc << 20).to_le_bytes());
        let last = extended_capabilities(&image).last().unwrap();
        assert!(matches!(
            last,
            Err(WalkError::OutOfBounds { pointer: 0xfc, .. })
        ));
    }

    #[test]
    fn a_zero_header_or_a_short_image_has_no_extended_list() {
        assert_eq!(extended_capabilities(&[0; EXTENDED_CONFIG_SIZE]).count(), 0);
        assert_eq!(extended_capabilities(&[0xff; CONFIG_SIZE]).count(), 0);
    }

    proptest! {
        #[test]
        fn walks_of_any_bytes_end(image in prop::collection::vec(any::<u8>(), EXTENDED_CONFIG_SIZE)) {
            prop_assert!(capabilities(&image).count() <= 49);
            prop_assert!(extended_capabilities(&image).count() <= 961);
        }
    }
}
