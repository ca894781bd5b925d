//! A real QEMU, without a guest: each access to the functions is made by hand and served through broker and host.

#![allow(clippy::unwrap_used)]

mod bars;
mod dma;
mod interrupts;
mod msix;
mod ports;
mod registers;
mod reset;
mod rounds;
mod upgrades;

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    qemu::{
        Machine, Qtest, Vm,
        pci::{Function, Pci},
    },
};
use potemkin_transport::TransportKind;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const VENDOR: u16 = 0x1234;
/// `edu`.
const DEVICE: u16 = 0x11e8;
const ORDER: u16 = 0x0d3e;

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

/// The same with an `order` too, attached as `order`.
fn machine_with_order(kind: TransportKind, vectors: u16) -> (Stack, Vm) {
    start_with_order(kind, vectors, Machine::qtest(&Vmm::from_env()))
}

fn start_with_order(kind: TransportKind, vectors: u16, machine: Machine) -> (Stack, Vm) {
    let stack = Stack::start(ROLE, &StackOptions::on(kind).with_order(vectors)).unwrap();
    let edu = stack.attach("vm");
    let order = stack.attach_device("order", Stack::ORDER);
    let vm = machine
        .vfio_user("edu", &edu.socket)
        .vfio_user("order", &order.socket)
        .start()
        .unwrap();
    (stack, vm)
}

/// `edu`, answering.
fn enabled(vm: &mut Vm) -> Function {
    let mut pci = Pci::new(vm.qtest());
    let at = pci.find(0, VENDOR, DEVICE).unwrap();
    let edu = pci.enable(at).unwrap();
    await_answer(vm.qtest(), &edu);
    edu
}

/// `edu` and `order`, apart from each other, both answering.
fn both_enabled(vm: &mut Vm) -> [Function; 2] {
    let mut pci = Pci::new(vm.qtest());
    let both = [DEVICE, ORDER].map(|device| {
        let at = pci.find(0, VENDOR, device).unwrap();
        pci.enable(at).unwrap()
    });
    for function in &both {
        await_answer(vm.qtest(), function);
    }
    both
}

/// Until the function answers: after a reset, as QEMU does one when it starts, it does not before its host has confirmed it.
fn await_answer(qtest: &mut Qtest, function: &Function) {
    let answers = (0..100_000).any(|_| function.read(qtest, 0, 0, 4).unwrap() != 0xffff_ffff);
    assert!(answers, "the function never answers");
}

/// Until the guest's memory has this value: QEMU delivers by its event loop.
fn await_u32(qtest: &mut Qtest, address: u64, value: u32) {
    let found = (0..1_000_000).any(|_| qtest.readl(address).unwrap() == value);
    assert!(found, "no interrupt's message came");
}

/// Where a capability of a function is.
fn capability(vm: &mut Vm, function: &Function, id: u8) -> u8 {
    let mut pci = Pci::new(vm.qtest());
    let mut at = pci.config_read_u8(function.address, 0x34).unwrap();
    // As many as can be there.
    for _ in 0..48 {
        if pci.config_read_u8(function.address, at).unwrap() == id {
            return at;
        }
        at = pci.config_read_u8(function.address, at + 1).unwrap();
    }
    panic!("no capability {id:#x}");
}
