//! An MSI-X table and its pending bits, for a front device that keeps them itself (PCI 3.0 section 6.8.2).

use std::ops::Range;

use crate::{
    BarIndex, Descriptor, Message, Space,
    capability::{Area, MsixView, find, id},
};

/// Dwords of an entry: address, upper address, data, vector control.
const ENTRY_DWORDS: usize = 4;
const CONTROL: usize = 3;
const CONTROL_MASKED: u32 = 1 << 0;

/// What the guest can set in each: addresses are multiples of 4, and of vector control there is the mask bit only.
const WRITABLE: [u32; ENTRY_DWORDS] = [!0b11, !0, !0, CONTROL_MASKED];

/// Every vector masked, as after a reset.
const POWER_ON: [u32; ENTRY_DWORDS] = [0, 0, 0, CONTROL_MASKED];

/// The vectors of a function that has MSI-X: where each message goes, which are masked, which wait.
///
/// A vector that is signalled while it cannot be sent is pending, once however often, and sent when it can be: see
/// [`Self::signal`] and [`Self::next_due`]. Nothing but sending and a reset clears a pending bit: turning MSI-X off does not, so
/// what waited then is sent when it is turned on again.
#[derive(Clone, Debug)]
pub struct MsixTable {
    entries: Box<[[u32; ENTRY_DWORDS]]>,
    /// A bit a vector.
    pending: Box<[u64]>,
    layout: MsixLayout,
}

/// Where a function's table and pending bits stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    table: Area,
    pba: Area,
}

/// What stands at an offset of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsixPlace {
    /// The table, at this offset in it.
    Table(usize),
    /// The pending bit array, at this offset in it.
    Pending(usize),
    /// Registers of the device's.
    Elsewhere,
}

impl MsixTable {
    /// That of a function just powered on; `None` if it has no MSI-X.
    #[must_use]
    pub fn new(descriptor: &Descriptor) -> Option<Self> {
        let layout = MsixLayout::of(descriptor)?;
        let vectors = usize::from(descriptor.interrupts().msix_vectors);
        Some(Self {
            entries: vec![POWER_ON; vectors].into(),
            pending: vec![0; vectors.div_ceil(64)].into(),
            layout,
        })
    }

    /// Where it stands.
    #[must_use]
    pub fn layout(&self) -> MsixLayout {
        self.layout
    }

    /// Back to power-on: all masked, none pending.
    pub fn reset(&mut self) {
        self.entries.fill(POWER_ON);
        self.pending.fill(0);
    }

    /// Reads the table or the pending bits. What is past their end reads as 0.
    ///
    /// Software uses whole, aligned dwords and quadwords only (section 6.8.2); anything else gets the bytes that stand there.
    pub fn read(&self, place: MsixPlace, out: &mut [u8]) {
        let byte = |at: usize| match place {
            MsixPlace::Table(_) => self.table_byte(at),
            MsixPlace::Pending(_) => self.pending_byte(at),
            MsixPlace::Elsewhere => 0,
        };
        let start = place.offset();
        for (at, out) in (start..).zip(out) {
            *out = byte(at);
        }
    }

    /// Writes the table; the pending bits are read-only. To be followed by [`Self::next_due`].
    ///
    /// Only whole, aligned dwords are written; of anything else the result is undefined (section 6.8.2), and here it is dropped.
    pub fn write(&mut self, place: MsixPlace, data: &[u8]) {
        let MsixPlace::Table(offset) = place else {
            return;
        };
        if !offset.is_multiple_of(4) || !data.len().is_multiple_of(4) {
            return;
        }
        let (dwords, _) = data.as_chunks();
        let entries = self.entries.as_flattened_mut();
        let entries = entries.get_mut(offset / 4..).unwrap_or_default();
        for ((at, old), &new) in (offset / 4..).zip(entries).zip(dwords) {
            *old = u32::from_le_bytes(new) & WRITABLE[at % ENTRY_DWORDS];
        }
    }

    /// The function signals `vector`: the message to send now. `None` when it is pending instead, because it is masked or
    /// not `open`, or when there is no such vector.
    ///
    /// `open`: MSI-X is on, the function is not masked, and it may master the bus
    /// ([`ConfigSpace::msix_open`](crate::ConfigSpace::msix_open)).
    #[must_use = "a message that is not sent is lost"]
    pub fn signal(&mut self, vector: u16, open: bool) -> Option<Message> {
        let vector = usize::from(vector);
        let entry = self.entries.get(vector)?;
        if open && !is_masked(entry) {
            return Some(message(entry));
        }
        self.pending[vector / 64] |= 1 << (vector % 64);
        None
    }

    /// The next of the messages that were pending and can be sent now. It is not pending any more.
    #[must_use = "a message that is not sent is lost"]
    pub fn next_due(&mut self, open: bool) -> Option<Message> {
        if !open {
            return None;
        }
        let entries = &self.entries;
        for (word, bits) in self.pending.iter_mut().enumerate() {
            let mut left = *bits;
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                let entry = &entries[word * 64 + bit];
                if !is_masked(entry) {
                    *bits &= !(1 << bit);
                    return Some(message(entry));
                }
                left &= left - 1;
            }
        }
        None
    }

    /// No vector is pending any more; the table stays.
    pub fn forget_pending(&mut self) {
        self.pending.fill(0);
    }

    /// Vectors: 1 to 2,048.
    #[must_use]
    pub fn vectors(&self) -> usize {
        self.entries.len()
    }

    fn table_byte(&self, at: usize) -> u8 {
        let dword = self.entries.as_flattened().get(at / 4);
        dword.map_or(0, |dword| dword.to_le_bytes()[at % 4])
    }

    fn pending_byte(&self, at: usize) -> u8 {
        let word = self.pending.get(at / 8);
        word.map_or(0, |word| word.to_le_bytes()[at % 8])
    }
}

fn is_masked(entry: &[u32; ENTRY_DWORDS]) -> bool {
    entry[CONTROL] & CONTROL_MASKED != 0
}

fn message(&[low, high, data, _]: &[u32; ENTRY_DWORDS]) -> Message {
    Message {
        address: u64::from(low) | u64::from(high) << 32,
        data,
    }
}

impl MsixLayout {
    /// That of a function; `None` if it has no MSI-X.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Option<Self> {
        let image = descriptor.config_image();
        let view = find(image, id::MSIX).map(|at| MsixView::at(image, at))?;
        Some(Self {
            table: view.table(),
            pba: view.pba(),
        })
    }

    /// Whether the table or the pending bits are in this space.
    #[must_use]
    pub fn touches(&self, space: Space) -> bool {
        [self.table, self.pba]
            .iter()
            .any(|area| BarIndex::new(area.bir).map(Space::Bar) == Some(space))
    }

    /// The parts of an access of `length` bytes, in order, as ranges of its own bytes.
    pub fn parts(
        self,
        space: Space,
        offset: u64,
        length: usize,
    ) -> impl Iterator<Item = (Range<usize>, MsixPlace)> {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start == length {
                return None;
            }
            let (place, left) = self.place(space, offset.saturating_add(start as u64));
            let rest = length - start;
            let part = usize::try_from(left).map_or(rest, |left| left.min(rest));
            let range = start..start + part;
            start = range.end;
            Some((range, place))
        })
    }

    /// What stands at `offset` of a space, and of how many bytes from there this is true; at least 1.
    #[must_use]
    pub fn place(&self, space: Space, offset: u64) -> (MsixPlace, u64) {
        let Space::Bar(bar) = space else {
            return (MsixPlace::Elsewhere, u64::MAX);
        };
        let table = Place::new(self.table, bar, offset);
        let pba = Place::new(self.pba, bar, offset);
        match (table, pba) {
            (Place::Within(at, left), _) => (MsixPlace::Table(at), left),
            (_, Place::Within(at, left)) => (MsixPlace::Pending(at), left),
            (Place::Before(one), Place::Before(other)) => (MsixPlace::Elsewhere, one.min(other)),
        }
    }
}

impl MsixPlace {
    fn offset(self) -> usize {
        match self {
            Self::Table(offset) | Self::Pending(offset) => offset,
            Self::Elsewhere => 0,
        }
    }
}

/// How an offset stands to an area.
enum Place {
    /// Within it: the offset there, and the bytes left.
    Within(usize, u64),
    /// Not within it: the bytes up to its beginning, if it is still to come.
    Before(u64),
}

impl Place {
    fn new(area: Area, bar: BarIndex, offset: u64) -> Self {
        if area.bir != bar.get() || offset >= area.end() {
            return Self::Before(u64::MAX);
        }
        match offset.checked_sub(area.offset) {
            // At most 32 KiB.
            Some(at) => Self::Within(usize::try_from(at).unwrap_or(0), area.end() - offset),
            None => Self::Before(area.offset - offset),
        }
    }
}

#[cfg(test)]
#[path = "msix_table_tests.rs"]
mod tests;
