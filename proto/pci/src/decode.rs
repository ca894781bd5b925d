//! The local decode: from an address on the bus to a space of the function's and an offset in it.

use crate::{BarKind, ConfigSpace, Space};

/// Where a memory access of `length` bytes at `address` goes; `None` when this function does not answer it.
///
/// The enable bits and the power state are obeyed. An access that only begins in a BAR is not the function's. Where a BAR and the ROM
/// overlap, the BAR answers.
#[must_use]
pub fn decode_memory(config: &ConfigSpace, address: u64, length: u64) -> Option<(Space, u64)> {
    if !config.memory_enabled() {
        return None;
    }
    decode_bars(config, address, length, BarKind::is_memory)
        .or_else(|| decode_rom(config, address, length))
}

/// Where a port access of `length` bytes at `port` goes; `None` when this function does not answer it.
///
/// Ports have 16 bits: a BAR that the guest placed beyond is out of reach.
#[must_use]
pub fn decode_port(config: &ConfigSpace, port: u16, length: u64) -> Option<(Space, u64)> {
    if !config.io_enabled() {
        return None;
    }
    decode_bars(config, port.into(), length, |kind| !kind.is_memory())
}

fn decode_bars(
    config: &ConfigSpace,
    address: u64,
    length: u64,
    fits: impl Fn(BarKind) -> bool,
) -> Option<(Space, u64)> {
    config.bar_addresses().find_map(|(index, bar, base)| {
        let offset = offset_within(base, bar.size, address, length)?;
        fits(bar.kind).then_some((Space::Bar(index), offset))
    })
}

fn decode_rom(config: &ConfigSpace, address: u64, length: u64) -> Option<(Space, u64)> {
    let rom = config.descriptor().rom().filter(|_| config.rom_enabled())?;
    let base = config.rom_address()?;
    let offset = offset_within(base, rom.len() as u64, address, length)?;
    Some((Space::Rom, offset))
}

/// The offset of `address` from `base`, if all of the access lies within the `size` bytes there.
fn offset_within(base: u64, size: u64, address: u64, length: u64) -> Option<u64> {
    let offset = address.checked_sub(base)?;
    let room = size.checked_sub(offset)?;
    (room > 0 && length <= room).then_some(offset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{Bar, BarIndex, Capability, DescriptorBuilder};

    const BAR0: u32 = 0xe000_0000;
    const BAR2: u64 = 0x12_4000_0000;
    const ROM: u32 = 0xfeb0_0000;
    const PORT: u32 = 0xc000;

    /// All placed and everything enabled.
    fn config() -> ConfigSpace {
        let descriptor = DescriptorBuilder::new(1, 1)
            .bar(BarIndex::B0, Bar::memory32(4096))
            .bar(BarIndex::B1, Bar::io(16))
            .bar(BarIndex::B2, Bar::memory64(1 << 20))
            .bar(BarIndex::B4, Bar::memory_below_1m(4096))
            .rom(vec![0; 2048])
            .capability_at(0x40, Capability::power_management())
            .build()
            .unwrap();
        let mut config = ConfigSpace::new(&descriptor);
        let _ = config.write(0x10, &BAR0.to_le_bytes());
        let _ = config.write(0x14, &PORT.to_le_bytes());
        let _ = config.write(0x18, &BAR2.to_le_bytes());
        let _ = config.write(0x20, &0x000d_0000_u32.to_le_bytes());
        let _ = config.write(0x30, &(ROM | 1).to_le_bytes());
        let _ = config.write(0x04, &[0x03]);
        config
    }

    fn bar(index: BarIndex, offset: u64) -> Option<(Space, u64)> {
        Some((Space::Bar(index), offset))
    }

    #[test]
    fn each_space_is_found_at_its_address() {
        let config = config();
        assert_eq!(
            decode_memory(&config, 0xe000_0ffc, 4),
            bar(BarIndex::B0, 0xffc)
        );
        assert_eq!(decode_memory(&config, BAR2 + 8, 8), bar(BarIndex::B2, 8));
        assert_eq!(decode_memory(&config, 0xd_0010, 1), bar(BarIndex::B4, 0x10));
        assert_eq!(
            decode_memory(&config, 0xfeb0_0002, 2),
            Some((Space::Rom, 2))
        );
        assert_eq!(decode_port(&config, 0xc00f, 1), bar(BarIndex::B1, 15));
    }

    #[test]
    fn memory_and_ports_are_not_mixed_up() {
        let config = config();
        assert_eq!(decode_memory(&config, PORT.into(), 1), None);
        assert_eq!(decode_port(&config, 0, 1), None);
    }

    #[test]
    fn an_access_across_an_edge_is_not_the_functions() {
        let config = config();
        assert_eq!(decode_memory(&config, 0xe000_0ffd, 4), None);
        assert_eq!(decode_memory(&config, 0xdfff_ffff, 2), None);
        assert_eq!(decode_memory(&config, 0xe000_1000, 1), None);
        assert_eq!(decode_memory(&config, 0xe000_1000, 0), None);
        assert_eq!(decode_port(&config, 0xc00f, 2), None);
    }

    #[test]
    fn disabled_decode_finds_nothing() {
        let mut config = config();
        let _ = config.write(0x04, &[0x01]);
        assert_eq!(decode_memory(&config, BAR0.into(), 4), None);
        assert_eq!(decode_memory(&config, ROM.into(), 4), None);
        assert!(decode_port(&config, 0xc000, 1).is_some());
        let _ = config.write(0x04, &[0x02]);
        assert_eq!(decode_port(&config, 0xc000, 1), None);
        assert!(decode_memory(&config, BAR0.into(), 4).is_some());
    }

    #[test]
    fn the_rom_needs_its_own_enable_bit_too() {
        let mut config = config();
        let _ = config.write(0x30, &ROM.to_le_bytes());
        assert_eq!(decode_memory(&config, ROM.into(), 4), None);
    }

    #[test]
    fn a_sleeping_function_decodes_nothing() {
        let mut config = config();
        let _ = config.write(0x44, &[0x03]);
        assert_eq!(decode_memory(&config, BAR0.into(), 4), None);
        assert_eq!(decode_port(&config, 0xc000, 1), None);
    }

    #[test]
    fn base_0_is_a_base_when_decode_is_on() {
        let mut config = config();
        config.reset();
        assert_eq!(decode_memory(&config, 0, 4), None);
        let _ = config.write(0x04, &[0x03]);
        assert_eq!(decode_memory(&config, 0xffc, 4), bar(BarIndex::B0, 0xffc));
        assert_eq!(decode_memory(&config, 0x1000, 4), bar(BarIndex::B2, 0x1000));
        assert_eq!(decode_port(&config, 0, 1), bar(BarIndex::B1, 0));
    }

    #[test]
    fn a_rom_at_0_needs_its_enable_bit() {
        let descriptor = DescriptorBuilder::new(1, 1).rom(vec![0; 2048]);
        let mut config = ConfigSpace::new(&descriptor.build().unwrap());
        let _ = config.write(0x04, &[0x02]);
        assert_eq!(decode_memory(&config, 0, 4), None);
        let _ = config.write(0x30, &[1]);
        assert_eq!(decode_memory(&config, 4, 4), Some((Space::Rom, 4)));
    }

    #[test]
    fn a_bar_near_the_top_does_not_wrap() {
        let mut config = config();
        let _ = config.write(0x18, &0xfffe_ffff_fff0_0000_u64.to_le_bytes());
        let top = 0xfffe_ffff_ffff_ffff;
        assert_eq!(decode_memory(&config, top, 1), bar(BarIndex::B2, 0xf_ffff));
        assert_eq!(decode_memory(&config, top, 2), None);
        assert_eq!(decode_memory(&config, top, u64::MAX), None);
        assert_eq!(decode_memory(&config, u64::MAX, u64::MAX), None);
    }

    #[test]
    fn where_a_bar_covers_the_rom_the_bar_answers() {
        let mut config = config();
        let _ = config.write(0x10, &ROM.to_le_bytes());
        assert_eq!(decode_memory(&config, ROM.into(), 4), bar(BarIndex::B0, 0));
    }

    proptest! {
        #[test]
        fn what_is_found_lies_within_the_space(
            registers in any::<[u8; 36]>(),
            base in prop::sample::select(vec![0, u64::from(BAR0), BAR2, u64::from(ROM), u64::MAX]),
            delta in -5000_i64..5000,
            length in prop_oneof![0..17_u64, any::<u64>()],
            place in any::<bool>(),
        ) {
            let mut config = config();
            if place {
                let _ = config.write(0x10, &registers);
            }
            let address = base.wrapping_add_signed(delta);
            if let Some((Space::Bar(index), offset)) = decode_memory(&config, address, length) {
                let size = config.descriptor().bar(index).unwrap().size;
                prop_assert!(offset < size && length <= size - offset);
                prop_assert_eq!(config.bar_address(index).unwrap() + offset, address);
            }
        }
    }
}
