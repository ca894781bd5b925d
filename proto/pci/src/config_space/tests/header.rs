//! The header's registers, and reads in general.

use super::{config, descriptor, read32, write32};
use crate::{
    Bar, BarIndex, ConfigSpace, DescriptorBuilder, WriteOutcome,
    registers::{
        COMMAND, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY,
        INTERRUPT_LINE, STATUS,
    },
};

#[test]
fn ids_are_read_only() {
    let mut config = config();
    let outcome = write32(&mut config, 0, u32::MAX);
    assert_eq!(outcome, WriteOutcome::default());
    assert_eq!(read32(&config, 0), 0x5678_1234);
}

#[test]
fn each_enable_bit_follows_the_command_register() {
    let mut config = config();
    for (bit, enabled) in [
        (
            COMMAND_IO,
            ConfigSpace::io_enabled as fn(&ConfigSpace) -> bool,
        ),
        (COMMAND_MEMORY, ConfigSpace::memory_enabled),
        (COMMAND_BUS_MASTER, ConfigSpace::bus_master_enabled),
        (COMMAND_INTX_DISABLE, ConfigSpace::intx_disabled),
    ] {
        assert!(!enabled(&config));
        let outcome = config.write(4, &bit.to_le_bytes());
        assert!(outcome.command_changed && enabled(&config), "{bit:#x}");
        let _ = config.write(4, &[0, 0]);
    }
}

#[test]
fn decode_bits_without_bars_are_not_writable() {
    let descriptor = DescriptorBuilder::new(1, 1).build().unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let _ = config.write(4, &[0xff, 0xff]);
    assert_eq!(config.command(), 0x0544);
}

#[test]
fn turning_bus_mastering_off_is_reported_once() {
    let mut config = config();
    assert!(!config.write(4, &[0x04]).bus_master_cleared);
    assert!(!config.write(4, &[0x06]).bus_master_cleared);
    assert!(config.write(4, &[0x02]).bus_master_cleared);
    assert!(!config.write(4, &[0x00]).bus_master_cleared);
}

#[test]
fn a_write_of_the_same_command_changes_nothing() {
    let mut config = config();
    assert!(config.write(4, &[0x06]).command_changed);
    assert!(!config.write(4, &[0x06]).command_changed);
}

#[test]
fn status_bits_are_cleared_by_ones_and_left_by_zeros() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .initial(0x06, &[0x00, 0xf9])
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let _ = config.write(6, &[0xff, 0x81]);
    assert_eq!(read32(&config, 4) >> 16, 0x7800);
    let _ = config.write(6, &[0x00, 0x00]);
    assert_eq!(read32(&config, 4) >> 16, 0x7800);
}

#[test]
fn the_interrupt_status_bit_follows_the_function() {
    let mut config = config();
    config.set_interrupt_status(true);
    let _ = config.write(6, &[0xff, 0xff]);
    assert_eq!(read32(&config, COMMAND) >> 16, 0x0018);
    config.set_interrupt_status(false);
    assert_eq!(read32(&config, COMMAND) >> 16, 0x0010);
    assert_eq!(STATUS, COMMAND + 2);
}

#[test]
fn the_interrupt_line_keeps_what_firmware_writes() {
    let mut config = config();
    let outcome = config.write(0x3c, &[0x0b, 0xff]);
    assert_eq!(outcome, WriteOutcome::default());
    assert_eq!(read32(&config, INTERRUPT_LINE), 0x010b);
}

#[test]
fn reads_beyond_conventional_space_are_all_ones() {
    let config = config();
    let mut bytes = [0; 8];
    let _ = config.read(0xfc, &mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let _ = config.read(0xffff, &mut bytes);
    assert_eq!(bytes, [0xff; 8]);
}

#[test]
fn absent_registers_of_extended_space_are_0() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .extended_config()
        .build()
        .unwrap();
    let config = ConfigSpace::new(&descriptor);
    let mut bytes = [0xaa; 8];
    let _ = config.read(0xffc, &mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
}

#[test]
fn one_read_gets_all_of_the_image() {
    let config = config();
    let mut bytes = [0; 256];
    let volatile = config.read(0, &mut bytes);
    assert_eq!(bytes, descriptor().config_image());
    assert!(volatile.is_empty());
}

#[test]
fn writes_beyond_the_end_are_dropped() {
    let mut config = config();
    assert_eq!(config.write(0x100, &[0xff; 4]), WriteOutcome::default());
    assert_eq!(config.write(0xffff, &[0xff; 4]), WriteOutcome::default());
    assert_eq!(config.write(0x3c, &[]), WriteOutcome::default());
    let all = config.write(0, &[0xff; 4096]);
    assert!(all.command_changed);
}

fn with_volatile_and_forwarded() -> ConfigSpace {
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory32(16))
        .initial(0x60, &[0xa0, 0xb0, 0xc0, 0xd0])
        .volatile(0x61, &[0x0f, 0xff])
        .writable(0x70, &[0xff; 4])
        .forwarded(0x72, &[0x01])
        .build()
        .unwrap();
    ConfigSpace::new(&descriptor)
}

#[test]
fn a_read_says_which_bytes_the_host_must_be_asked_for() {
    let config = with_volatile_and_forwarded();
    for (offset, length, expected) in [
        (0x60, 4, 1..3),
        (0x62, 1, 0..1),
        (0x5c, 6, 5..6),
        (0x00, 256, 0x61..0x63),
    ] {
        let volatile = config.read(offset, &mut vec![0; length]);
        assert_eq!(volatile.range(), expected);
    }
    for (offset, length) in [(0x63, 1), (0x60, 1), (0, 4), (0x200, 4)] {
        let volatile = config.read(offset, &mut vec![0; length]);
        assert!(volatile.is_empty());
    }
}

#[test]
fn only_volatile_bits_come_from_the_host() {
    let config = with_volatile_and_forwarded();
    let mut bytes = [0; 4];
    let volatile = config.read(0x60, &mut bytes);
    let host = [0x11, 0x12];
    config.merge_volatile(0x61, &mut bytes[volatile.range()], &host);
    assert_eq!(bytes, [0xa0, 0xb1, 0x12, 0xd0]);
}

#[test]
fn a_host_answer_of_the_wrong_length_is_taken_as_far_as_it_goes() {
    let config = with_volatile_and_forwarded();
    let mut bytes = [0xff; 2];
    config.merge_volatile(0x61, &mut bytes, &[0x00]);
    assert_eq!(bytes, [0xf0, 0xff]);
    config.merge_volatile(0xffff, &mut bytes, &[0x00; 64]);
    assert_eq!(bytes, [0xf0, 0xff]);
}

#[test]
fn a_write_is_forwarded_when_it_touches_a_forwarded_byte() {
    let mut config = with_volatile_and_forwarded();
    assert!(config.write(0x70, &[1; 4]).forward);
    assert!(config.write(0x72, &[1]).forward);
    assert!(!config.write(0x70, &[1; 2]).forward);
    assert!(!config.write(0x73, &[1]).forward);
    assert_eq!(read32(&config, 0x70), 0x0101_0101);
}
