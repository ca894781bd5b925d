//! DMA and interrupts.

use potemkin_sdk::BusMaster;
use potemkin_sdk::testing::BusEvent;

use super::*;

const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;

const BUFFER: u64 = 0x40000;
const MEMORY: u64 = 0x1000;
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
const INTERRUPT: u64 = 4;

/// With a page of guest memory that holds 0, 1, 2 and so on.
fn edu_with_memory() -> Harness<Edu> {
    let mut edu = edu();
    edu.map_memory(MEMORY, 4096);
    for (n, byte) in edu.memory(MEMORY, 4096).iter_mut().enumerate() {
        *byte = n.to_le_bytes()[0];
    }
    edu
}

/// Sets the engine up and writes its command; the device may refuse that.
fn transfer(edu: &mut Harness<Edu>, from: u64, to: u64, count: u64, command: u64) -> bool {
    for (offset, value) in [
        (DMA_SOURCE, from),
        (DMA_DESTINATION, to),
        (DMA_COUNT, count),
    ] {
        edu.write(bar0(offset, Width::B8), value).unwrap();
    }
    edu.write(bar0(DMA_COMMAND, Width::B4), command).is_ok()
}

fn written(address: u64, data: &[u8]) -> BusEvent {
    let data = data.to_vec();
    BusEvent::Written { address, data }
}

#[test]
fn block_goes_into_the_buffer_and_comes_back() {
    let mut edu = edu_with_memory();

    assert!(transfer(&mut edu, MEMORY + 1, BUFFER + 8, 100, START));
    assert_eq!(read(&mut edu, DMA_COMMAND), START);
    edu.serve_dma();
    assert_eq!(read(&mut edu, DMA_COMMAND), 0);
    assert!(transfer(
        &mut edu,
        BUFFER + 8,
        MEMORY + 0x800,
        100,
        START | TO_MEMORY
    ));
    assert_eq!(read(&mut edu, DMA_COMMAND), TO_MEMORY);

    let expected: Vec<u8> = (1..=100).collect();
    assert_eq!(edu.memory(MEMORY + 0x800, 100), expected);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0);
    assert!(!edu.intx());
}

#[test]
fn data_is_in_memory_before_the_interrupt() {
    let mut edu = edu_with_memory();

    transfer(&mut edu, BUFFER, MEMORY, 2, START | TO_MEMORY | INTERRUPT);

    assert_eq!(
        edu.take_events(),
        [
            written(MEMORY, &[0, 0]),
            BusEvent::Intx(true),
            BusEvent::Msi(0)
        ]
    );
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0x100);
    write(&mut edu, ACKNOWLEDGE, 0x100);
    assert_eq!(edu.take_events(), [BusEvent::Intx(false)]);
}

#[test]
fn interrupt_of_a_read_comes_with_its_bytes() {
    let mut edu = edu_with_memory();

    transfer(&mut edu, MEMORY, BUFFER, 4096, START | INTERRUPT);
    assert_eq!(edu.take_events(), []);
    edu.serve_dma();

    let (address, length) = (MEMORY, 4096);
    assert_eq!(
        edu.take_events(),
        [
            BusEvent::Read { address, length },
            BusEvent::Intx(true),
            BusEvent::Msi(0)
        ]
    );
}

#[test]
fn registers_of_the_engine_are_kept_during_a_transfer() {
    let mut edu = edu_with_memory();
    transfer(&mut edu, MEMORY, BUFFER, 4, START);

    transfer(&mut edu, 1, 2, 3, START | TO_MEMORY);

    let values = [DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND];
    let values = values.map(|offset| read(&mut edu, offset));
    assert_eq!(values, [MEMORY, BUFFER, 4, START]);
    assert_eq!(edu.serve_dma(), 1);
    assert_eq!(read(&mut edu, DMA_COMMAND), 0);
}

#[test]
fn transfer_outside_of_the_buffer_is_refused_and_ends() {
    let mut edu = edu_with_memory();

    for (ours, count) in [
        (BUFFER - 1, 1),
        (BUFFER, 4097),
        (BUFFER + 4095, 2),
        (0, 1),
        (BUFFER + 1, u64::MAX),
    ] {
        assert!(!transfer(&mut edu, MEMORY, ours, count, START));
        assert!(!transfer(
            &mut edu,
            ours,
            MEMORY,
            count,
            START | TO_MEMORY | INTERRUPT
        ));
        assert_eq!(read(&mut edu, DMA_COMMAND), TO_MEMORY | INTERRUPT);
        assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0x100);
        write(&mut edu, ACKNOWLEDGE, 0x100);
    }

    assert_eq!(edu.serve_dma(), 0);
    let moved =
        |event: &BusEvent| matches!(event, BusEvent::Written { .. } | BusEvent::Read { .. });
    assert!(!edu.take_events().iter().any(moved));
}

#[test]
fn transfer_of_no_byte_is_done_at_once() {
    let mut edu = edu_with_memory();

    assert!(transfer(&mut edu, MEMORY, BUFFER, 0, START | INTERRUPT));

    assert_eq!(read(&mut edu, DMA_COMMAND), INTERRUPT);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0x100);
}

#[test]
fn guest_address_is_cut_to_the_mask() {
    let mut edu = edu_with_memory();
    transfer(
        &mut edu,
        BUFFER,
        0xffff_f000_0000 + MEMORY,
        1,
        START | TO_MEMORY,
    );
    assert_eq!(edu.take_events(), [written(MEMORY, &[0])]);

    let mut wide = Harness::new(Edu::new().unwrap().dma_mask(u64::MAX));
    wide.map_memory(1 << 40, 16);
    transfer(&mut wide, BUFFER, 1 << 40, 1, START | TO_MEMORY);
    assert_eq!(wide.take_events(), [written(1 << 40, &[0])]);
}

#[test]
fn failed_transfer_ends_with_its_interrupt() {
    let mut edu = edu();

    transfer(&mut edu, MEMORY, BUFFER, 4, START | INTERRUPT);
    edu.serve_dma();
    assert_eq!(read(&mut edu, DMA_COMMAND), INTERRUPT);
    assert_eq!(edu.take_events(), [BusEvent::Intx(true), BusEvent::Msi(0)]);
    transfer(&mut edu, BUFFER, MEMORY, 4, START | TO_MEMORY);
    assert_eq!(edu.serve_dma(), 1);

    assert_eq!(read(&mut edu, DMA_COMMAND), TO_MEMORY);
}

#[test]
fn bus_mastering_turned_off_ends_the_transfer() {
    let mut edu = edu_with_memory();
    transfer(&mut edu, MEMORY, BUFFER, 4, START | INTERRUPT);

    edu.set_bus_master(false);
    edu.serve_dma();

    assert_eq!(read(&mut edu, DMA_COMMAND), INTERRUPT);
    assert_eq!(edu.take_events(), [BusEvent::Intx(true)]);
}

#[test]
fn reset_during_a_read_leaves_nothing_of_it() {
    let mut edu = edu_with_memory();
    transfer(&mut edu, MEMORY + 1, BUFFER, 4, START | INTERRUPT);

    edu.reset(ResetKind::Function);
    edu.serve_dma();

    assert_eq!(read(&mut edu, DMA_COMMAND), 0);
    assert_eq!(read(&mut edu, INTERRUPT_STATUS), 0);
    assert_eq!(edu.take_events(), []);
    transfer(&mut edu, BUFFER, MEMORY, 4, START | TO_MEMORY);
    assert_eq!(edu.take_events(), [written(MEMORY, &[0; 4])]);
}

#[test]
fn reset_clears_the_buffer() {
    let mut edu = edu_with_memory();
    transfer(&mut edu, MEMORY + 1, BUFFER, 4, START);
    edu.serve_dma();

    edu.reset(ResetKind::Session);
    transfer(&mut edu, BUFFER, MEMORY, 4, START | TO_MEMORY);

    assert_eq!(edu.memory(MEMORY, 4), [0; 4]);
}

#[test]
fn transfer_that_finds_no_room_waits_for_it() {
    let mut edu = edu_with_memory();
    edu.hold_bus(true);
    let limit = BusMaster::BACKLOG_BYTES_MAX / 4096 + 1;
    let mut started = 0;
    while started < limit && read(&mut edu, DMA_COMMAND) & START == 0 {
        transfer(
            &mut edu,
            BUFFER,
            MEMORY,
            4096,
            START | TO_MEMORY | INTERRUPT,
        );
        started += 1;
    }
    assert_eq!(read(&mut edu, DMA_COMMAND) & START, START);

    edu.hold_bus(false);
    edu.serve_dma();

    assert_eq!(read(&mut edu, DMA_COMMAND), TO_MEMORY | INTERRUPT);
    let written = |event: &&BusEvent| matches!(event, BusEvent::Written { .. });
    assert_eq!(edu.take_events().iter().filter(written).count(), started);
}

#[test]
fn every_raise_fires_and_the_level_follows_the_status() {
    let mut edu = edu();

    write(&mut edu, RAISE, 0);
    assert_eq!(edu.take_events(), []);
    write(&mut edu, RAISE, 1);
    write(&mut edu, RAISE, 2);
    write(&mut edu, ACKNOWLEDGE, 1);
    assert!(edu.intx());
    write(&mut edu, ACKNOWLEDGE, 2);

    assert_eq!(
        edu.take_events(),
        [
            BusEvent::Intx(true),
            BusEvent::Msi(0),
            BusEvent::Msi(0),
            BusEvent::Intx(false)
        ]
    );
}

#[test]
fn finished_factorial_interrupts() {
    let mut edu = edu();
    write(&mut edu, STATUS, 0x80);
    write(&mut edu, FACTORIAL, 5);

    assert!(edu.wait_notified(LIMIT));

    assert_eq!(edu.take_events(), [BusEvent::Intx(true), BusEvent::Msi(0)]);
}
