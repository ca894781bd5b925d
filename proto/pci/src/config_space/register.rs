//! BAR and expansion ROM registers: what they read as, and which base they stand for.
//!
//! A register always reads as PCI says: what was written, at the bits that can be written. The *base*, where the function answers, is the
//! last value that was an address:
//!
//! - A value that asks for the size is none: see [`Register::is_sizing`]. While a register holds one, the base (and the ROM's enable bit)
//!   stays what it was, whether decode is on or off. For a 64-bit BAR this holds for both halves together.
//! - A 64-bit BAR that decodes takes its halves together: the base stays until all 8 bytes have been written since it last counted, in
//!   whichever order and widths. Half of it counts as it is when software goes on without the other half: with the next
//!   write to any other register. While memory decode is off, as PCI asks of software that moves a BAR, each write counts at once.
//! - 0 is a base like any other (PCI 3.0 section 6.2.5.1: decode is a matter of the command register).

use crate::{
    Bar, BarIndex, Descriptor,
    config_space::{SavedRegister, SavedWide},
    registers::{BAR0, ROM, ROM_ENABLE},
};

/// From here on a 32-bit value is no address: nothing places a BAR in the last 64 KiB below 4 GiB. As the upper half of a 64-bit
/// address it is beyond what any processor reaches.
const TOP: u32 = 0xffff_0000;

/// From here on the lower half of a 64-bit address with all address bits set asks for the size: software writes all-ones, or
/// all-ones but for the type bits or (from the ROM register's habit) the lowest 11. So a BAR of 2 KiB or less cannot
/// stand just below a multiple of 4 GiB.
const LOW_TOP: u32 = 0xffff_f800;

/// All 8 bytes of a 64-bit BAR.
const BOTH_HALVES: u8 = 0xff;

/// Position of the ROM's register behind the BARs'.
const ROM_REGISTER: usize = BarIndex::COUNT;

/// The six BAR registers and the ROM's.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    all: [Register; BarIndex::COUNT + 1],
    /// By the index of a 64-bit BAR's lower half; not used for others.
    wide: [Wide; BarIndex::COUNT],
}

/// What a 64-bit BAR has beyond its two registers.
#[derive(Clone, Copy, Debug, Default)]
struct Wide {
    base: u64,
    /// Which of the 8 bytes were written since the base last counted.
    written: u8,
}

/// One register of 4 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    part: Part,
    /// Writable address bits; 0: not implemented.
    address_mask: u32,
    /// Writable bits that are no address.
    flag_mask: u32,
    /// What read-only bits hold.
    fixed: u32,
    /// Last written, all bits of it: it tells a size question from an address, which may read back alike.
    written: u32,
    /// The last value that was an address.
    address: u32,
}

/// What part of an address a register holds.
#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Whole,
    Low,
    High,
}

impl Register {
    fn write(&mut self, written: u32) {
        self.written = written;
        if !self.is_sizing() {
            self.address = written & (self.address_mask | self.flag_mask);
        }
    }

    /// Whether it holds a question for the size: all-ones or nearly so, or (while all-ones come in pieces) ones in all bits below the size.
    fn is_sizing(&self) -> bool {
        let all_of = |mask: u32| self.written & mask == mask;
        match self.part {
            Part::Whole => self.written >= TOP || all_of(!self.address_mask),
            Part::Low => {
                self.written >= LOW_TOP && all_of(self.address_mask) || all_of(!self.address_mask)
            }
            Part::High => self.written >= TOP,
        }
    }

    fn value(&self) -> u32 {
        self.written & (self.address_mask | self.flag_mask) | self.fixed
    }

    fn base(&self) -> u32 {
        self.address & self.address_mask
    }
}

impl Registers {
    pub(super) fn new(descriptor: &Descriptor) -> Self {
        let mut all = [Register::default(); BarIndex::COUNT + 1];
        for (index, bar) in descriptor.bars() {
            let (low, high) = halves(bar.size_mask());
            all[index.as_usize()] = Register {
                address_mask: low,
                fixed: bar.type_bits(),
                ..Register::default()
            };
            if let Some(next) = index.next().filter(|_| bar.is_64_bit()) {
                all[index.as_usize()].part = Part::Low;
                all[next.as_usize()].part = Part::High;
                all[next.as_usize()].address_mask = high;
            }
        }
        if let Some(rom) = descriptor.rom() {
            // At least 2 KiB, a power of two.
            let (mask, _) = halves((rom.len() as u64).wrapping_neg());
            all[ROM_REGISTER].address_mask = mask;
            all[ROM_REGISTER].flag_mask = ROM_ENABLE;
        }
        Self {
            all,
            wide: Default::default(),
        }
    }

    pub(super) fn reset(&mut self) {
        for register in &mut self.all {
            register.write(0);
        }
        self.wide = Default::default();
    }

    pub(super) fn saved(&self) -> (Vec<SavedRegister>, Vec<SavedWide>) {
        let one = |register: &Register| SavedRegister {
            written: register.written,
            address: register.address,
        };
        let wide = |wide: &Wide| SavedWide {
            base: wide.base,
            written: wide.written,
        };
        let registers = self.all.iter().map(one).collect();
        (registers, self.wide.iter().map(wide).collect())
    }

    /// As they were saved, of the bits that they have. False when they are not as many.
    pub(super) fn restore(&mut self, saved: &[SavedRegister], wide: &[SavedWide]) -> bool {
        if saved.len() != self.all.len() || wide.len() != self.wide.len() {
            return false;
        }
        for (register, saved) in self.all.iter_mut().zip(saved) {
            register.written = saved.written;
            register.address = saved.address & (register.address_mask | register.flag_mask);
        }
        for (index, saved) in wide.iter().enumerate() {
            // The last register is the ROM's: there is always one behind.
            let (low, high) = (&self.all[index], &self.all[index + 1]);
            if matches!(low.part, Part::Low) {
                let mask = u64::from(low.address_mask) | u64::from(high.address_mask) << 32;
                self.wide[index].base = saved.base & mask;
                self.wide[index].written = saved.written;
            }
        }
        true
    }

    /// Offset in configuration space and value of each.
    pub(super) fn values(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        let offsets = (BAR0..).step_by(4).take(BarIndex::COUNT).chain([ROM]);
        offsets.zip(self.all.iter().map(Register::value))
    }

    /// Writes what of `data`, which begins at `offset` of configuration space, lands on one of them. Says whether any did.
    ///
    /// To be followed by [`Self::settle`].
    pub(super) fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        let mut touched = false;
        let offsets = (BAR0..).step_by(4).take(BarIndex::COUNT).chain([ROM]);
        for (at, register) in offsets.zip(&mut self.all) {
            let mut bytes = register.written.to_le_bytes();
            if overlay(at, &mut bytes, offset, data) {
                register.write(u32::from_le_bytes(bytes));
                touched = true;
            }
        }
        touched
    }

    /// After a write of `length` bytes at `offset` of configuration space: which 64-bit bases count now. `decodes`: the function answered
    /// memory accesses before it and does still.
    pub(super) fn settle(&mut self, offset: usize, length: usize, decodes: bool) {
        for (index, wide) in self.wide.iter_mut().enumerate() {
            let [low, high] = [&self.all[index], &self.all[index + 1]];
            if !matches!(low.part, Part::Low) {
                continue;
            }
            let now = bytes_written(BAR0 + 4 * index, offset, length);
            wide.written |= now;
            let complete = wide.written == BOTH_HALVES || now == 0 || !decodes;
            if complete && !low.is_sizing() && !high.is_sizing() {
                wide.base = u64::from(low.base()) | u64::from(high.base()) << 32;
                wide.written = 0;
            }
        }
    }

    pub(super) fn bar_address(&self, index: BarIndex, bar: &Bar) -> u64 {
        if bar.is_64_bit() {
            self.wide[index.as_usize()].base
        } else {
            self.all[index.as_usize()].base().into()
        }
    }

    pub(super) fn rom_address(&self) -> u64 {
        self.all[ROM_REGISTER].base().into()
    }

    pub(super) fn rom_enabled(&self) -> bool {
        self.all[ROM_REGISTER].address & ROM_ENABLE != 0
    }
}

/// Which of the 8 bytes at `at` lie within the `length` bytes at `offset`, a bit for each.
fn bytes_written(at: usize, offset: usize, length: usize) -> u8 {
    let written = |byte: &usize| (offset..offset + length).contains(&(at + byte));
    (0..8)
        .filter(written)
        .fold(0, |mask, byte| mask | 1 << byte)
}

/// Low and high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// Copies what of `data` at `offset` lies within the 4 bytes at `at`. Says whether anything did.
fn overlay(at: usize, bytes: &mut [u8; 4], offset: usize, data: &[u8]) -> bool {
    let mut touched = false;
    for (lane, byte) in bytes.iter_mut().enumerate() {
        let written = (at + lane).checked_sub(offset).and_then(|i| data.get(i));
        if let Some(&written) = written {
            *byte = written;
            touched = true;
        }
    }
    touched
}
