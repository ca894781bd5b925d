//! The MSI-X table and pending bit array of a function behind a vfio-user socket.
//!
//! The client owns the table (QEMU emulates it, and says by `SET_IRQS` what came of it), so nothing in it reaches the device: it reads as zeros
//! and writes of it are dropped. The pending bits are the server's, which knows what fired and could not be delivered; they are answered
//! here, without the host.

use std::ops::Range;

use potemkin_pci::{
    BarIndex, Descriptor, Space,
    capability::{capabilities, id},
};

/// Bytes of a table entry (PCI 3.0 section 6.8.2).
const ENTRY_BYTES: u64 = 16;
/// The BAR in a register that says where the table or the array is; the rest of it is the offset.
const BIR: u32 = 0b111;

/// Where the two are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MsixAreas {
    table: Area,
    pending: Area,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Area {
    space: Space,
    range: Range<u64>,
}

/// Whose a part of an access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Device,
    Table,
    /// The byte of the pending bit array that comes first.
    Pending(u64),
}

impl MsixAreas {
    /// None without MSI-X. A descriptor's areas lie in its BARs and apart from each other.
    pub(crate) fn of(descriptor: &Descriptor) -> Option<Self> {
        let image = descriptor.config_image();
        let mut found = capabilities(image).filter_map(Result::ok);
        let msix = found.find(|capability| capability.id == id::MSIX)?;
        let vectors = u64::from(descriptor.interrupts().msix_vectors);
        let area = |offset, length| Area::at(image.get(msix.offset + offset..)?, length);
        Some(Self {
            table: area(4, vectors * ENTRY_BYTES)?,
            // One bit a vector, in whole 8-byte words.
            pending: area(8, vectors.div_ceil(64) * 8)?,
        })
    }

    /// Whether one of them is in this space.
    pub(crate) fn touch(&self, space: Space) -> bool {
        self.table.space == space || self.pending.space == space
    }

    /// The parts of an access, in order, as ranges of its own bytes.
    pub(crate) fn parts(
        &self,
        space: Space,
        offset: u64,
        length: usize,
    ) -> impl Iterator<Item = (Range<usize>, Owner)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start == length {
                return None;
            }
            let at = offset + start as u64;
            let (owner, end) = self.owner(space, at);
            let left = length - start;
            let part = usize::try_from(end - at).map_or(left, |part| part.min(left));
            let range = start..start + part;
            start = range.end;
            Some((range, owner))
        })
    }

    /// Whose a byte is, and the first byte behind it that is somebody else's.
    fn owner(&self, space: Space, at: u64) -> (Owner, u64) {
        if self.table.holds(space, at) {
            return (Owner::Table, self.table.range.end);
        }
        if self.pending.holds(space, at) {
            let first = at - self.pending.range.start;
            return (Owner::Pending(first), self.pending.range.end);
        }
        let areas = [&self.table, &self.pending].into_iter();
        let starts = areas.filter(|area| area.space == space);
        let next = starts
            .map(|area| area.range.start)
            .filter(|&s| s > at)
            .min();
        (Owner::Device, next.unwrap_or(u64::MAX))
    }
}

impl Area {
    fn at(register: &[u8], length: u64) -> Option<Self> {
        let register = u32::from_le_bytes(*register.first_chunk()?);
        let bar = BarIndex::new((register & BIR).to_le_bytes()[0])?;
        let start = u64::from(register & !BIR);
        Some(Self {
            space: Space::Bar(bar),
            range: start..start + length,
        })
    }

    fn holds(&self, space: Space, at: u64) -> bool {
        self.space == space && self.range.contains(&at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use potemkin_pci::{Bar, Capability, DescriptorBuilder};

    use super::*;

    const B2: Space = Space::Bar(BarIndex::B2);

    /// 65 vectors: the table at 0x1000 (0x410 bytes), 16 bytes of pending bits at 0x1410.
    fn areas() -> MsixAreas {
        let msix = Capability::msix(65, (BarIndex::B2, 0x1000), (BarIndex::B2, 0x1410)).unwrap();
        let descriptor = DescriptorBuilder::new(1, 2)
            .bar(BarIndex::B2, Bar::memory32(0x2000))
            .capability(Capability::power_management())
            .capability(msix)
            .build()
            .unwrap();
        MsixAreas::of(&descriptor).unwrap()
    }

    fn parts(space: Space, offset: u64, length: usize) -> Vec<(Range<usize>, Owner)> {
        areas().parts(space, offset, length).collect()
    }

    #[test]
    fn a_function_without_msix_has_none() {
        let descriptor = DescriptorBuilder::new(1, 2).build().unwrap();
        assert_eq!(MsixAreas::of(&descriptor), None);
    }

    #[test]
    fn each_byte_has_its_owner() {
        assert_eq!(parts(B2, 0xff8, 8), [(0..8, Owner::Device)]);
        assert_eq!(parts(B2, 0x1000, 16), [(0..16, Owner::Table)]);
        assert_eq!(parts(B2, 0x1410, 8), [(0..8, Owner::Pending(0))]);
        assert_eq!(parts(B2, 0x141f, 1), [(0..1, Owner::Pending(15))]);
        assert_eq!(parts(B2, 0x1420, 4), [(0..4, Owner::Device)]);
        let other = Space::Bar(BarIndex::B0);
        assert_eq!(parts(other, 0x1000, 8), [(0..8, Owner::Device)]);
    }

    #[test]
    fn an_access_across_borders_is_cut_at_them() {
        assert_eq!(
            parts(B2, 0xff8, 0x430),
            [
                (0..8, Owner::Device),
                (8..0x418, Owner::Table),
                (0x418..0x428, Owner::Pending(0)),
                (0x428..0x430, Owner::Device),
            ]
        );
    }
}
