//! DMA of `edu` and of `order`.

use potemkin_e2e::{Stack, StackOptions};
use potemkin_service::admin::DeviceState;
use potemkin_testkit::{
    Vmm,
    qemu::{
        Machine, Qtest,
        pci::{Function, Pci},
    },
};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    ROLE, await_u32, both_enabled, enabled,
    interrupts::aim_msi,
    machine,
    msix::{Msix, expect},
    start_with_order,
};

/// Guest memory that the tests use; `edu` reaches the first 256 MiB.
const RAM: u64 = 0x10_0000;
/// `edu`'s own buffer.
const BUFFER: u64 = 0x4_0000;

fn start_dma(edu: &Function, qtest: &mut Qtest, [from, to, count, command]: [u64; 4]) {
    for (register, value) in [(0x80, from), (0x88, to), (0x90, count), (0x98, command)] {
        edu.write(qtest, 0, register, 8, value).unwrap();
    }
}

fn await_dma(edu: &Function, qtest: &mut Qtest) {
    let polls = (0..100_000).find(|_| edu.read(qtest, 0, 0x98, 8).unwrap() & 1 == 0);
    assert!(polls.is_some(), "the transfer never ends");
}

#[test]
fn dma_goes_both_ways_and_its_msi_comes_after_the_data() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine(kind);
        let edu = enabled(&mut vm);
        aim_msi(&mut vm, &edu, 0x20_0000, 0x4321);
        let qtest = vm.qtest();
        for round in 1..200_u32 {
            qtest.writel(RAM, round).unwrap();
            qtest.writel(0x20_0000, 0).unwrap();
            start_dma(&edu, qtest, [RAM, BUFFER, 4, 1]);
            await_dma(&edu, qtest);
            start_dma(&edu, qtest, [BUFFER, RAM + 0x1000, 4, 7]);
            await_u32(qtest, 0x20_0000, 0x4321);
            assert_eq!(qtest.readl(RAM + 0x1000).unwrap(), round, "{kind}");
            edu.write(qtest, 0, 0x64, 4, 0x100).unwrap();
        }
    }
}

#[test]
fn dma_reaches_memory_that_has_no_descriptor() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut vm = Machine::qtest(&Vmm::from_env())
            .anonymous_memory()
            .vfio_user("remote", &stack.attach("vm").socket)
            .start()
            .unwrap();
        let edu = enabled(&mut vm);
        aim_msi(&mut vm, &edu, 0x20_0000, 0x4321);
        let qtest = vm.qtest();
        let data: Vec<u8> = (0..4_096_u32).map(|i| i.to_le_bytes()[0]).collect();
        qtest.write(RAM, &data).unwrap();

        start_dma(&edu, qtest, [RAM, BUFFER, 4_096, 5]);
        await_u32(qtest, 0x20_0000, 0x4321);
        qtest.writel(0x20_0000, 0).unwrap();
        edu.write(qtest, 0, 0x64, 4, 0x100).unwrap();
        start_dma(&edu, qtest, [BUFFER, RAM + 0x4000, 4_096, 7]);
        // Accesses are answered while the transfer is under way.
        assert_eq!(edu.read(qtest, 0, 0, 4).unwrap(), 0x0100_00ed);
        await_u32(qtest, 0x20_0000, 0x4321);

        assert_eq!(qtest.read(RAM + 0x4000, 4_096).unwrap(), data, "{kind}");
    }
}

/// Blocks of a page that the messenger writes.
const BLOCKS: u64 = 1024;
const BLOCK_BYTES: u64 = 4_096;

#[test]
fn reads_are_answered_while_dma_goes_on_and_neither_stalls() {
    for kind in [Quic, Grpc] {
        for machine in [
            Machine::qtest(&Vmm::from_env()),
            Machine::qtest(&Vmm::from_env()).anonymous_memory(),
        ] {
            let (stack, mut vm) = start_with_order(kind, 64, machine);
            let [_, order] = both_enabled(&mut vm);
            start_messenger(&order, vm.qtest(), RAM, BLOCKS);
            let mut ticket = 0;
            // The device answers each read behind the blocks that it has sent until then, more than the agent has room for. QEMU takes
            // no message while a read waits.
            let written = loop {
                ticket += 1;
                let answer = order.read(vm.qtest(), 0, 0x18, 4).unwrap();
                let status = stack.status("order");
                assert_eq!(answer, ticket, "{kind}: {status:?}");
                let written = status.counters.dma_bytes_written;
                if written == BLOCKS * BLOCK_BYTES || ticket == 100_000 {
                    break written;
                }
            };

            assert_eq!(written, BLOCKS * BLOCK_BYTES, "{kind}: it stands still");
            let last = RAM + (BLOCKS - 1) * BLOCK_BYTES;
            assert_eq!(vm.qtest().readq(last).unwrap(), BLOCKS - 1, "{kind}");
            let status = stack.status("order");
            assert_eq!(status.state, DeviceState::Live, "{kind}");
            assert_eq!(status.counters.dma_refused, 0, "{kind}");
        }
    }
}

/// As many slots as rounds, so that no block is waited for.
fn start_messenger(order: &Function, qtest: &mut Qtest, ring: u64, blocks: u64) {
    for (register, width, value) in [
        (0x100, 8, ring),
        (0x108, 4, BLOCK_BYTES),
        (0x10c, 4, blocks),
        (0x110, 4, BLOCK_BYTES),
        (0x114, 4, 1),
        (0x118, 8, blocks),
        (0x130, 4, 1),
    ] {
        order.write(qtest, 0, register, width, value).unwrap();
    }
}

#[test]
fn a_guest_that_polls_sees_dma_from_memory_without_a_descriptor_end() {
    for kind in [Quic, Grpc] {
        let machine = Machine::qtest(&Vmm::from_env()).anonymous_memory();
        let (stack, mut vm) = start_with_order(kind, 64, machine);
        let edu = enabled(&mut vm);
        let qtest = vm.qtest();
        for round in 1..50_u32 {
            qtest.writel(RAM, round).unwrap();
            start_dma(&edu, qtest, [RAM, BUFFER, 4, 1]);
            // The transfer has ended when the device has the data: it is read by message while reads of this register come and go.
            await_dma(&edu, qtest);
            start_dma(&edu, qtest, [BUFFER, RAM + 0x1000, 4, 3]);
            await_u32(qtest, RAM + 0x1000, round);
        }
        assert_eq!(stack.status("vm").state, DeviceState::Live, "{kind}");
        assert_eq!(stack.status("vm").counters.dma_refused, 0, "{kind}");
    }
}

/// The ring of a transfer that takes a while, apart from the messages.
const LONG_RING: u64 = 0x100_0000;
const LONG_BLOCKS: u64 = 4096;
const POISON: u8 = 0xa5;

#[test]
fn dma_under_way_when_bus_mastering_is_turned_off_and_on_moves_nothing_afterwards() {
    for kind in [Quic, Grpc] {
        for machine in [
            Machine::qtest(&Vmm::from_env()),
            Machine::qtest(&Vmm::from_env()).anonymous_memory(),
        ] {
            let (mut stack, mut vm) = start_with_order(kind, 64, machine);
            let msix = Msix::new(&mut vm);
            // The blocks' own vector; the other stands for what begins afterwards.
            msix.aim(&mut vm, 0, true);
            msix.aim(&mut vm, 1, false);
            msix.enable(&mut vm);
            start_messenger(&msix.order, vm.qtest(), LONG_RING, LONG_BLOCKS);
            let second_word = 1 << 48;
            let begun =
                (0..1_000_000).any(|_| vm.qtest().readq(LONG_RING + 8).unwrap() == second_word);
            assert!(begun, "{kind}: no block comes");

            // What the host has sent stays on its way, and it hears of nothing, until the guest is done with all this.
            stack.broker.pause().unwrap();
            let mut pci = Pci::new(vm.qtest());
            pci.config_write_u16(msix.order.address, 4, 3).unwrap();
            pci.config_write_u16(msix.order.address, 4, 7).unwrap();
            let bytes = LONG_BLOCKS * BLOCK_BYTES;
            vm.qtest().fill(LONG_RING, bytes, POISON).unwrap();
            let before = stack.status("order").counters;
            stack.broker.resume().unwrap();
            // Everything that the device did before comes before this message.
            msix.fire(&mut vm, 1);
            expect(&mut vm, 1);

            let ring = vm.qtest().read(LONG_RING, usize::try_from(bytes).unwrap());
            let touched = ring.unwrap().iter().position(|byte| *byte != POISON);
            assert_eq!(touched, None, "{kind}: a byte of the ring");
            let after = stack.status("order").counters;
            assert!(before.dma_bytes_written < bytes, "{kind}: all had come");
            assert_eq!(after.dma_bytes_written, before.dma_bytes_written, "{kind}");
            assert!(after.dma_refused > before.dma_refused, "{kind}: {after:?}");
            // What begins now moves.
            start_messenger(&msix.order, vm.qtest(), RAM, 4);
            await_u32(vm.qtest(), RAM + 3 * BLOCK_BYTES, 3);
        }
    }
}
