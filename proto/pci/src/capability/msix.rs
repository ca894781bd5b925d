//! MSI-X (PCI 3.0 section 6.8.2).

use super::{Capability, CapabilityError, id};
use crate::{
    BarIndex,
    bytes::{le16, le32},
};

const CONTROL: usize = 2;
const TABLE: usize = 4;
const PBA: usize = 8;

pub(crate) const LENGTH: usize = 12;

const CONTROL_SIZE: u16 = 0x7ff;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const CONTROL_ENABLE: u16 = 1 << 15;
const BIR: u32 = 0b111;

/// Bytes of a table entry: address, data, control.
const ENTRY_BYTES: u64 = 16;
/// Largest table that the control register can say.
const VECTORS_MAX: u16 = 2048;

impl Capability {
    /// MSI-X with `vectors` vectors, its table and its pending bit array each at an offset of a memory BAR.
    ///
    /// # Errors
    /// `vectors` is not within 1 to 2,048, or an offset is not a multiple of 8.
    pub fn msix(
        vectors: u16,
        table: (BarIndex, u32),
        pba: (BarIndex, u32),
    ) -> Result<Self, CapabilityError> {
        if vectors == 0 || vectors > VECTORS_MAX {
            return Err(CapabilityError::MsixVectors { vectors });
        }
        for (_, offset) in [table, pba] {
            if offset & BIR != 0 {
                return Err(CapabilityError::MsixOffset { offset });
            }
        }
        let mut msix = Self::new(id::MSIX, &[0; LENGTH - 2]);
        msix.block.set16(CONTROL, vectors - 1);
        msix.block.set32(TABLE, table.1 | u32::from(table.0.get()));
        msix.block.set32(PBA, pba.1 | u32::from(pba.0.get()));
        msix.block
            .writable16(CONTROL, CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        Ok(msix)
    }
}

/// An MSI-X capability in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsixView {
    control: u16,
    table: u32,
    pba: u32,
}

/// Where the table or the pending bit array stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    /// The BAR indicator as it stands there, 0 to 7.
    pub(crate) bir: u8,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Area {
    fn new(register: u32, length: u64) -> Self {
        Self {
            bir: (register & BIR).to_le_bytes()[0],
            offset: u64::from(register & !BIR),
            length,
        }
    }

    /// Just past it. Offsets have 32 bits, so this cannot overflow.
    pub(crate) fn end(self) -> u64 {
        self.offset + self.length
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.bir == other.bir && self.offset < other.end() && other.offset < self.end()
    }
}

impl MsixView {
    /// The one whose first byte is at `offset`.
    pub(crate) fn at(image: &[u8], offset: usize) -> Self {
        Self {
            control: le16(image, offset + CONTROL),
            table: le32(image, offset + TABLE),
            pba: le32(image, offset + PBA),
        }
    }

    /// Vectors: 1 to 2,048.
    pub(crate) fn vectors(self) -> u16 {
        (self.control & CONTROL_SIZE) + 1
    }

    pub(crate) fn table(self) -> Area {
        Area::new(self.table, u64::from(self.vectors()) * ENTRY_BYTES)
    }

    /// One bit a vector, in whole 8-byte words.
    pub(crate) fn pba(self) -> Area {
        Area::new(self.pba, u64::from(self.vectors().div_ceil(64)) * 8)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_table_too_large_or_misaligned_is_refused() {
        let (table, pba) = ((BarIndex::B2, 0), (BarIndex::B2, 0x8000));
        for vectors in [0, 2049] {
            let error = CapabilityError::MsixVectors { vectors };
            assert_eq!(Capability::msix(vectors, table, pba), Err(error));
        }
        for offset in [4, 0x8001] {
            let error = Err(CapabilityError::MsixOffset { offset });
            let misplaced = (BarIndex::B2, offset);
            assert_eq!(Capability::msix(1, misplaced, pba), error);
            assert_eq!(Capability::msix(1, table, misplaced), error);
        }
    }

    #[test]
    fn table_and_pba_are_read_back_from_the_image() {
        let msix = Capability::msix(65, (BarIndex::B2, 0x1000), (BarIndex::B4, 8)).unwrap();
        let view = MsixView::at(msix.bytes(), 0);
        assert_eq!(view.vectors(), 65);
        let table = view.table();
        assert_eq!((table.bir, table.offset, table.length), (2, 0x1000, 1040));
        let pba = view.pba();
        assert_eq!((pba.bir, pba.offset, pba.length), (4, 8, 16));
    }

    #[test]
    fn only_enable_and_function_mask_are_writable() {
        let msix = Capability::msix(1, (BarIndex::B0, 0), (BarIndex::B0, 16)).unwrap();
        assert_eq!(
            msix.writable_mask(),
            [0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn areas_overlap_only_in_one_bar() {
        let area = |bir, offset| Area {
            bir,
            offset,
            length: 16,
        };
        assert!(area(0, 0).overlaps(area(0, 15)));
        assert!(!area(0, 0).overlaps(area(0, 16)));
        assert!(!area(0, 0).overlaps(area(1, 0)));
    }
}
