//! `order`'s ports, at every width: each access comes once and in its turn. (An instruction that moves a string comes as so many accesses.)

use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{both_enabled, machine_with_order};

const PORTS: u8 = 1;
const FIFO: u64 = 0x0;
const CHECKER: u64 = 0x4;
const WIDTHS: [u8; 3] = [1, 2, 4];

#[test]
fn what_is_pushed_at_one_width_is_popped_at_another_in_order() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let [_, order] = both_enabled(&mut vm);
        let mut bytes = (0..=u8::MAX).cycle();
        // 64 times 7 bytes.
        for width in WIDTHS.repeat(64) {
            let value = little_endian(&mut bytes, width);
            order.write(vm.qtest(), PORTS, FIFO, width, value).unwrap();
        }
        assert_eq!(order.read(vm.qtest(), 0, 0x58, 4).unwrap(), 64 * 7);

        let mut expected = (0..=u8::MAX).cycle();
        for width in [4, 1, 2].repeat(64) {
            let value = order.read(vm.qtest(), PORTS, FIFO, width).unwrap();
            assert_eq!(value, little_endian(&mut expected, width), "{kind} {width}");
        }
        assert_eq!(order.read(vm.qtest(), 0, 0x58, 4).unwrap(), 0, "{kind}");
        // Nothing is left, at any width.
        for (width, ones) in [(1, 0xff), (2, 0xffff), (4, 0xffff_ffff)] {
            let value = order.read(vm.qtest(), PORTS, FIFO, width).unwrap();
            assert_eq!(value, ones, "{kind} {width}");
        }
    }
}

/// The next bytes, as a number.
fn little_endian(bytes: &mut impl Iterator<Item = u8>, width: u8) -> u64 {
    (0..width).fold(0, |value, k| {
        value | u64::from(bytes.next().unwrap()) << (8 * k)
    })
}

#[test]
fn each_write_of_a_port_comes_once_and_in_its_turn() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let [_, order] = both_enabled(&mut vm);
        let writes = 1..=999;
        // Beyond a byte's numbers, and between those of BAR 0, which are posted.
        for number in writes.clone() {
            let narrow = WIDTHS[usize::try_from(number).unwrap() % 3];
            let value = number & (u64::MAX >> (64 - 8 * narrow));
            if number % 5 == 0 {
                order.write(vm.qtest(), 0, 0x60, 8, number).unwrap();
            } else {
                order
                    .write(vm.qtest(), PORTS, CHECKER, narrow, value)
                    .unwrap();
            }
        }

        let mut counter = |offset| order.read(vm.qtest(), 0, offset, 8).unwrap();
        assert_eq!(counter(0x68), *writes.end(), "{kind}: last");
        assert_eq!(counter(0x70), *writes.end(), "{kind}: accesses");
        assert_eq!(counter(0x78), 0, "{kind}: gaps");
        assert_eq!(counter(0x80), 0, "{kind}: repeats");
    }
}
