//! MSI-X through QEMU: the table is programmed by its BAR, messages are aimed at guest memory.

use potemkin_testkit::qemu::{
    Vm,
    pci::{Function, Pci},
};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{await_u32, bars::place, both_enabled, capability, machine_with_order};

/// Where the messages go: 4 bytes a vector.
pub(crate) const MESSAGES: u64 = 0x20_0000;
const TABLE_BAR: u8 = 4;
const PBA: u64 = 0x1000;
const VECTOR_RAISE: u64 = 0x4c;

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// `order` with its MSI-X table.
pub(crate) struct Msix {
    pub(crate) order: Function,
    control: u8,
}

impl Msix {
    pub(crate) fn new(vm: &mut Vm) -> Self {
        let [_, order] = both_enabled(vm);
        let control = capability(vm, &order, 0x11) + 2;
        Self { order, control }
    }

    /// Aims a vector at its place among the messages.
    pub(crate) fn aim(&self, vm: &mut Vm, vector: u32, masked: bool) {
        let entry = u64::from(vector) * 16;
        let address = MESSAGES + 4 * u64::from(vector);
        let mut write = |offset, value| {
            let at = entry + offset;
            self.order
                .write(vm.qtest(), TABLE_BAR, at, 4, value)
                .unwrap();
        };
        write(0, address);
        write(4, 0);
        write(8, message(vector).into());
        write(12, masked.into());
    }

    pub(crate) fn control(&self, vm: &mut Vm, bits: u16) {
        let mut pci = Pci::new(vm.qtest());
        let at = self.order.address;
        let other = pci.config_read_u16(at, self.control).unwrap() & !(ENABLE | FUNCTION_MASK);
        pci.config_write_u16(at, self.control, other | bits)
            .unwrap();
    }

    pub(crate) fn enable(&self, vm: &mut Vm) {
        self.control(vm, ENABLE);
    }

    fn mask(&self, vm: &mut Vm, vector: u64, masked: bool) {
        let at = vector * 16 + 12;
        self.order
            .write(vm.qtest(), TABLE_BAR, at, 4, masked.into())
            .unwrap();
    }

    pub(crate) fn fire(&self, vm: &mut Vm, vector: u64) {
        self.order
            .write(vm.qtest(), 0, VECTOR_RAISE, 4, vector)
            .unwrap();
    }

    /// Fires a vector, and is back when the client has it or never will: what a device did comes before the answer to a later read.
    fn fire_and_settle(&self, vm: &mut Vm, vector: u64) {
        self.fire(vm, vector);
        self.order.read(vm.qtest(), 0, 0, 4).unwrap();
    }

    /// Until QEMU's event loop has taken all that was fired before: it has twice taken what came later.
    fn flush(&self, vm: &mut Vm, unmasked: u32) {
        for _ in 0..2 {
            self.fire(vm, unmasked.into());
            expect(vm, unmasked);
        }
    }

    fn pending(&self, vm: &mut Vm) -> u64 {
        self.order.read(vm.qtest(), TABLE_BAR, PBA, 8).unwrap()
    }

    /// Until these bits are pending: QEMU takes an interrupt by its event loop.
    fn await_pending(&self, vm: &mut Vm, bits: u64) {
        let found = (0..100_000).any(|_| self.pending(vm) == bits);
        assert!(found, "{:#x} is pending, not {bits:#x}", self.pending(vm));
    }
}

/// What a vector's message says; never 0.
pub(crate) fn message(vector: u32) -> u32 {
    0x8000_0000 | vector
}

/// Waits for a vector's message and takes it away.
pub(crate) fn expect(vm: &mut Vm, vector: u32) {
    let place = MESSAGES + 4 * u64::from(vector);
    await_u32(vm.qtest(), place, message(vector));
    vm.qtest().writel(place, 0).unwrap();
}

fn absent(vm: &mut Vm, vectors: &[u64]) {
    for vector in vectors {
        let found = vm.qtest().readl(MESSAGES + 4 * vector).unwrap();
        assert_eq!(found, 0, "vector {vector}");
    }
}

#[test]
fn each_vector_delivers_its_own_message() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        for vector in 0..64 {
            msix.aim(&mut vm, vector, false);
        }
        msix.enable(&mut vm);

        for vector in (0..64).rev() {
            msix.fire(&mut vm, vector.into());
            expect(&mut vm, vector);
        }

        let left = vm.qtest().read(MESSAGES, 4 * 64).unwrap();
        assert!(left.iter().all(|byte| *byte == 0), "{kind}");
        assert_eq!(msix.pending(&mut vm), 0);
    }
}

#[test]
fn the_table_is_moved_while_it_is_decoded_and_works_at_its_new_place() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let mut msix = Msix::new(&mut vm);
        let old = msix.order.clone();
        for vector in 0..3 {
            msix.aim(&mut vm, vector, vector == 2);
        }
        msix.enable(&mut vm);
        msix.fire(&mut vm, 2);
        msix.await_pending(&mut vm, 1 << 2);

        place(
            &mut Pci::new(vm.qtest()),
            &mut msix.order,
            TABLE_BAR,
            0xd400_0000,
        );

        let bits = old.read(vm.qtest(), TABLE_BAR, PBA, 8).unwrap();
        assert_ne!(bits, 1 << 2, "{kind}: nothing is at the old place");
        assert_eq!(msix.pending(&mut vm), 1 << 2, "{kind}");
        msix.fire(&mut vm, 0);
        expect(&mut vm, 0);
        msix.mask(&mut vm, 2, false);
        expect(&mut vm, 2);
        msix.aim(&mut vm, 3, false);
        msix.fire(&mut vm, 3);
        expect(&mut vm, 3);
        // A mask written at the old place is none.
        old.write(vm.qtest(), TABLE_BAR, 16 + 12, 4, 1).unwrap();
        msix.fire(&mut vm, 1);
        expect(&mut vm, 1);
    }
}

#[test]
fn all_2048_vectors_deliver() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 2048);
        let msix = Msix::new(&mut vm);
        for vector in 0..2048 {
            msix.aim(&mut vm, vector, false);
        }
        // QEMU connects them all now, as many in a message as fit.
        msix.enable(&mut vm);

        for vector in 0..2048 {
            msix.fire(&mut vm, vector);
        }

        let expected: Vec<u8> = (0..2048).flat_map(|v| message(v).to_le_bytes()).collect();
        let arrived = (0..10_000).any(|_| vm.qtest().read(MESSAGES, 4 * 2048).unwrap() == expected);
        assert!(arrived, "{kind}: not every message came");
    }
}

#[test]
fn a_vector_that_was_masked_from_the_start_is_pending_until_it_is_unmasked() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        for vector in 0..64 {
            msix.aim(&mut vm, vector, vector != 1);
        }
        msix.enable(&mut vm);

        // QEMU has not connected them: the bits are the agent's.
        for vector in [0, 5, 63] {
            msix.fire(&mut vm, vector);
        }
        msix.fire(&mut vm, 1);
        expect(&mut vm, 1);
        absent(&mut vm, &[0, 5, 63]);
        msix.await_pending(&mut vm, 1 << 63 | 1 << 5 | 1);

        msix.mask(&mut vm, 5, false);
        expect(&mut vm, 5);
        msix.await_pending(&mut vm, 1 << 63 | 1);
        msix.mask(&mut vm, 63, false);
        msix.mask(&mut vm, 0, false);
        expect(&mut vm, 63);
        expect(&mut vm, 0);
        msix.await_pending(&mut vm, 0);
    }
}

#[test]
fn a_vector_that_is_masked_later_comes_once_when_it_is_unmasked() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        for vector in 0..4 {
            msix.aim(&mut vm, vector, false);
        }
        msix.enable(&mut vm);
        msix.fire(&mut vm, 2);
        expect(&mut vm, 2);

        // QEMU holds it back itself. (It shows no pending bit then: a guest's read of those goes to the agent, which has delivered.)
        msix.mask(&mut vm, 2, true);
        msix.fire(&mut vm, 2);
        msix.fire(&mut vm, 2);
        msix.flush(&mut vm, 3);
        absent(&mut vm, &[2]);
        msix.mask(&mut vm, 2, false);
        expect(&mut vm, 2);

        msix.flush(&mut vm, 3);
        absent(&mut vm, &[2]);
    }
}

#[test]
fn the_function_mask_holds_all_vectors_back() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        for vector in 0..8 {
            msix.aim(&mut vm, vector, false);
        }
        msix.enable(&mut vm);
        msix.fire(&mut vm, 0);
        expect(&mut vm, 0);

        msix.control(&mut vm, ENABLE | FUNCTION_MASK);
        for vector in [0, 3, 7] {
            msix.fire_and_settle(&mut vm, vector);
        }
        // Each command is a turn of QEMU's event loop, which takes what was signalled.
        for _ in 0..20 {
            absent(&mut vm, &[0, 3, 7]);
        }
        msix.enable(&mut vm);

        for vector in [0, 3, 7] {
            expect(&mut vm, vector);
        }
        msix.flush(&mut vm, 1);
        absent(&mut vm, &[0, 3, 7]);
    }
}

#[test]
fn a_function_masked_while_it_was_enabled_delivers_when_it_is_unmasked() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        msix.aim(&mut vm, 9, false);
        // As Linux does it: enabled and masked in one write.
        msix.control(&mut vm, ENABLE | FUNCTION_MASK);

        msix.fire(&mut vm, 9);
        msix.await_pending(&mut vm, 1 << 9);
        absent(&mut vm, &[9]);
        msix.enable(&mut vm);

        expect(&mut vm, 9);
        msix.await_pending(&mut vm, 0);
    }
}

#[test]
fn nothing_is_delivered_while_msix_or_bus_mastering_is_off() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let msix = Msix::new(&mut vm);
        for vector in 0..4 {
            msix.aim(&mut vm, vector, false);
        }

        msix.fire_and_settle(&mut vm, 0);
        msix.enable(&mut vm);
        let at = msix.order.address;
        Pci::new(vm.qtest()).config_write_u16(at, 4, 3).unwrap();
        msix.fire_and_settle(&mut vm, 1);
        Pci::new(vm.qtest()).config_write_u16(at, 4, 7).unwrap();
        msix.flush(&mut vm, 2);
        msix.control(&mut vm, 0);
        msix.fire_and_settle(&mut vm, 3);
        msix.enable(&mut vm);
        msix.flush(&mut vm, 2);

        absent(&mut vm, &[0, 1, 3]);
        assert_eq!(msix.pending(&mut vm), 0, "{kind}: none is kept for later");
        for vector in [0, 1, 3] {
            msix.fire(&mut vm, vector);
            expect(&mut vm, u32::try_from(vector).unwrap());
        }
    }
}
