//! `edu`'s DMA and interrupts.

use potemkin_e2e::{Stack, StackOptions};
use potemkin_service::admin::DeviceState;
use potemkin_testkit::{
    Vmm,
    qemu::{
        Machine, Qtest, Vm,
        pci::{Function, Pci},
    },
};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{ROLE, await_u32, both_enabled, enabled, machine, start_with_order};

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

/// Turns memory decode and bus mastering on, and MSI with its message aimed at guest memory.
fn aim_msi(vm: &mut Vm, edu: &Function, address: u32, data: u16) {
    let mut pci = Pci::new(vm.qtest());
    let at = edu.address;
    pci.config_write_u16(at, 4, 6).unwrap();
    let msi = pci.config_read_u8(at, 0x34).unwrap();
    let control = pci.config_read_u16(at, msi + 2).unwrap();
    pci.config_write_u32(at, msi + 4, address).unwrap();
    let data_at = if control & 0x80 != 0 {
        msi + 12
    } else {
        msi + 8
    };
    pci.config_write_u16(at, data_at, data).unwrap();
    pci.config_write_u16(at, msi + 2, control | 1).unwrap();
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
            start_messenger(&order, vm.qtest());
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
fn start_messenger(order: &Function, qtest: &mut Qtest) {
    for (register, width, value) in [
        (0x100, 8, RAM),
        (0x108, 4, BLOCK_BYTES),
        (0x10c, 4, BLOCKS),
        (0x110, 4, BLOCK_BYTES),
        (0x114, 4, 1),
        (0x118, 8, BLOCKS),
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

#[test]
fn dma_begun_before_bus_mastering_was_turned_off_moves_nothing() {
    let (_stack, mut vm) = machine(Quic);
    let edu = enabled(&mut vm);
    let mut pci = Pci::new(vm.qtest());
    pci.config_write_u16(edu.address, 4, 2).unwrap();
    start_dma(&edu, pci.qtest(), [BUFFER, RAM, 4_096, 3]);
    pci.config_write_u16(edu.address, 4, 6).unwrap();
    await_dma(&edu, pci.qtest());
    let qtest = vm.qtest();
    qtest.writel(RAM + 0x2000, 7).unwrap();

    // What begins now moves.
    start_dma(&edu, qtest, [RAM + 0x2000, BUFFER, 4, 1]);
    await_dma(&edu, qtest);
    start_dma(&edu, qtest, [BUFFER, RAM + 0x3000, 4, 3]);
    await_dma(&edu, qtest);
    edu.read(qtest, 0, 0, 4).unwrap();
    assert_eq!(qtest.readl(RAM + 0x3000).unwrap(), 7);
}

#[test]
fn intx_rises_with_the_device_and_falls_when_it_is_acknowledged() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine(kind);
        let edu = enabled(&mut vm);
        let qtest = vm.qtest();
        qtest.irq_intercept_in("ioapic").unwrap();

        edu.write(qtest, 0, 0x60, 4, 1).unwrap();
        let (line, level) = qtest.wait_irq(std::time::Duration::from_secs(30)).unwrap();
        assert!(level, "{kind}");
        edu.write(qtest, 0, 0x64, 4, 1).unwrap();
        assert_eq!(edu.read(qtest, 0, 0x24, 4).unwrap(), 0);
        // QEMU ends the interrupt when the guest next touches the device.
        while qtest.line(line) {
            qtest.wait_irq(std::time::Duration::from_secs(30)).unwrap();
        }
    }
}
