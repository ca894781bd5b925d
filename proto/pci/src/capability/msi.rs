//! Message signalled interrupts (PCI 3.0 section 6.8.1).

use super::{Capability, CapabilityError, id};
use crate::bytes::le16;

const CONTROL: usize = 2;
const ADDRESS: usize = 4;

const CONTROL_ENABLE: u16 = 1 << 0;
const CONTROL_CAPABLE_SHIFT: u16 = 1;
const CONTROL_CAPABLE: u16 = 0b111 << CONTROL_CAPABLE_SHIFT;
const CONTROL_ENABLED_VECTORS: u16 = 0b111 << 4;
const CONTROL_64_BIT: u16 = 1 << 7;
const CONTROL_MASKABLE: u16 = 1 << 8;

impl Capability {
    /// MSI with 64-bit addresses. With `maskable` each vector has a mask bit and a pending bit.
    ///
    /// # Errors
    /// `vectors` is none of 1, 2, 4, 8, 16 and 32.
    pub fn msi(vectors: u8, maskable: bool) -> Result<Self, CapabilityError> {
        let capable = match vectors {
            1 => 0,
            2 => 1,
            4 => 2,
            8 => 3,
            16 => 4,
            32 => 5,
            _ => return Err(CapabilityError::MsiVectors { vectors }),
        };
        let maskable_bit = if maskable { CONTROL_MASKABLE } else { 0 };
        let control = CONTROL_64_BIT | maskable_bit | (capable << CONTROL_CAPABLE_SHIFT);

        let mut msi = Self::new(id::MSI, &vec![0; length(control) - 2]);
        msi.block.set16(CONTROL, control);
        msi.block
            .writable16(CONTROL, CONTROL_ENABLE | CONTROL_ENABLED_VECTORS);
        msi.block.writable32(ADDRESS, !0b11);
        msi.block.writable32(ADDRESS + 4, !0);
        msi.block.writable16(data_offset(control), !0);
        if maskable {
            let one_per_vector = u32::MAX >> (32 - u32::from(vectors));
            msi.block
                .writable32(data_offset(control) + 4, one_per_vector);
        }
        Ok(msi)
    }
}

/// Bytes of an MSI capability with this control register: 10, 14, 20 or 24.
fn length(control: u16) -> usize {
    if control & CONTROL_MASKABLE != 0 {
        // Data is followed by two reserved bytes, the mask bits and the pending bits.
        data_offset(control) + 12
    } else {
        data_offset(control) + 2
    }
}

fn data_offset(control: u16) -> usize {
    if control & CONTROL_64_BIT != 0 {
        ADDRESS + 8
    } else {
        ADDRESS + 4
    }
}

/// An MSI capability in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsiView {
    control: u16,
}

/// Where an MSI capability's registers stand in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MsiRegisters {
    pub(crate) address: usize,
    /// Of a 64-bit address.
    pub(crate) upper: Option<usize>,
    pub(crate) data: usize,
    /// The mask bits, if it has them; the pending bits are the next dword.
    pub(crate) mask: Option<usize>,
}

impl MsiView {
    /// The one whose first byte is at `offset`.
    pub(crate) fn at(image: &[u8], offset: usize) -> Self {
        Self {
            control: le16(image, offset + CONTROL),
        }
    }

    /// Bytes that it takes.
    pub(crate) fn length(self) -> usize {
        length(self.control)
    }

    /// Where they stand, in one whose first byte is at `offset`.
    pub(crate) fn registers(self, offset: usize) -> MsiRegisters {
        let has = |bit: u16| self.control & bit != 0;
        let data = offset + data_offset(self.control);
        MsiRegisters {
            address: offset + ADDRESS,
            upper: has(CONTROL_64_BIT).then_some(offset + ADDRESS + 4),
            data,
            mask: has(CONTROL_MASKABLE).then_some(data + 4),
        }
    }

    /// How many vectors the function may ask for; `None` for the reserved encodings.
    pub(crate) fn vectors(self) -> Option<u8> {
        let log2 = (self.control & CONTROL_CAPABLE) >> CONTROL_CAPABLE_SHIFT;
        (log2 <= 5).then_some(1 << log2)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn vectors_that_no_register_can_say_are_refused() {
        for vectors in [0, 3, 33, 64] {
            let error = CapabilityError::MsiVectors { vectors };
            assert_eq!(Capability::msi(vectors, false), Err(error));
        }
    }

    #[test]
    fn each_vector_count_is_read_back_from_the_image() {
        for vectors in [1, 2, 4, 8, 16, 32] {
            for maskable in [false, true] {
                let msi = Capability::msi(vectors, maskable).unwrap();
                let view = MsiView::at(msi.bytes(), 0);
                assert_eq!(view.vectors(), Some(vectors));
                assert_eq!(view.length(), msi.bytes().len());
            }
        }
    }

    #[test]
    fn maskable_msi_of_4_vectors_has_4_mask_bits() {
        let msi = Capability::msi(4, true).unwrap();
        assert_eq!(msi.bytes().len(), 24);
        assert_eq!(msi.bytes()[..4], [0x05, 0, 0x84, 0x01]);
        assert_eq!(msi.writable_mask()[2..4], [0x71, 0]);
        assert_eq!(
            msi.writable_mask()[4..12],
            [0xfc, 255, 255, 255, 255, 255, 255, 255]
        );
        assert_eq!(msi.writable_mask()[12..16], [255, 255, 0, 0]);
        assert_eq!(msi.writable_mask()[16..24], [0x0f, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn reserved_vector_encodings_are_no_count() {
        for log2 in [6, 7] {
            let image = [0x05, 0, log2 << 1, 0];
            assert_eq!(MsiView::at(&image, 0).vectors(), None);
        }
    }
}
