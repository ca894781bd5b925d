//! `edu`'s INTx and MSI through QEMU: delivered, masked, and delivered when they are let through.

use std::time::Duration;

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    qemu::{
        Machine, Qtest, Vm,
        pci::{Function, Pci},
    },
};
use potemkin_transport::{
    TransportKind,
    TransportKind::{Grpc, Quic},
};

use crate::{ROLE, await_u32, both_enabled, capability, enabled, machine, machine_with_order};

/// Bounds the wait for an interrupt; nothing is timed by it.
const LIMIT: Duration = Duration::from_secs(30);
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

const COMMAND: u8 = 4;
/// Memory, bus mastering.
const ENABLED: u16 = 6;
const INTX_DISABLED: u16 = ENABLED | 1 << 10;

/// Where a message goes, and what it says.
const MESSAGE: u64 = 0x20_0000;
const DATA: u16 = 0x4321;

fn write(vm: &mut Vm, edu: &Function, register: u64, value: u64) {
    edu.write(vm.qtest(), 0, register, 4, value).unwrap();
}

/// The interrupt status. What the device did before comes before this answer.
fn causes(vm: &mut Vm, edu: &Function) -> u64 {
    edu.read(vm.qtest(), 0, 0x24, 4).unwrap()
}

fn command(vm: &mut Vm, edu: &Function, value: u16) {
    let mut pci = Pci::new(vm.qtest());
    pci.config_write_u16(edu.address, COMMAND, value).unwrap();
}

/// Until a line other than this one is up; which.
fn await_raised(qtest: &mut Qtest, other: Option<u32>) -> u32 {
    loop {
        let raised = qtest.raised_lines().find(|line| Some(*line) != other);
        if let Some(line) = raised {
            return line;
        }
        qtest.wait_irq(LIMIT).unwrap();
    }
}

fn await_lowered(qtest: &mut Qtest, line: u32) {
    while qtest.line(line) {
        qtest.wait_irq(LIMIT).unwrap();
    }
}

#[test]
fn intx_rises_with_the_device_and_falls_when_it_is_acknowledged() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine(kind);
        let edu = enabled(&mut vm);
        vm.qtest().irq_intercept_in("ioapic").unwrap();

        write(&mut vm, &edu, RAISE, 1);
        let line = await_raised(vm.qtest(), None);
        write(&mut vm, &edu, ACKNOWLEDGE, 1);
        // QEMU ends the interrupt when the guest next touches the device.
        assert_eq!(causes(&mut vm, &edu), 0, "{kind}");

        await_lowered(vm.qtest(), line);
    }
}

/// Has `order` raise and lower its line, twice, and gives it: QEMU's event loop has then taken all that was signalled before.
fn flush(vm: &mut Vm, order: &Function) -> u32 {
    let mut line = 0;
    for _ in 0..2 {
        for register in [0x44, 0x48] {
            order.write(vm.qtest(), 0, register, 4, 1).unwrap();
        }
        line = await_raised(vm.qtest(), None);
        order.write(vm.qtest(), 0, 0x40, 4, 1).unwrap();
        assert_eq!(order.read(vm.qtest(), 0, 0x40, 4).unwrap(), 0);
        await_lowered(vm.qtest(), line);
    }
    line
}

#[test]
fn intx_that_is_disabled_does_not_rise_until_it_is_enabled() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine_with_order(kind, 64);
        let [edu, order] = both_enabled(&mut vm);
        vm.qtest().irq_intercept_in("ioapic").unwrap();
        command(&mut vm, &edu, INTX_DISABLED);

        write(&mut vm, &edu, RAISE, 1);

        assert_eq!(causes(&mut vm, &edu), 1, "{kind}");
        let status = Pci::new(vm.qtest()).config_read_u16(edu.address, 6);
        assert_eq!(status.unwrap() & 8, 8, "{kind}: the level is up");
        let other = flush(&mut vm, &order);
        assert_eq!(vm.qtest().raised_lines().count(), 0, "{kind}");
        assert_eq!(stack.status("vm").counters.interrupts, 0, "{kind}");
        command(&mut vm, &edu, ENABLED);
        let line = await_raised(vm.qtest(), None);
        assert_ne!(line, other, "{kind}");
        assert_eq!(vm.qtest().raised(line), 1, "{kind}");
        assert_eq!(stack.status("vm").counters.interrupts, 1, "{kind}");
    }
}

#[test]
fn intx_that_is_up_falls_when_it_is_disabled_and_rises_again() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let [edu, order] = both_enabled(&mut vm);
        vm.qtest().irq_intercept_in("ioapic").unwrap();
        write(&mut vm, &edu, RAISE, 1);
        let line = await_raised(vm.qtest(), None);

        command(&mut vm, &edu, INTX_DISABLED);
        await_lowered(vm.qtest(), line);
        // The guest touches the device, which ends the interrupt for QEMU; it does not come again.
        assert_eq!(causes(&mut vm, &edu), 1, "{kind}");
        flush(&mut vm, &order);
        assert_eq!(vm.qtest().raised(line), 1, "{kind}");
        command(&mut vm, &edu, ENABLED);

        assert_eq!(await_raised(vm.qtest(), None), line, "{kind}");
        write(&mut vm, &edu, ACKNOWLEDGE, 1);
        assert_eq!(causes(&mut vm, &edu), 0, "{kind}");
        await_lowered(vm.qtest(), line);
    }
}

/// Turns memory decode and bus mastering on, and MSI with its message aimed at guest memory.
pub(crate) fn aim_msi(vm: &mut Vm, edu: &Function, address: u32, data: u16) {
    let mut pci = Pci::new(vm.qtest());
    let at = edu.address;
    pci.config_write_u16(at, COMMAND, ENABLED).unwrap();
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

/// A machine with an `edu` whose MSI vector can be masked.
fn machine_with_maskable_msi(kind: TransportKind) -> (Stack, Vm) {
    const ID: &str = "edu-maskable";
    let mut options = StackOptions::on(kind);
    options.host_extra += &format!(
        "[[devices]]\nid = \"{ID}\"\nkind = \"edu\"\noptions = {{ maskable_msi = true }}\n"
    );
    let stack = Stack::start(ROLE, &options).unwrap();
    let socket = stack.attach_device("vm", ID).socket;
    let machine = Machine::qtest(&Vmm::from_env()).vfio_user("remote", &socket);
    (stack, machine.start().unwrap())
}

/// Where the mask bits are.
fn mask_bits(vm: &mut Vm, edu: &Function) -> u8 {
    let msi = capability(vm, edu, 5);
    let control = Pci::new(vm.qtest()).config_read_u16(edu.address, msi + 2);
    assert_eq!(control.unwrap() & 0x180, 0x180, "64 bits, maskable");
    msi + 16
}

/// QEMU takes an interrupt by its event loop, which runs many times meanwhile.
fn nothing_comes(vm: &mut Vm) {
    for _ in 0..1_000 {
        assert_eq!(vm.qtest().readl(MESSAGE).unwrap(), 0, "it is masked");
    }
}

/// The agent holds it back, as a VMM on KVM needs it. (The pending bits that a guest sees are QEMU's own, which has none then.)
#[test]
fn an_msi_that_is_masked_is_pending_and_comes_once_when_it_is_unmasked() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_maskable_msi(kind);
        let edu = enabled(&mut vm);
        let mask = mask_bits(&mut vm, &edu);
        let at = edu.address;
        aim_msi(&mut vm, &edu, u32::try_from(MESSAGE).unwrap(), DATA);
        write(&mut vm, &edu, RAISE, 1);
        await_u32(vm.qtest(), MESSAGE, DATA.into());
        vm.qtest().writel(MESSAGE, 0).unwrap();

        let mut pci = Pci::new(vm.qtest());
        pci.config_write_u32(at, mask, 1).unwrap();
        for cause in [2, 4] {
            write(&mut vm, &edu, RAISE, cause);
        }
        assert_eq!(causes(&mut vm, &edu), 7, "{kind}");
        nothing_comes(&mut vm);
        let mut pci = Pci::new(vm.qtest());
        pci.config_write_u32(at, mask, 0).unwrap();

        await_u32(vm.qtest(), MESSAGE, DATA.into());
        vm.qtest().writel(MESSAGE, 0).unwrap();
        nothing_comes(&mut vm);
        write(&mut vm, &edu, RAISE, 8);
        await_u32(vm.qtest(), MESSAGE, DATA.into());
    }
}

#[test]
fn an_msi_that_was_masked_before_msi_was_enabled_comes_when_it_is_unmasked() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_maskable_msi(kind);
        let edu = enabled(&mut vm);
        let mask = mask_bits(&mut vm, &edu);
        let at = edu.address;
        Pci::new(vm.qtest()).config_write_u32(at, mask, 1).unwrap();
        aim_msi(&mut vm, &edu, u32::try_from(MESSAGE).unwrap(), DATA);

        write(&mut vm, &edu, RAISE, 1);

        assert_eq!(causes(&mut vm, &edu), 1, "{kind}");
        nothing_comes(&mut vm);
        Pci::new(vm.qtest()).config_write_u32(at, mask, 0).unwrap();
        await_u32(vm.qtest(), MESSAGE, DATA.into());
    }
}
