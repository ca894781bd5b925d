//! QEMU's own `edu`, driven by qtest: validates the kit, and says how a device that is not remote behaves.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_testkit::Vmm;
use potemkin_testkit::qemu::pci::{BarKind, Function, Pci};
use potemkin_testkit::qemu::{Machine, Vm};
use serde_json::json;

const LONG: Duration = Duration::from_secs(60);
const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x11e8;

fn machine() -> Machine {
    Machine::qtest(&Vmm::from_env())
}

fn with_edu() -> Vm {
    machine()
        .device(json!({ "driver": "edu", "id": "edu0" }))
        .start()
        .unwrap()
}

/// The function, enabled by hand.
fn enabled(vm: &mut Vm) -> Function {
    let mut pci = Pci::new(vm.qtest());
    let at = pci.find(0, VENDOR, DEVICE).unwrap();
    pci.enable(at).unwrap()
}

#[test]
fn the_header_names_the_device() {
    let mut vm = with_edu();
    let mut pci = Pci::new(vm.qtest());

    let at = pci.find(0, VENDOR, DEVICE).unwrap();

    assert_eq!(pci.config_read_u16(at, 0).unwrap(), VENDOR);
    assert_eq!(pci.config_read_u16(at, 2).unwrap(), DEVICE);
    assert_eq!(pci.config_read_u32(at, 8).unwrap(), 0x00ff_0010);
    assert_eq!(pci.config_read_u8(at, 0xb).unwrap(), 0);
    assert_eq!(pci.config_read_u8(at, 0x3d).unwrap(), 1);
}

#[test]
fn sizing_finds_one_megabyte_and_puts_it_back() {
    let mut vm = with_edu();
    let mut pci = Pci::new(vm.qtest());
    let at = pci.find(0, VENDOR, DEVICE).unwrap();
    pci.config_write_u32(at, 0x10, 0xfea0_0000).unwrap();

    let sizes: Vec<_> = (0..=6).map(|bar| pci.size_bar(at, bar).unwrap()).collect();

    let bar = sizes[0].unwrap();
    assert_eq!(
        (bar.kind, bar.size),
        (
            BarKind::Memory32 {
                prefetchable: false
            },
            1 << 20
        )
    );
    assert!(sizes[1..].iter().all(Option::is_none), "{sizes:?}");
    assert_eq!(pci.config_read_u32(at, 0x10).unwrap(), 0xfea0_0000);
}

#[test]
fn registers_answer_in_the_bar() {
    let mut vm = with_edu();
    let edu = enabled(&mut vm);
    let qtest = vm.qtest();

    assert_eq!(edu.read(qtest, 0, 0, 4).unwrap(), 0x0100_00ed);
    edu.write(qtest, 0, 4, 4, 0x1234_5678).unwrap();
    assert_eq!(edu.read(qtest, 0, 4, 4).unwrap(), 0xedcb_a987);
    edu.write(qtest, 0, 0x80, 8, 0x1_2345_6789).unwrap();
    assert_eq!(edu.read(qtest, 0, 0x80, 8).unwrap(), 0x1_2345_6789);
}

/// The specification allows 4 bytes everywhere and 8 from 0x80 on. What QEMU's own device does with the rest is
/// no promise of it, and this is where to look when a remote one is compared with it.
#[test]
fn widths_that_the_specification_excludes_reach_no_register() {
    let mut vm = with_edu();
    let edu = enabled(&mut vm);
    let qtest = vm.qtest();
    edu.write(qtest, 0, 4, 4, 0x1234_5678).unwrap();

    let narrow: Vec<_> = [1, 2]
        .map(|width| edu.read(qtest, 0, 0, width).unwrap())
        .into();
    let wide = edu.read(qtest, 0, 0, 8).unwrap();
    edu.write(qtest, 0, 4, 1, 0xff).unwrap();
    edu.write(qtest, 0, 0, 8, 0xff_0000_0000).unwrap();

    assert_eq!(narrow, [0, 0]);
    assert_eq!(wide, u64::MAX);
    assert_eq!(edu.read(qtest, 0, 4, 4).unwrap(), 0xedcb_a987);
}

/// It is QEMU that splits, before any device, local or remote, sees the access.
#[test]
fn a_misaligned_wide_write_arrives_as_two() {
    let mut vm = with_edu();
    let edu = enabled(&mut vm);
    let qtest = vm.qtest();

    edu.write(qtest, 0, 4, 8, 0x1234_5678).unwrap();

    assert_eq!(edu.read(qtest, 0, 4, 4).unwrap(), 0xedcb_a987);
}

#[test]
fn a_bar_does_not_answer_while_decoding_is_off() {
    let mut vm = with_edu();
    let edu = enabled(&mut vm);
    let mut pci = Pci::new(vm.qtest());

    pci.config_write_u16(edu.address, 4, 0).unwrap();
    let off = edu.read(pci.qtest(), 0, 0, 4).unwrap();
    pci.config_write_u16(edu.address, 4, 2).unwrap();
    let on = edu.read(pci.qtest(), 0, 0, 4).unwrap();

    assert_ne!(off, 0x0100_00ed);
    assert_eq!(on, 0x0100_00ed);
}

#[test]
fn an_interrupt_raises_and_lowers_a_line_of_the_io_apic() {
    let mut vm = with_edu();
    let edu = enabled(&mut vm);
    let qtest = vm.qtest();
    qtest.irq_intercept_in("ioapic").unwrap();

    edu.write(qtest, 0, 0x60, 4, 1).unwrap();
    let raised: Vec<_> = qtest.raised_lines().collect();
    edu.write(qtest, 0, 0x64, 4, 1).unwrap();

    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!(qtest.raised_lines().count(), 0);
    assert_eq!(qtest.raised(raised[0]), 1);
}

#[test]
fn dma_copies_guest_memory_and_the_clock_drives_it() {
    let mut vm = with_edu();
    let edu = enabled(&mut vm);
    let qtest = vm.qtest();
    qtest.write(0x10_0000, b"potemkin").unwrap();

    // To the device's buffer and back to another place (bit 1: from the device).
    for (source, target, command) in [(0x10_0000, 0x4_0000, 1), (0x4_0000, 0x10_1000, 3)] {
        edu.write(qtest, 0, 0x80, 8, source).unwrap();
        edu.write(qtest, 0, 0x88, 8, target).unwrap();
        edu.write(qtest, 0, 0x90, 8, 8).unwrap();
        edu.write(qtest, 0, 0x98, 8, command).unwrap();
        qtest.clock_step(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(edu.read(qtest, 0, 0x98, 8).unwrap() & 1, 0);
    }

    assert_eq!(qtest.read(0x10_1000, 8).unwrap(), b"potemkin");
}

#[test]
fn a_function_behind_a_root_port_is_reached() {
    let edu = json!({ "driver": "edu", "id": "edu0", "bus": "rp0" });
    let mut vm = machine().root_port("rp0", 1).device(edu).start().unwrap();
    let mut pci = Pci::new(vm.qtest());

    let port = pci.find(0, 0x1b36, 0x000c).unwrap();
    let bus = pci.open_bridge(port).unwrap();
    let at = pci.find(bus, VENDOR, DEVICE).unwrap();
    let edu = pci.enable(at).unwrap();

    assert_eq!(edu.read(vm.qtest(), 0, 0, 4).unwrap(), 0x0100_00ed);
}

#[test]
fn a_device_comes_by_qmp_and_the_machine_quits_by_it() {
    let mut vm = machine().root_port("rp0", 1).start().unwrap();

    vm.qmp
        .device_add(json!({ "driver": "edu", "id": "edu0", "bus": "rp0" }))
        .unwrap();
    let refused = vm
        .qmp
        .device_add(json!({ "driver": "edu", "id": "edu0", "bus": "rp0" }))
        .unwrap_err();

    assert!(refused.to_string().contains("edu0"), "{refused}");
    assert!(vm.quit(LONG).unwrap().success());
}

#[test]
fn a_vfio_user_device_without_a_server_ends_qemu_with_its_words() {
    let nobody = std::path::Path::new("/nonexistent/edu.sock");

    let error = machine().vfio_user("edu0", nobody).start().unwrap_err();

    assert!(
        error.to_string().contains("/nonexistent/edu.sock"),
        "{error}"
    );
}
