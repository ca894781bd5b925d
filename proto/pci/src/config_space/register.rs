//! BAR and expansion ROM registers: what they read as, and which address they stand for.

use crate::{
    Bar, BarIndex, Descriptor,
    registers::{BAR0, ROM, ROM_ENABLE},
};

/// From here on a value with all address bits set is a question for the size, not an address: software writes all-ones, or
/// all-ones but for the type bits or (in a ROM register) the reserved bits.
const SIZING_MIN: u32 = 0xffff_f800;

/// Position of the ROM's register behind the BARs'.
const ROM_REGISTER: usize = BarIndex::COUNT;

/// The six BAR registers and the ROM's.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    all: [Register; BarIndex::COUNT + 1],
}

/// One register of 4 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    /// Writable address bits; 0: not implemented.
    address_mask: u32,
    /// Writable bits that are no address.
    flag_mask: u32,
    /// What read-only bits hold.
    fixed: u32,
    /// Last written, all bits of it: it tells a size question from an address, which may read back alike.
    written: u32,
    /// The address bits of the last value that was an address.
    address: u32,
}

impl Register {
    fn write(&mut self, written: u32) {
        self.written = written;
        if !self.is_sizing() {
            self.address = written & self.address_mask;
        }
    }

    fn is_sizing(&self) -> bool {
        self.written & self.address_mask == self.address_mask && self.written >= SIZING_MIN
    }

    fn value(&self) -> u32 {
        self.written & (self.address_mask | self.flag_mask) | self.fixed
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
                all[next.as_usize()].address_mask = high;
            }
        }
        if let Some(rom) = descriptor.rom() {
            // At least 2 KiB, a power of two.
            let (mask, _) = halves((rom.len() as u64).wrapping_neg());
            all[ROM_REGISTER].address_mask = mask;
            all[ROM_REGISTER].flag_mask = ROM_ENABLE;
        }
        Self { all }
    }

    pub(super) fn reset(&mut self) {
        for register in &mut self.all {
            register.write(0);
        }
    }

    /// Offset in configuration space and value of each.
    pub(super) fn values(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        let offsets = (BAR0..).step_by(4).take(BarIndex::COUNT).chain([ROM]);
        offsets.zip(self.all.iter().map(Register::value))
    }

    /// Writes what of `data`, which begins at `offset` of configuration space, lands on one of them. Says whether any did.
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

    pub(super) fn bar_address(&self, index: BarIndex, bar: &Bar) -> Option<u64> {
        let low = u64::from(self.all[index.as_usize()].address);
        let address = match index.next().filter(|_| bar.is_64_bit()) {
            Some(high) => low | u64::from(self.all[high.as_usize()].address) << 32,
            None => low,
        };
        (address != 0).then_some(address)
    }

    pub(super) fn rom_address(&self) -> Option<u64> {
        let address = u64::from(self.all[ROM_REGISTER].address);
        (address != 0).then_some(address)
    }

    pub(super) fn rom_enabled(&self) -> bool {
        self.all[ROM_REGISTER].value() & ROM_ENABLE != 0
    }
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
