//! The messenger and the fetcher.

use super::*;

const MEMORY: u64 = 0x10_0000;
const MEMORY_BYTES: usize = 0x2_0000;

const TAKEN: u64 = 0x120;
const DONE: u64 = 0x128;
const MESSENGER: u64 = 0x130;
const FETCHER: u64 = 0x1a0;

const RUNNING: u64 = 1;
const FAILED: u64 = 2;

fn with_memory() -> Harness<Order> {
    let mut order = order();
    order.map_memory(MEMORY, MEMORY_BYTES);
    order
}

/// A ring at the start of memory.
struct Ring {
    slots: u64,
    block: u64,
    vectors: u64,
    rounds: u64,
}

fn start(order: &mut Harness<Order>, ring: &Ring) {
    write8(order, 0x100, MEMORY);
    write4(order, 0x108, 64);
    write4(order, 0x10c, ring.slots);
    write4(order, 0x110, ring.block);
    write4(order, 0x114, ring.vectors);
    write8(order, 0x118, ring.rounds);
    write4(order, MESSENGER, 1);
}

fn block(round: u64, bytes: u64) -> Vec<u8> {
    let words = (0..bytes / 8).map(|k| round + (k << 48));
    words.flat_map(u64::to_le_bytes).collect()
}

fn message(round: u64, slot: u64, vector: u16) -> [BusEvent; 2] {
    let written = BusEvent::Written {
        address: MEMORY + 64 * slot,
        data: block(round, 16),
    };
    [written, BusEvent::Msix(vector)]
}

#[test]
fn each_block_comes_before_its_vector_and_the_ring_waits_for_the_guest() {
    let mut order = with_memory();

    let ring = Ring {
        slots: 2,
        block: 16,
        vectors: 3,
        rounds: 5,
    };
    start(&mut order, &ring);
    let first = [message(0, 0, 0), message(1, 1, 1)].concat();
    assert_eq!(order.take_events(), first);
    assert_eq!(read8(&mut order, DONE), 2);
    assert_eq!(read4(&mut order, MESSENGER), RUNNING);
    write8(&mut order, TAKEN, 1);
    assert_eq!(order.take_events(), message(2, 0, 2));
    write8(&mut order, TAKEN, 3);
    let last = [message(3, 1, 0), message(4, 0, 1)].concat();
    assert_eq!(order.take_events(), last);

    assert_eq!(read4(&mut order, MESSENGER), 0);
    assert_eq!(read4(&mut order, INTERRUPT_STATUS), 1);
    assert_eq!(read8(&mut order, DONE), 5);
}

#[test]
fn a_ring_longer_than_the_bus_has_room_for_goes_on_when_there_is_room() {
    let mut order = with_memory();
    write8(&mut order, 0x100, MEMORY);
    for (offset, value) in [(0x108, 0), (0x10c, 1000), (0x110, 4096), (0x114, 64)] {
        write4(&mut order, offset, value);
    }
    write8(&mut order, 0x118, 1000);
    order.hold_bus(true);
    write4(&mut order, MESSENGER, 1);
    let done = read8(&mut order, DONE);
    assert!(done < 1000, "{done}");

    order.hold_bus(false);
    for _ in 0..1000 {
        order.serve_dma();
    }

    assert_eq!(read8(&mut order, DONE), 1000);
    let events = order.take_events();
    assert_eq!(events.len(), 2000);
    for (pair, round) in events.chunks(2).zip(0_u16..) {
        let [BusEvent::Written { data, .. }, BusEvent::Msix(vector)] = pair else {
            panic!("{pair:?}");
        };
        assert_eq!(data[..8], u64::from(round).to_le_bytes());
        assert_eq!(*vector, round % 64);
    }
}

#[test]
fn a_messenger_that_cannot_run_fails_and_says_so() {
    let good = || Ring {
        slots: 2,
        block: 16,
        vectors: 3,
        rounds: 5,
    };
    for bad in [
        Ring { slots: 0, ..good() },
        Ring {
            slots: 4097,
            ..good()
        },
        Ring { block: 0, ..good() },
        Ring {
            block: 12,
            ..good()
        },
        Ring {
            block: 4104,
            ..good()
        },
        Ring {
            vectors: 0,
            ..good()
        },
        Ring {
            vectors: 65_537,
            ..good()
        },
    ] {
        let mut order = with_memory();
        start(&mut order, &bad);
        assert_eq!(order.take_events(), []);
        assert_eq!(read4(&mut order, MESSENGER), FAILED);
        assert_eq!(read4(&mut order, INTERRUPT_STATUS), 1);
    }
}

#[test]
fn a_vector_that_is_not_there_ends_the_run() {
    let mut order = with_memory();

    start(
        &mut order,
        &Ring {
            slots: 100,
            block: 16,
            vectors: 65,
            rounds: 100,
        },
    );

    assert_eq!(read8(&mut order, DONE), 64);
    assert_eq!(read4(&mut order, MESSENGER), FAILED);
}

#[test]
fn a_block_that_does_not_arrive_ends_the_run() {
    let mut order = order();

    start(
        &mut order,
        &Ring {
            slots: 2,
            block: 16,
            vectors: 3,
            rounds: 5,
        },
    );
    order.serve_dma();

    assert_eq!(read4(&mut order, MESSENGER), FAILED);
    assert_eq!(read4(&mut order, STATUS), 8);
}

#[test]
fn stopping_bus_mastering_off_and_a_reset_end_the_run() {
    let ring = Ring {
        slots: 2,
        block: 16,
        vectors: 3,
        rounds: 5,
    };
    let mut order = with_memory();
    start(&mut order, &ring);
    write4(&mut order, MESSENGER, 0);
    assert_eq!(read4(&mut order, MESSENGER), 0);

    start(&mut order, &ring);
    order.set_bus_master(false);
    assert_eq!(read4(&mut order, MESSENGER), FAILED);
    order.set_bus_master(true);
    order.take_events();
    write8(&mut order, TAKEN, 2);
    assert_eq!(order.take_events(), []);

    start(&mut order, &ring);
    order.take_events();
    order.reset(ResetKind::Function);
    write8(&mut order, TAKEN, 2);
    assert_eq!(order.take_events(), []);
    assert_eq!(read4(&mut order, MESSENGER), 0);
}

#[test]
fn a_run_keeps_its_registers() {
    let mut order = with_memory();
    start(
        &mut order,
        &Ring {
            slots: 2,
            block: 16,
            vectors: 3,
            rounds: 5,
        },
    );

    write4(&mut order, 0x10c, 7);
    write8(&mut order, 0x100, 0);

    assert_eq!(read4(&mut order, 0x10c), 2);
    assert_eq!(read8(&mut order, 0x100), MEMORY);
}

const LIST: u64 = MEMORY + 0x100;
const RESULT: u64 = MEMORY + 0x80;

fn list(order: &mut Harness<Order>, entries: &[(u64, u32)]) {
    let bytes: Vec<u8> = entries
        .iter()
        .flat_map(|(address, length)| {
            let mut entry = [0; 16];
            entry[..8].copy_from_slice(&address.to_le_bytes());
            entry[8..12].copy_from_slice(&length.to_le_bytes());
            entry
        })
        .collect();
    order.memory(LIST, bytes.len()).copy_from_slice(&bytes);
    write8(order, 0x180, LIST);
    write4(order, 0x188, entries.len() as u64);
    write4(order, 0x18c, 9);
    write8(order, 0x190, RESULT);
}

fn serve_all(order: &mut Harness<Order>) {
    while order.serve_dma() > 0 {}
}

#[test]
fn the_pieces_of_a_list_are_summed_and_the_sum_written_before_the_vector() {
    let mut order = with_memory();
    order.memory(MEMORY + 0x1_0000, 300).fill(2);
    order.memory(MEMORY + 0x1_f000, 100).fill(255);
    list(
        &mut order,
        &[(MEMORY + 0x1_0000, 300), (MEMORY + 0x1_f000, 100)],
    );

    write4(&mut order, FETCHER, 1);
    assert_eq!(read4(&mut order, FETCHER), RUNNING);
    write8(&mut order, 0x190, 0);
    serve_all(&mut order);

    let read = |address, length| BusEvent::Read { address, length };
    let data = 26_100_u64.to_le_bytes().to_vec();
    assert_eq!(
        order.take_events(),
        [
            read(LIST, 32),
            read(MEMORY + 0x1_0000, 300),
            read(MEMORY + 0x1_f000, 100),
            BusEvent::Written {
                address: RESULT,
                data
            },
            BusEvent::Msix(9),
        ]
    );
    assert_eq!(read8(&mut order, 0x198), 26_100);
    assert_eq!(read4(&mut order, FETCHER), 0);
    assert_eq!(read4(&mut order, INTERRUPT_STATUS), 2);
}

#[test]
fn a_fetch_that_fails_says_so_and_fires_its_vector() {
    for entry in [(MEMORY, 0), (MEMORY, 65_537), (0, 8), (u64::MAX, 8)] {
        let mut order = with_memory();
        list(&mut order, &[entry]);

        write4(&mut order, FETCHER, 1);
        serve_all(&mut order);

        assert_eq!(read4(&mut order, FETCHER), FAILED, "{entry:x?}");
        assert_eq!(order.take_events().last(), Some(&BusEvent::Msix(9)));
        assert_eq!(order.memory(RESULT, 8), [0; 8]);
    }
    for entries in [0, 257] {
        let mut order = with_memory();
        write4(&mut order, 0x188, entries);
        write4(&mut order, FETCHER, 1);
        assert_eq!(read4(&mut order, FETCHER), FAILED);
        assert_eq!(order.take_events(), []);
    }
}

#[test]
fn a_fetch_after_a_reset_is_a_new_one() {
    let mut order = with_memory();
    list(&mut order, &[(MEMORY + 0x1_0000, 8)]);
    write4(&mut order, FETCHER, 1);

    order.reset(ResetKind::Function);
    assert_eq!(read4(&mut order, FETCHER), 0);
    order.device().dma_read_done(1, Ok(&[0; 16]));
    list(&mut order, &[(MEMORY + 0x1_0000, 8)]);
    write4(&mut order, FETCHER, 1);
    order.device().dma_read_done(1, Ok(&[0; 16]));
    assert_eq!(read4(&mut order, FETCHER), RUNNING);
    serve_all(&mut order);

    assert_eq!(read4(&mut order, FETCHER), 0);
}
