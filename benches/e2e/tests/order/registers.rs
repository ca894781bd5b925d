//! Accesses that must happen once and in order.

use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    guest::{BAR0, Guest, PORTS},
    start,
};

const STATUS: u64 = 0x20;
const EVENTS: u64 = 0x28;
const EVENT: u64 = 0x30;
const FIFO: u64 = 0x50;
const ORDER: u64 = 0x60;

/// Last number, accesses, gaps, repeats.
fn order(guest: &mut Guest) -> [u64; 4] {
    [0x68, 0x70, 0x78, 0x80].map(|offset| guest.read8(offset))
}

#[test]
fn posted_writes_come_once_and_in_order() {
    const WRITES: u64 = 20_000;
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        for n in 1..=WRITES {
            let width = 1 << (n % 4);
            guest.write(BAR0, ORDER, &n.to_le_bytes()[..width]);
        }

        assert_eq!(order(&mut guest), [WRITES, WRITES, 0, 0], "{kind}");
    }
}

#[test]
fn ports_and_memory_and_configuration_writes_keep_one_order() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        for n in (1..=600_u64).step_by(2) {
            guest.write(BAR0, ORDER, &n.to_le_bytes());
            guest.write(PORTS, 4, &(n + 1).to_le_bytes()[..4]);
        }
        assert_eq!(order(&mut guest), [600, 600, 0, 0], "{kind}");

        // The checker can fail: one number left out, one twice.
        for n in [602_u64, 602, 603] {
            guest.write(BAR0, ORDER, &n.to_le_bytes());
        }
        assert_eq!(order(&mut guest), [603, 603, 1, 1], "{kind}");
        assert_eq!(guest.read4(STATUS), 4);
    }
}

#[test]
fn what_a_read_clears_is_seen_by_one_read() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let mut seen = 0;
        for n in 1..=500_u32 {
            for _ in 0..n % 7 {
                guest.write(BAR0, EVENT, &[0]);
            }
            seen += guest.read8(EVENTS);
        }
        let written: u64 = (1..=500).map(|n| n % 7).sum();
        assert_eq!(seen, written, "{kind}");

        guest.write4(0x24, 0x50);
        assert_eq!(guest.read4(STATUS), 0x50);
        assert_eq!(guest.read::<4>(PORTS, 0xc), [0; 4]);
    }
}

#[test]
fn each_read_of_a_register_with_effects_happens_once() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        for n in (1..=500_u32).step_by(2) {
            assert_eq!(guest.read4(0x18), n, "{kind}");
            assert_eq!(guest.read(PORTS, 8), (n + 1).to_le_bytes(), "{kind}");
        }
    }
}

#[test]
fn bytes_leave_the_fifo_once_and_in_order_by_memory_and_by_port() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let data: Vec<u8> = (0..4096_u32).map(|n| (n % 251).to_le_bytes()[0]).collect();
        let (by_memory, by_port) = data.split_at(2048);
        for word in by_memory.chunks(8) {
            guest.write(BAR0, FIFO, word);
        }
        for word in by_port.chunks(2) {
            guest.write(PORTS, 0, word);
        }
        assert_eq!(guest.read4(0x58), 4096);

        let mut back = Vec::new();
        while back.len() < 4096 {
            back.extend(guest.read::<4>(PORTS, 0));
            back.extend(guest.read::<1>(BAR0, FIFO));
            back.extend(guest.read::<1>(PORTS, 0));
            back.extend(guest.read::<2>(BAR0, FIFO));
            back.extend(guest.read::<8>(BAR0, FIFO));
        }

        assert_eq!(back, data, "{kind}");
        assert_eq!(guest.read4(STATUS), 0);
        assert_eq!(guest.read::<1>(PORTS, 0), [0xff], "it is empty");
        assert_eq!(guest.read4(STATUS), 2);
    }
}

#[test]
fn a_bit_is_cleared_by_writing_1_and_no_other() {
    let (_stack, mut guest) = start(Quic, 64);
    guest.write4(0x48, 0xf0f0);

    guest.write4(0x40, 0x00f0);

    assert_eq!(guest.read4(0x40), 0xf000);
}
