//! MSI-X from the device to a vfio-user client: delivered, masked, pending, and the pending bit array.

use std::os::fd::OwnedFd;

use potemkin_transport::TransportKind::{Grpc, Quic};
use potemkin_vfio_user::message::{IrqAction, IrqData, IrqIndex};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    guest::{BUS_MASTER, Guest, INTERRUPTS, MEMORY_DECODE, await_signal, events, take},
    start,
};

const PBA: u64 = 0x1000;

/// What these tests do with vectors.
trait Vectors {
    fn fire(&mut self, vector: u32);
    fn pending(&mut self) -> u64;
    fn mask(&mut self, start: u32, count: u32);
    fn unmask(&mut self, start: u32, count: u32);
}

impl Vectors for Guest {
    /// Fires a vector and waits until it is with the client, or pending.
    fn fire(&mut self, vector: u32) {
        self.write4(0x4c, vector);
        // What the device did comes before the answer to a later read.
        self.read4(0);
    }

    fn pending(&mut self) -> u64 {
        u64::from_le_bytes(self.read(INTERRUPTS, PBA))
    }

    fn mask(&mut self, start: u32, count: u32) {
        self.set_irqs(start, count, IrqAction::Mask, IrqData::None, &[]);
    }

    fn unmask(&mut self, start: u32, count: u32) {
        self.set_irqs(start, count, IrqAction::Unmask, IrqData::None, &[]);
    }
}

fn signalled(events: &[OwnedFd]) -> Vec<(usize, u64)> {
    let counts = events.iter().map(take).enumerate();
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Sets how many files this process, and those that it starts, may open: as many as it may set if none.
fn limit_files(files: Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    let current = files.or(limit.maximum);
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

#[test]
fn all_2048_vectors_are_connected_in_pieces_and_each_is_its_own() {
    for kind in [Quic, Grpc] {
        // The agent begins with what many systems give a process.
        limit_files(Some(1024));
        let (_stack, mut guest) = start(kind, 2048);
        limit_files(None);
        let info = guest.client.irq_info(IrqIndex::Msix).unwrap();
        assert_eq!((info.count, info.flags.maskable), (2048, true));
        let events = events(2048);
        guest.enable_msix();
        guest.listen(0, &events);

        // More than may be under way at a time: those beyond come after the answer to a later read, and none is lost.
        for vector in 0..2048 {
            guest.write4(0x4c, vector);
        }
        let wrong: Vec<(usize, u64)> = (0..)
            .zip(events.iter().map(await_signal))
            .filter(|(_, count)| *count != 1)
            .collect();
        assert_eq!(wrong, [], "{kind}");
        guest.fire(2047);
        assert_eq!(signalled(&events), [(2047, 1)]);
    }
}

#[test]
fn a_masked_vector_is_pending_and_comes_once_when_it_is_unmasked() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let events = events(64);
        guest.enable_msix();
        guest.listen(0, &events);

        guest.mask(5, 1);
        guest.fire(5);
        guest.fire(5);
        guest.fire(6);
        assert_eq!(signalled(&events), [(6, 1)], "{kind}");
        assert_eq!(guest.pending(), 1 << 5);
        guest.unmask(5, 1);
        assert_eq!(signalled(&events), [(5, 1)]);
        assert_eq!(guest.pending(), 0);

        // All of them, as by the function mask.
        guest.mask(0, 64);
        for vector in [0, 31, 32, 63] {
            guest.fire(vector);
        }
        assert_eq!(signalled(&events), []);
        assert_eq!(guest.pending(), 1 << 63 | 1 << 32 | 1 << 31 | 1);
        guest.unmask(0, 64);
        assert_eq!(signalled(&events), [(0, 1), (31, 1), (32, 1), (63, 1)]);
    }
}

#[test]
fn a_vector_that_nobody_listens_to_is_pending_until_somebody_does() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let events = events(64);
        guest.enable_msix();
        // As QEMU does at first: MSI-X on, no vector yet.
        guest.set_irqs(0, 1, IrqAction::Trigger, IrqData::Eventfd, &[]);
        guest.fire(3);
        guest.fire(9);
        assert_eq!(guest.pending(), 1 << 3 | 1 << 9, "{kind}");

        guest.listen(3, &events[3..4]);
        assert_eq!(signalled(&events), [(3, 1)]);
        assert_eq!(guest.pending(), 1 << 9);

        // Off and on again with more vectors: nothing is lost in between.
        guest.set_irqs(0, 0, IrqAction::Trigger, IrqData::None, &[]);
        guest.fire(4);
        guest.listen(0, &events);
        assert_eq!(signalled(&events), [(4, 1), (9, 1)]);
        assert_eq!(guest.pending(), 0);
    }
}

#[test]
fn a_vector_that_is_not_enabled_is_dropped() {
    let (_stack, mut guest) = start(Quic, 64);
    let events = events(64);
    guest.listen(0, &events);
    guest.fire(1);
    guest.enable_msix();
    guest.command(MEMORY_DECODE);
    guest.fire(2);
    guest.command(MEMORY_DECODE | BUS_MASTER);

    assert_eq!(guest.pending(), 0);
    assert_eq!(signalled(&events), []);
    guest.fire(3);
    assert_eq!(signalled(&events), [(3, 1)]);
}

#[test]
fn pending_bits_and_table_are_answered_without_the_host() {
    for kind in [Quic, Grpc] {
        let (stack, mut guest) = start(kind, 2048);
        guest.enable_msix();
        for vector in [0, 1, 9, 70, 2047] {
            guest.fire(vector);
        }
        let before = stack.status("vm").counters.frames_sent;

        // 2,048 vectors: 32 KiB of table, then 256 bytes of bits.
        let bits: [u8; 256] = guest.read(INTERRUPTS, 0x8000);
        let mut expected = [0; 256];
        (expected[0], expected[1], expected[8], expected[255]) = (3, 2, 1 << 6, 1 << 7);
        assert_eq!(bits, expected, "{kind}");
        assert_eq!(guest.read(INTERRUPTS, 0x8000 + 1), [2_u8]);
        assert_eq!(guest.read(INTERRUPTS, 0x8000 + 252), [0, 0, 0, 1 << 7]);
        // Across the border of table and bits.
        let across: [u8; 16] = guest.read(INTERRUPTS, 0x8000 - 8);
        assert_eq!(across, [0, 0, 0, 0, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0]);
        // The client owns the table; the bits are not written.
        guest.write(INTERRUPTS, 0, &[0xff; 16]);
        guest.write(INTERRUPTS, 0x8000, &[0; 8]);
        assert_eq!(guest.read::<16>(INTERRUPTS, 0), [0; 16]);
        assert_eq!(guest.read::<2>(INTERRUPTS, 0x8000), [3, 2]);
        assert_eq!(stack.status("vm").counters.frames_sent, before, "{kind}");

        // Behind both there is nothing.
        assert_eq!(guest.read::<4>(INTERRUPTS, 0x8100), [0xff; 4]);
    }
}
