#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_pci::BarKind;
use potemkin_sdk::testing::{Harness, bar0};
use potemkin_sdk::{BlockMode, Space, Width};

use super::*;

const LIMIT: Duration = Duration::from_secs(60);

const IDENTIFICATION_AT: u64 = 0x00;
const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const INTERRUPT_STATUS: u64 = 0x24;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_COMMAND: u64 = 0x98;

fn edu() -> Harness<Edu> {
    Harness::new(Edu::new().unwrap())
}

fn read(edu: &mut Harness<Edu>, offset: u64) -> u64 {
    edu.read(bar0(offset, Width::B4))
}

fn write(edu: &mut Harness<Edu>, offset: u64, value: u64) {
    edu.write(bar0(offset, Width::B4), value).unwrap();
}

#[test]
fn descriptor_says_what_the_specification_says() {
    let edu = Edu::new().unwrap();
    let descriptor = edu.descriptor();
    let bar = descriptor.bar(BarIndex::B0).unwrap();

    assert_eq!(descriptor.vendor_id(), 0x1234);
    assert_eq!(descriptor.device_id(), 0x11e8);
    assert_eq!(descriptor.revision(), 0x10);
    let class = descriptor.class();
    assert_eq!((class.base, class.sub, class.interface), (0x00, 0xff, 0x00));
    let interrupts = descriptor.interrupts();
    assert_eq!((interrupts.intx_pin, interrupts.msi_vectors), (1, 1));
    assert_eq!(interrupts.msix_vectors, 0);
    assert_eq!((bar.kind, bar.size), (BarKind::Memory32, 1 << 20));
    assert!(!bar.prefetchable);
    assert_eq!(descriptor.bars().count(), 1);
}

#[test]
fn msi_has_a_mask_bit_when_that_is_asked_for() {
    for (edu, maskable) in [
        (Edu::new().unwrap(), false),
        (Edu::new().unwrap().maskable_msi().unwrap(), true),
    ] {
        let image = edu.descriptor().config_image();
        let msi = usize::from(image[0x34]);
        let control = u16::from_le_bytes([image[msi + 2], image[msi + 3]]);

        assert_eq!(image[msi], 5);
        assert_eq!(control & 0x100 != 0, maskable);
        assert_eq!(edu.descriptor().interrupts().msi_vectors, 1);
    }
}

#[test]
fn registers_at_power_on() {
    let mut edu = edu();

    assert_eq!(read(&mut edu, IDENTIFICATION_AT), 0x0100_00ed);
    for offset in [LIVENESS, FACTORIAL, STATUS, INTERRUPT_STATUS] {
        assert_eq!(read(&mut edu, offset), 0, "{offset:#x}");
    }
    for offset in (0x80..=0x98).step_by(8) {
        assert_eq!(edu.read(bar0(offset, Width::B8)), 0, "{offset:#x}");
    }
}

#[test]
fn liveness_gives_the_complement() {
    let mut edu = edu();

    write(&mut edu, LIVENESS, 0x1234_5678);

    assert_eq!(read(&mut edu, LIVENESS), 0xedcb_a987);
}

#[test]
fn identification_and_interrupt_status_are_read_only() {
    let mut edu = edu();

    for offset in [IDENTIFICATION_AT, INTERRUPT_STATUS] {
        let at = bar0(offset, Width::B4);
        assert_eq!(edu.write(at, 5), Err(AccessError::Direction(at)));
    }

    assert_eq!(read(&mut edu, IDENTIFICATION_AT), 0x0100_00ed);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0);
}

#[test]
fn raise_and_acknowledge_read_as_all_ones() {
    let mut edu = edu();

    assert_eq!(read(&mut edu, RAISE), 0xffff_ffff);
    assert_eq!(read(&mut edu, ACKNOWLEDGE), 0xffff_ffff);
}

#[test]
fn factorial_is_computing_until_the_worker_has_it() {
    let mut edu = edu();

    write(&mut edu, FACTORIAL, 10);
    assert_eq!(read(&mut edu, STATUS), 0x01);
    assert_eq!(read(&mut edu, FACTORIAL), 10);
    assert!(edu.wait_notified(LIMIT));

    assert_eq!(read(&mut edu, STATUS), 0);
    assert_eq!(read(&mut edu, FACTORIAL), 3_628_800);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0);
}

#[test]
fn write_while_computing_is_ignored() {
    let mut edu = edu();

    write(&mut edu, FACTORIAL, 10);
    write(&mut edu, FACTORIAL, 3);
    assert!(edu.wait_notified(LIMIT));

    assert_eq!(read(&mut edu, FACTORIAL), 3_628_800);
    assert!(!edu.deliver());
}

#[test]
fn second_factorial_follows_the_first() {
    let mut edu = edu();

    write(&mut edu, FACTORIAL, 3);
    assert!(edu.wait_notified(LIMIT));
    write(&mut edu, FACTORIAL, 4);
    assert!(edu.wait_notified(LIMIT));

    assert_eq!(read(&mut edu, FACTORIAL), 24);
}

#[test]
fn status_bit_7_sets_interrupt_status_bit_0_when_done() {
    let mut edu = edu();

    write(&mut edu, STATUS, 0xffff_ffff);
    assert_eq!(read(&mut edu, STATUS), 0x80);
    write(&mut edu, FACTORIAL, 5);
    assert_eq!(read(&mut edu, STATUS), 0x81);
    assert!(edu.wait_notified(LIMIT));

    assert_eq!(read(&mut edu, STATUS), 0x80);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0x01);
}

#[test]
fn status_write_while_computing_keeps_bit_0() {
    let mut edu = edu();

    write(&mut edu, FACTORIAL, 5);
    write(&mut edu, STATUS, 0);

    assert_eq!(read(&mut edu, STATUS), 0x01);
}

#[test]
fn raised_bits_add_up_and_acknowledged_ones_go() {
    let mut edu = edu();

    write(&mut edu, RAISE, 0x0000_00f0);
    write(&mut edu, RAISE, 0x8000_0001);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0x8000_00f1);
    write(&mut edu, ACKNOWLEDGE, 0x8000_0070);

    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0x81);
}

#[test]
fn only_4_bytes_are_taken_below_0x80() {
    let mut edu = edu();
    write(&mut edu, LIVENESS, 0);

    for width in [Width::B1, Width::B2, Width::B8] {
        let at = bar0(LIVENESS, width);
        assert_eq!(edu.read(at), width.all_ones());
        assert_eq!(edu.write(at, 1), Err(AccessError::Width(at)));
    }

    assert_eq!(read(&mut edu, LIVENESS), 0xffff_ffff);
    write(&mut edu, LIVENESS, 1);
    assert_eq!(read(&mut edu, LIVENESS), 0xffff_fffe);
}

#[test]
fn dma_registers_take_4_and_8_bytes() {
    let mut edu = edu();

    for offset in [0x80, 0x88, 0x90] {
        let wide = bar0(offset, Width::B8);
        edu.write(wide, 0x1122_3344_5566_7788).unwrap();
        assert_eq!(edu.read(wide), 0x1122_3344_5566_7788);
        assert_eq!(read(&mut edu, offset), 0x5566_7788);
        write(&mut edu, offset, 0x0bad_cafe);
        assert_eq!(edu.read(wide), 0x0bad_cafe);
        for width in [Width::B1, Width::B2] {
            let narrow = bar0(offset, width);
            assert_eq!(edu.read(narrow), width.all_ones());
            assert_eq!(edu.write(narrow, 1), Err(AccessError::Width(narrow)));
        }
        assert_eq!(edu.read(wide), 0x0bad_cafe);
    }
}

#[test]
fn upper_half_of_a_dma_register_is_no_register_of_its_own() {
    let mut edu = edu();
    let upper = bar0(DMA_SOURCE + 4, Width::B4);

    assert_eq!(edu.write(upper, 1), Err(AccessError::NoRegister(upper)));

    assert_eq!(edu.read(upper), 0xffff_ffff);
    assert_eq!(edu.read(bar0(DMA_SOURCE, Width::B8)), 0);
}

#[test]
fn command_without_a_start_is_ignored() {
    let mut edu = edu();

    write(&mut edu, DMA_COMMAND, 0xffff_fffe);

    assert_eq!(read(&mut edu, DMA_COMMAND), 0);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0);
}

#[test]
fn everything_else_reads_as_all_ones() {
    let mut edu = edu();
    let registers = [0x00, 0x04, 0x08, 0x20, 0x24, 0x80, 0x88, 0x90, 0x98];

    for offset in (0..0x200).step_by(4).chain([0x40000, (1 << 20) - 4]) {
        let hit = read(&mut edu, offset) != 0xffff_ffff;
        assert_eq!(hit, registers.contains(&offset), "{offset:#x}");
    }
}

#[test]
fn configuration_space_holds_no_registers() {
    let mut edu = edu();
    let at = Register::new(Space::Config, LIVENESS, Width::B4);

    assert_eq!(edu.try_read(at), Err(AccessError::NoRegister(at)));
    assert_eq!(edu.write(at, 1), Err(AccessError::NoRegister(at)));
}

#[test]
fn string_of_reads_sees_each_register() {
    let mut edu = edu();
    write(&mut edu, LIVENESS, 0);

    let data = edu.read_block(bar0(0, Width::B4), BlockMode::Consecutive, 4);

    assert_eq!(data[..4], [0xed, 0, 0, 1]);
    assert_eq!(data[4..8], [0xff; 4]);
    assert_eq!(data[8..12], [0; 4]);
    assert_eq!(data[12..], [0xff; 4]);
}

#[test]
fn reset_puts_power_on_values_back() {
    let mut edu = edu();
    write(&mut edu, LIVENESS, 1);
    write(&mut edu, STATUS, 0x80);
    write(&mut edu, RAISE, 7);
    write(&mut edu, DMA_SOURCE, 7);
    write(&mut edu, DMA_COMMAND, 6);
    assert!(edu.intx());

    edu.reset(ResetKind::Function);

    for offset in [LIVENESS, STATUS, INTERRUPT_STATUS, DMA_SOURCE, DMA_COMMAND] {
        assert_eq!(read(&mut edu, offset), 0, "{offset:#x}");
    }
    assert!(!edu.intx());
}

#[test]
fn reset_while_computing_drops_the_result() {
    let mut edu = edu();
    write(&mut edu, FACTORIAL, 5);

    edu.reset(ResetKind::Session);
    edu.deliver();
    assert_eq!(read(&mut edu, FACTORIAL), 0);
    assert_eq!(read(&mut edu, STATUS), 0);
    write(&mut edu, FACTORIAL, 4);
    while read(&mut edu, STATUS) & 1 != 0 {
        assert!(edu.wait_notified(LIMIT));
    }

    assert_eq!(read(&mut edu, FACTORIAL), 24);
}

mod bus;
