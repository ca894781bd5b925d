//! A real QEMU, without a guest: each access to the function is made by hand and served through broker and host.

#![allow(clippy::unwrap_used)]

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    qemu::{
        Machine, Qtest, Vm,
        pci::{BarKind, Function, Pci},
    },
};
use potemkin_transport::TransportKind::{self, Grpc, Quic};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x11e8;

/// A stack on one transport and a QEMU with its device.
fn machine(kind: TransportKind) -> (Stack, Vm) {
    let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
    let attached = stack.attach("vm");
    let vm = Machine::qtest(&Vmm::from_env())
        .vfio_user("remote", &attached.socket)
        .start()
        .unwrap();
    (stack, vm)
}

fn enabled(vm: &mut Vm) -> Function {
    let mut pci = Pci::new(vm.qtest());
    let at = pci.find(0, VENDOR, DEVICE).unwrap();
    pci.enable(at).unwrap()
}

#[test]
fn configuration_space_is_that_of_the_device_and_causes_no_frame() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine(kind);
        let before = stack.status("vm").counters.frames_sent;
        let mut pci = Pci::new(vm.qtest());

        let at = pci.find(0, VENDOR, DEVICE).unwrap();
        assert_eq!(pci.config_read_u32(at, 8).unwrap(), 0x00ff_0010);
        assert_eq!(pci.config_read_u8(at, 0x3d).unwrap(), 1, "INTA");
        let capability = pci.config_read_u8(at, 0x34).unwrap();
        assert_eq!(pci.config_read_u8(at, capability).unwrap(), 5, "MSI");
        for register in (0..=252).step_by(4) {
            pci.config_read_u32(at, register).unwrap();
        }

        assert_eq!(stack.status("vm").counters.frames_sent, before, "{kind}");
    }
}

#[test]
fn each_bar_is_sized_and_put_back() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine(kind);
        let mut pci = Pci::new(vm.qtest());
        let at = pci.find(0, VENDOR, DEVICE).unwrap();
        pci.config_write_u32(at, 0x10, 0xfea0_0000).unwrap();

        let bars: Vec<_> = (0..=6).map(|bar| pci.size_bar(at, bar).unwrap()).collect();

        let bar = bars[0].unwrap();
        let memory32 = BarKind::Memory32 {
            prefetchable: false,
        };
        assert_eq!((bar.kind, bar.size), (memory32, 1 << 20), "{kind}");
        assert!(bars[1..].iter().all(Option::is_none), "{bars:?}");
        assert_eq!(pci.config_read_u32(at, 0x10).unwrap(), 0xfea0_0000);
    }
}

#[test]
fn registers_answer_at_every_width_that_the_device_has() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine(kind);
        let edu = enabled(&mut vm);
        let qtest = vm.qtest();

        assert_eq!(edu.read(qtest, 0, 0, 4).unwrap(), 0x0100_00ed);
        edu.write(qtest, 0, 4, 4, 0x1234_5678).unwrap();
        assert_eq!(edu.read(qtest, 0, 4, 4).unwrap(), 0xedcb_a987);
        // Below 0x80 the device takes 4 bytes only; what it refuses reads as all-ones and changes nothing.
        assert_eq!(edu.read(qtest, 0, 0, 1).unwrap(), 0xff);
        assert_eq!(edu.read(qtest, 0, 0, 2).unwrap(), 0xffff);
        assert_eq!(edu.read(qtest, 0, 0, 8).unwrap(), u64::MAX);
        for width in [1, 2] {
            edu.write(qtest, 0, 4, width, 0).unwrap();
        }
        assert_eq!(edu.read(qtest, 0, 4, 4).unwrap(), 0xedcb_a987);
        // From 0x80 on 4 and 8 bytes.
        edu.write(qtest, 0, 0x80, 8, 0x1_2345_6789).unwrap();
        assert_eq!(edu.read(qtest, 0, 0x80, 8).unwrap(), 0x1_2345_6789);
        assert_eq!(edu.read(qtest, 0, 0x80, 4).unwrap(), 0x2345_6789);
    }
}

#[test]
fn the_factorial_is_computed_on_the_host() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine(kind);
        let edu = enabled(&mut vm);
        let qtest = vm.qtest();

        edu.write(qtest, 0, 8, 4, 10).unwrap();
        let polls = (0..10_000).find(|_| edu.read(qtest, 0, 0x20, 4).unwrap() & 1 == 0);

        assert!(polls.is_some(), "the status never says that it is done");
        assert_eq!(edu.read(qtest, 0, 8, 4).unwrap(), 3_628_800, "{kind}");
    }
}

#[test]
fn what_is_not_there_reads_as_all_ones() {
    let (stack, mut vm) = machine(Quic);
    let edu = enabled(&mut vm);

    assert_eq!(edu.read(vm.qtest(), 0, 0x9000, 4).unwrap(), 0xffff_ffff);
    let before = stack.status("vm").counters.frames_sent;
    let mut pci = Pci::new(vm.qtest());
    // Bus mastering stays: the host hears of it when that is turned off.
    pci.config_write_u16(edu.address, 4, 4).unwrap();
    let off = edu.read(pci.qtest(), 0, 0, 4).unwrap();
    assert_eq!(
        stack.status("vm").counters.frames_sent,
        before,
        "decode is off"
    );
    pci.config_write_u16(edu.address, 4, 6).unwrap();

    assert_ne!(off, 0x0100_00ed);
    assert_eq!(edu.read(vm.qtest(), 0, 0, 4).unwrap(), 0x0100_00ed);
}

#[test]
fn a_machine_reset_reaches_the_device_and_it_works_again() {
    let stack = Stack::start(ROLE, &StackOptions::on(Grpc)).unwrap();
    let mut vm = Machine::qtest(&Vmm::from_env())
        .vfio_user("remote", &stack.attach("vm").socket)
        .reboots()
        .start()
        .unwrap();
    let edu = enabled(&mut vm);
    edu.write(vm.qtest(), 0, 4, 4, 1).unwrap();

    vm.qmp.system_reset().unwrap();
    vm.qmp
        .wait_event("RESET", std::time::Duration::from_secs(30))
        .unwrap();
    let edu = enabled(&mut vm);

    assert_eq!(
        edu.read(vm.qtest(), 0, 4, 4).unwrap(),
        0,
        "liveness was reset"
    );
    assert_eq!(edu.read(vm.qtest(), 0, 0, 4).unwrap(), 0x0100_00ed);
}

#[test]
fn a_lost_host_reads_as_all_ones_and_qemu_lives() {
    let (mut stack, mut vm) = machine(Quic);
    let edu = enabled(&mut vm);
    assert_eq!(edu.read(vm.qtest(), 0, 0, 4).unwrap(), 0x0100_00ed);

    stack.host.kill().unwrap();

    assert_eq!(edu.read(vm.qtest(), 0, 0, 4).unwrap(), 0xffff_ffff);
    assert!(
        vm.quit(std::time::Duration::from_secs(30))
            .unwrap()
            .success()
    );
}

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

/// Until the guest's memory has this value: QEMU delivers by its event loop.
fn await_u32(qtest: &mut Qtest, address: u64, value: u32) {
    let found = (0..1_000_000).any(|_| qtest.readl(address).unwrap() == value);
    assert!(found, "no interrupt's message came");
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
