//! BARs and the ROM register.

use proptest::prelude::*;

use super::{bar_offset, config, read32, write32};
use crate::{Bar, BarIndex, BarSet, ConfigSpace, DescriptorBuilder, WriteOutcome, registers::ROM};

fn only(index: BarIndex) -> BarSet {
    [index].into_iter().collect()
}

#[test]
fn all_ones_reads_back_as_size_and_type() {
    let mut config = config();
    for (index, expected) in [
        (BarIndex::B0, 0xffff_f000),
        (BarIndex::B1, 0xffff_fff1),
        (BarIndex::B2, 0xfff0_000c),
        (BarIndex::B3, 0xffff_ffff),
        (BarIndex::B4, 0xffff_f002),
        (BarIndex::B5, 0),
    ] {
        let _ = write32(&mut config, bar_offset(index), u32::MAX);
        assert_eq!(read32(&config, bar_offset(index)), expected, "BAR {index}");
    }
    let _ = write32(&mut config, ROM, 0xffff_fffe);
    assert_eq!(read32(&config, ROM), 0xffff_f000);
}

#[test]
fn sizing_a_placed_bar_moves_nothing() {
    let mut config = config();
    let outcome = write32(&mut config, bar_offset(BarIndex::B0), 0xe000_1000);
    assert_eq!(outcome.bars_changed, only(BarIndex::B0));
    for pattern in [u32::MAX, 0xffff_fff0, 0xffff_fffe, 0xffff_fffc, 0xffff_f800] {
        let sized = write32(&mut config, bar_offset(BarIndex::B0), pattern);
        assert_eq!(sized, WriteOutcome::default(), "{pattern:#x}");
        assert_eq!(read32(&config, bar_offset(BarIndex::B0)), 0xffff_f000);
        assert_eq!(config.bar_address(BarIndex::B0), Some(0xe000_1000));
        let restored = write32(&mut config, bar_offset(BarIndex::B0), 0xe000_1000);
        assert_eq!(restored, WriteOutcome::default());
    }
}

#[test]
fn bar64_below_4g_is_placed_by_its_low_half_alone() {
    let mut config = config();
    let outcome = write32(&mut config, bar_offset(BarIndex::B2), 0xfe10_0000);
    assert_eq!(outcome.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0xfe10_0000));
    let high = write32(&mut config, bar_offset(BarIndex::B3), 0);
    assert_eq!(high.bars_changed, BarSet::EMPTY);
}

#[test]
fn bar64_above_4g_is_composed_of_both_halves() {
    let mut config = config();
    let _ = write32(&mut config, bar_offset(BarIndex::B2), 0xfe10_000c);
    let outcome = write32(&mut config, bar_offset(BarIndex::B3), 0x12);
    assert_eq!(outcome.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x12_fe10_0000));
    assert_eq!(config.bar_address(BarIndex::B3), None);
}

#[test]
fn both_halves_written_at_once_move_a_bar64_once() {
    let mut config = config();
    let outcome = config.write(0x18, &0x34_0010_0000_u64.to_le_bytes());
    assert_eq!(outcome.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x34_0010_0000));
}

#[test]
fn sizing_one_half_after_the_other_keeps_a_bar64_where_it_is() {
    let mut config = config();
    let _ = config.write(0x18, &0x34_0010_0000_u64.to_le_bytes());
    for (half, address) in [(0x18, 0x0010_0000), (0x1c, 0x34)] {
        assert_eq!(
            write32(&mut config, half, u32::MAX).bars_changed,
            BarSet::EMPTY
        );
        assert_eq!(
            write32(&mut config, half, address).bars_changed,
            BarSet::EMPTY
        );
    }
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x34_0010_0000));
}

#[test]
fn a_bar_of_2g_at_2g_is_an_address_though_it_reads_like_a_size() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory32(1 << 31))
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let _ = write32(&mut config, 0x10, u32::MAX);
    assert_eq!(config.bar_address(BarIndex::B0), Some(0));
    let outcome = write32(&mut config, 0x10, 0x8000_0000);
    assert_eq!(outcome.bars_changed, only(BarIndex::B0));
    assert_eq!(config.bar_address(BarIndex::B0), Some(0x8000_0000));
}

#[test]
fn a_bar_of_1t_has_no_writable_bits_in_its_low_half() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory64(1 << 40))
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let _ = config.write(0x10, &[0xff; 8]);
    assert_eq!(read32(&config, 0x10), 0b0100);
    assert_eq!(read32(&config, 0x14), 0xffff_ff00);
    let _ = config.write(0x10, &(3_u64 << 40).to_le_bytes());
    assert_eq!(config.bar_address(BarIndex::B0), Some(3 << 40));
}

#[test]
fn base_0_is_a_base() {
    let mut config = config();
    assert_eq!(config.bar_address(BarIndex::B0), Some(0));
    let _ = write32(&mut config, 0x10, 0xe000_0000);
    let outcome = write32(&mut config, 0x10, 0);
    assert_eq!(outcome.bars_changed, only(BarIndex::B0));
    assert_eq!(config.bar_address(BarIndex::B0), Some(0));
    assert_eq!(config.bar_address(BarIndex::B5), None);
}

#[test]
fn an_address_is_rounded_down_to_the_size() {
    let mut config = config();
    let _ = write32(&mut config, 0x10, 0xe000_1ffe);
    assert_eq!(config.bar_address(BarIndex::B0), Some(0xe000_1000));
    assert_eq!(read32(&config, 0x10), 0xe000_1000);
}

#[test]
fn a_byte_write_lands_on_its_own_byte() {
    let mut config = config();
    let _ = write32(&mut config, 0x10, 0xe000_1000);
    let outcome = config.write(0x13, &[0xd0]);
    assert_eq!(outcome.bars_changed, only(BarIndex::B0));
    assert_eq!(config.bar_address(BarIndex::B0), Some(0xd000_1000));
    let unmoved = config.write(0x10, &[0xff]);
    assert_eq!(unmoved.bars_changed, BarSet::EMPTY);
    assert_eq!(read32(&config, 0x10), 0xd000_1000);
}

#[test]
fn registers_of_absent_bars_stay_0() {
    let mut config = config();
    let outcome = write32(&mut config, bar_offset(BarIndex::B5), 0xe000_0000);
    assert_eq!(outcome, WriteOutcome::default());
    assert_eq!(read32(&config, bar_offset(BarIndex::B5)), 0);
}

#[test]
fn one_write_over_all_bars_reports_each_that_moved() {
    let mut config = config();
    let mut values = [0; 24];
    for (at, address) in [(0, 0xe000_0000_u32), (4, 0xc000), (8, 0), (16, 0xd_0000)] {
        values[at..at + 4].copy_from_slice(&address.to_le_bytes());
    }
    let outcome = config.write(0x10, &values);
    let moved: Vec<_> = outcome.bars_changed.iter().collect();
    assert_eq!(moved, [BarIndex::B0, BarIndex::B1, BarIndex::B4]);
    assert_eq!(config.bar_address(BarIndex::B1), Some(0xc000));
    assert_eq!(config.bar_address(BarIndex::B4), Some(0xd_0000));
}

#[test]
fn the_rom_has_an_address_and_an_enable_bit() {
    let mut config = config();
    assert!(write32(&mut config, ROM, 0xfeb0_0000).rom_changed);
    assert_eq!(config.rom_address(), Some(0xfeb0_0000));
    assert!(!config.rom_enabled());
    assert!(write32(&mut config, ROM, 0xfeb0_0001).rom_changed);
    assert!(config.rom_enabled());
    assert!(!write32(&mut config, ROM, 0xfeb0_07ff).rom_changed);
    assert_eq!(read32(&config, ROM), 0xfeb0_0001);
}

#[test]
fn sizing_the_rom_keeps_its_address() {
    let mut config = config();
    let _ = write32(&mut config, ROM, 0xfeb0_0000);
    assert!(!write32(&mut config, ROM, 0xffff_f800).rom_changed);
    assert_eq!(config.rom_address(), Some(0xfeb0_0000));
}

#[test]
fn without_a_rom_its_register_stays_0() {
    let descriptor = DescriptorBuilder::new(1, 1).build().unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    assert!(!write32(&mut config, ROM, u32::MAX).rom_changed);
    assert_eq!(read32(&config, ROM), 0);
    assert!(!config.rom_enabled());
}

#[test]
fn reset_forgets_addresses() {
    let mut config = config();
    let _ = write32(&mut config, 0x10, 0xe000_0000);
    let _ = write32(&mut config, ROM, 0xfeb0_0001);
    config.reset();
    assert!(config.bar_addresses().all(|(_, _, base)| base == 0));
    assert_eq!(
        (config.rom_address(), config.rom_enabled()),
        (Some(0), false)
    );
    assert_eq!(read32(&config, 0x18), 0b1100);
}

/// BAR 2 at 0x34_0010_0000, decoding.
fn decoding() -> ConfigSpace {
    let mut config = config();
    let _ = config.write(0x18, &0x34_0010_0000_u64.to_le_bytes());
    let _ = config.write(0x04, &[0x03]);
    config
}

#[test]
fn a_decoding_bar64_moves_with_its_second_half_in_either_order() {
    for [first, second] in [
        [(0x18, 0x0020_0000), (0x1c, 0x35)],
        [(0x1c, 0x35), (0x18, 0x0020_0000)],
    ] {
        let mut config = decoding();
        let half = write32(&mut config, first.0, first.1);
        assert!(half.bars_changed.is_empty());
        assert_eq!(config.bar_address(BarIndex::B2), Some(0x34_0010_0000));
        let whole = write32(&mut config, second.0, second.1);
        assert_eq!(whole.bars_changed, only(BarIndex::B2));
        assert_eq!(config.bar_address(BarIndex::B2), Some(0x35_0020_0000));
    }
}

#[test]
fn a_decoding_bar64_moves_with_the_last_of_its_bytes() {
    let mut config = decoding();
    for (at, word) in [(0x1e, 0x0001_u16), (0x18, 0), (0x1c, 0x35)] {
        assert!(
            config
                .write(at, &word.to_le_bytes())
                .bars_changed
                .is_empty()
        );
    }
    let last = config.write(0x1a, &[0x20, 0]);
    assert_eq!(last.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x1_0035_0020_0000));
}

#[test]
fn a_decoding_bar64_whose_one_half_was_written_moves_with_the_next_register() {
    let mut config = decoding();
    let _ = write32(&mut config, 0x18, 0x0020_0000);
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x34_0010_0000));
    let other = config.write(0x3c, &[5]);
    assert_eq!(other.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x34_0020_0000));
}

#[test]
fn a_bar64_below_4g_that_decodes_moves_when_its_high_half_is_written_with_0() {
    let mut config = config();
    let _ = write32(&mut config, 0x18, 0xfe10_0000);
    let _ = config.write(0x04, &[0x02]);
    let _ = write32(&mut config, 0x18, 0xfe20_0000);
    let outcome = write32(&mut config, 0x1c, 0);
    assert_eq!(outcome.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0xfe20_0000));
}

#[test]
fn a_decoding_bar64_stays_while_a_half_asks_for_the_size_whatever_else_is_written() {
    let mut config = decoding();
    let _ = write32(&mut config, 0x18, 0x0020_0000);
    let _ = write32(&mut config, 0x1c, u32::MAX);
    let elsewhere = write32(&mut config, 0x10, 0xffff_ffff);
    assert!(elsewhere.bars_changed.is_empty());
    let placed = write32(&mut config, 0x1c, 0x35);
    assert_eq!(placed.bars_changed, only(BarIndex::B2));
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x35_0020_0000));
}

#[test]
fn turning_decode_off_lets_half_a_bar64_count() {
    let mut config = decoding();
    let _ = write32(&mut config, 0x18, 0x0020_0000);
    let _ = config.write(0x04, &[0]);
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x34_0020_0000));
    let _ = write32(&mut config, 0x1c, 0x36);
    assert_eq!(config.bar_address(BarIndex::B2), Some(0x36_0020_0000));
}

#[test]
fn asking_for_the_size_word_by_word_moves_nothing() {
    let mut config = config();
    let bases = [(0x10, 0xe000_1000), (0x14, 0xc000), (0x20, 0x000d_0000)];
    for (at, base) in bases {
        let _ = write32(&mut config, at, base);
    }
    let _ = config.write(0x04, &[0x03]);
    for (at, base) in bases {
        let [a, b, c, d] = base.to_le_bytes();
        let at = u16::try_from(at).unwrap();
        for (at, word) in [
            (at, [0xff; 2]),
            (at + 2, [0xff; 2]),
            (at, [a, b]),
            (at + 2, [c, d]),
        ] {
            assert!(config.write(at, &word).bars_changed.is_empty());
        }
    }
}

#[test]
fn the_rom_stays_enabled_or_disabled_while_it_is_sized() {
    let mut config = config();
    for base in [0xfeb0_0001, 0xfeb0_0000] {
        let _ = write32(&mut config, ROM, base);
        for pattern in [u32::MAX, 0xffff_fffe, 0xffff_f800, 0xffff_f801] {
            assert!(!write32(&mut config, ROM, pattern).rom_changed);
            assert!(!write32(&mut config, ROM, base).rom_changed);
        }
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}

fn any_bar() -> impl Strategy<Value = Bar> {
    prop_oneof![
        (2..=8_u32).prop_map(|log2| Bar::io(1 << log2)),
        (4..=31_u32).prop_map(|log2| Bar::memory32(1 << log2)),
        (4..=31_u32).prop_map(|log2| Bar::memory32(1 << log2).prefetchable()),
        (4..=40_u32).prop_map(|log2| Bar::memory64(1 << log2)),
        (4..=40_u32).prop_map(|log2| Bar::memory64(1 << log2).prefetchable()),
        (4..=19_u32).prop_map(|log2| Bar::memory_below_1m(1 << log2)),
    ]
}

proptest! {
    /// What every firmware and kernel does: write a pattern to each half, read it, put the half back.
    #[test]
    fn sizing_tells_the_size_and_never_loses_the_base(
        bar in any_bar(),
        page in prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from)],
        together in any::<bool>(),
        decodes in any::<bool>(),
        pattern in prop::sample::select(vec![u32::MAX, 0xffff_fffe, 0xffff_fffc, 0xffff_fff0]),
    ) {
        let descriptor = DescriptorBuilder::new(1, 1).bar(BarIndex::B0, bar).build().unwrap();
        let mut config = ConfigSpace::new(&descriptor);
        // Below the top, where nothing can be placed.
        let base = page & (bar.size_mask() >> 1) & bar.size_mask();
        let _ = config.write(0x10, &base.to_le_bytes());
        let _ = config.write(0x04, &[if decodes { 3 } else { 0 }]);
        let placed = config.bar_address(BarIndex::B0);
        prop_assert_eq!(placed, Some(base));

        // Half after half, or both and then both back.
        let halves = if bar.is_64_bit() { vec![0x10, 0x14] } else { vec![0x10] };
        let rounds = if together { vec![halves] } else { halves.chunks(1).map(<[_]>::to_vec).collect() };
        let mut size_mask = 0;
        for round in rounds {
            let old: Vec<_> = round.iter().map(|&half| read32(&config, half)).collect();
            for &half in &round {
                // Each asks for the size if it sets all bits of an address in this register.
                let pattern = match half {
                    0x14 => u32::MAX,
                    _ => pattern | low(bar.size_mask()),
                };
                prop_assert!(write32(&mut config, half, pattern).bars_changed.is_empty());
            }
            prop_assert_eq!(config.bar_address(BarIndex::B0), placed);
            for (&half, old) in round.iter().zip(old) {
                size_mask |= u64::from(read32(&config, half)) << (8 * (half - 0x10));
                prop_assert!(write32(&mut config, half, old).bars_changed.is_empty());
            }
        }
        prop_assert_eq!(size_mask, bar.size_mask() | u64::from(bar.type_bits()));
        prop_assert_eq!(config.bar_address(BarIndex::B0), placed);
    }
}
