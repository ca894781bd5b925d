//! Which ranges of a bus's addresses a function answers: what a VMM has to hook for it.

use crate::{Bar, BarIndex, ConfigSpace, PlatformRange, Space};

/// Which of a bus's two kinds of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressKind {
    /// Guest-physical memory.
    Memory,
    /// I/O ports: 0 to 65,535.
    Port,
}

/// A range of addresses that stands for all of one of a function's spaces, from its offset 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mapping {
    /// Memory or ports.
    pub kind: AddressKind,
    /// First address; of a BAR or ROM a multiple of `size`.
    pub address: u64,
    /// Bytes or ports; of a BAR or ROM a power of two. `address + size` does not pass 2^64; of ports it does not pass 65,536.
    pub size: u64,
    /// The BAR or region, or the ROM.
    pub space: Space,
}

impl Mapping {
    /// Most that a function has at a time: one a BAR, and the ROM's.
    pub const MAX: usize = BarIndex::COUNT + 1;

    /// Where `address` lies in [`Self::space`], in bytes; `None` outside of the range.
    #[must_use]
    pub const fn offset_of(&self, address: u64) -> Option<u64> {
        match address.checked_sub(self.address) {
            Some(offset) if offset < self.size => Some(offset),
            _ => None,
        }
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let begins_in = |a: &Self, b: &Self| b.offset_of(a.address).is_some();
        self.kind == other.kind && (begins_in(self, other) || begins_in(other, self))
    }
}

impl ConfigSpace {
    /// What the function answers now, at most [`Mapping::MAX`] ranges, none overlapping another.
    ///
    /// A BAR is among them while its kind of decode is on (the command register's bit, and the function in D0), the ROM while its own enable bit
    /// is set too. Not among them: ports beyond 65,535, and what overlaps a BAR of a lower index, as BARs do that the guest has left
    /// at 0 all. A platform function has all that it forwards among them, always; what it ignores is for the VMM to see in
    /// [`Platform::ranges`](crate::Platform::ranges). (The address decode of such accesses is finer: see [`decode_memory`](crate::decode_memory).)
    pub fn mappings(&self) -> impl Iterator<Item = Mapping> + use<> {
        let mut found = [None; Mapping::MAX];
        let mut count = 0;
        for mapping in self.decoded() {
            let overlaps = |other: &Mapping| other.overlaps(&mapping);
            if !found[..count].iter().flatten().any(overlaps) {
                found[count] = Some(mapping);
                count += 1;
            }
        }
        found.into_iter().flatten()
    }

    /// What decodes, each by itself.
    fn decoded(&self) -> impl Iterator<Item = Mapping> + '_ {
        let bars = self.bar_addresses();
        let bars = bars.filter_map(|(index, bar, base)| self.decoded_bar(index, *bar, base));
        let platform = self.descriptor().platform();
        let fixed = platform.map_or(&[][..], |platform| platform.ranges());
        let fixed = fixed.iter().filter_map(PlatformRange::mapping);
        bars.chain(self.decoded_rom()).chain(fixed)
    }

    fn decoded_bar(&self, index: BarIndex, bar: Bar, address: u64) -> Option<Mapping> {
        let (kind, decodes) = if bar.kind.is_memory() {
            (AddressKind::Memory, self.memory_enabled())
        } else {
            let reachable = address <= u16::MAX.into();
            (AddressKind::Port, reachable && self.io_enabled())
        };
        decodes.then_some(Mapping {
            kind,
            address,
            size: bar.size,
            space: Space::Bar(index),
        })
    }

    fn decoded_rom(&self) -> Option<Mapping> {
        let decodes = self.rom_enabled() && self.memory_enabled();
        let rom = self.descriptor().rom().filter(|_| decodes)?;
        Some(Mapping {
            kind: AddressKind::Memory,
            address: self.rom_address()?,
            size: rom.len() as u64,
            space: Space::Rom,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Bar, Capability, DescriptorBuilder};

    /// A BAR of each kind and a ROM, placed, with decode off.
    fn config() -> ConfigSpace {
        let descriptor = DescriptorBuilder::new(1, 1)
            .bar(BarIndex::B0, Bar::memory32(4096))
            .bar(BarIndex::B1, Bar::io(16))
            .bar(BarIndex::B2, Bar::memory64(1 << 40).prefetchable())
            .bar(BarIndex::B4, Bar::memory_below_1m(4096))
            .rom(vec![0; 2048])
            .capability_at(0x40, Capability::power_management())
            .build()
            .unwrap();
        let mut config = ConfigSpace::new(&descriptor);
        let _ = config.write(0x10, &0xe000_0000_u32.to_le_bytes());
        let _ = config.write(0x14, &0xc000_u32.to_le_bytes());
        let _ = config.write(0x18, &(3_u64 << 40).to_le_bytes());
        let _ = config.write(0x20, &0x000d_0000_u32.to_le_bytes());
        let _ = config.write(0x30, &0xfeb0_0001_u32.to_le_bytes());
        config
    }

    fn spaces(config: &ConfigSpace) -> Vec<(Space, u64)> {
        let found = config.mappings();
        found.map(|found| (found.space, found.address)).collect()
    }

    const BAR0: (Space, u64) = (Space::Bar(BarIndex::B0), 0xe000_0000);
    const BAR1: (Space, u64) = (Space::Bar(BarIndex::B1), 0xc000);
    const BAR2: (Space, u64) = (Space::Bar(BarIndex::B2), 3 << 40);
    const BAR4: (Space, u64) = (Space::Bar(BarIndex::B4), 0x000d_0000);
    const ROM: (Space, u64) = (Space::Rom, 0xfeb0_0000);

    #[test]
    fn each_decode_bit_brings_its_own() {
        let mut config = config();
        assert_eq!(spaces(&config), []);
        let _ = config.write(4, &[1]);
        assert_eq!(spaces(&config), [BAR1]);
        let _ = config.write(4, &[2]);
        assert_eq!(spaces(&config), [BAR0, BAR2, BAR4, ROM]);
        let _ = config.write(0x30, &[0]);
        assert_eq!(spaces(&config), [BAR0, BAR2, BAR4]);
    }

    #[test]
    fn a_sleeping_function_has_none() {
        let mut config = config();
        let _ = config.write(4, &[3]);
        let _ = config.write(0x44, &[3]);
        assert_eq!(spaces(&config), []);
        let _ = config.write(0x44, &[0]);
        assert_eq!(spaces(&config).len(), 5);
    }

    #[test]
    fn ports_beyond_64_ki_are_not_mapped() {
        let mut config = config();
        let _ = config.write(4, &[1]);
        let _ = config.write(0x14, &0xfff0_u32.to_le_bytes());
        assert_eq!(spaces(&config), [(Space::Bar(BarIndex::B1), 0xfff0)]);
        let _ = config.write(0x14, &0x0001_0000_u32.to_le_bytes());
        assert_eq!(spaces(&config), []);
    }

    #[test]
    fn of_bars_at_one_place_the_lowest_is_mapped() {
        let mut config = config();
        config.reset();
        let _ = config.write(4, &[3]);
        let at_0 = [0, 1].map(|bar| (Space::Bar(BarIndex::new(bar).unwrap()), 0));
        assert_eq!(spaces(&config), at_0);
        let _ = config.write(0x10, &0xe000_0000_u32.to_le_bytes());
        // BAR 2, of 1 TiB at 0, overlaps it.
        let at_0 = [1, 4].map(|bar| (Space::Bar(BarIndex::new(bar).unwrap()), 0));
        assert_eq!(spaces(&config), [BAR0, at_0[0], at_0[1]]);
    }

    #[test]
    fn overlap_is_a_matter_of_kind_and_addresses() {
        let mapping = |kind, address, size| Mapping {
            kind,
            address,
            size,
            space: Space::Rom,
        };
        let memory = |address, size| mapping(AddressKind::Memory, address, size);
        assert!(memory(0x1000, 0x1000).overlaps(&memory(0x1800, 8)));
        assert!(memory(0x1800, 8).overlaps(&memory(0x1000, 0x1000)));
        assert!(!memory(0x1000, 0x1000).overlaps(&memory(0x2000, 8)));
        assert!(!memory(0, 16).overlaps(&mapping(AddressKind::Port, 0, 16)));
        assert!(memory(u64::MAX - 15, 16).overlaps(&memory(u64::MAX - 15, 8)));
        assert_eq!(memory(0x1000, 16).offset_of(0x100f), Some(15));
        assert_eq!(memory(0x1000, 16).offset_of(0x1010), None);
    }
}
