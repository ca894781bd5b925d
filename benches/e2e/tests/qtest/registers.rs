//! `edu`'s registers, and what happens when the machine or the host goes.

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    qemu::{Machine, pci::Pci},
};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{DEVICE, ROLE, VENDOR, enabled, machine};

#[test]
fn configuration_space_is_that_of_the_device_and_causes_no_frame() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine(kind);
        enabled(&mut vm);
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
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut vm = Machine::qtest(&Vmm::from_env())
            .vfio_user("remote", &stack.attach("vm").socket)
            .reboots()
            .start()
            .unwrap();
        let edu = enabled(&mut vm);
        edu.write(vm.qtest(), 0, 4, 4, 1).unwrap();
        assert_ne!(edu.read(vm.qtest(), 0, 4, 4).unwrap(), 0);

        vm.qmp.system_reset().unwrap();
        vm.qmp
            .wait_event("RESET", std::time::Duration::from_secs(30))
            .unwrap();
        let edu = enabled(&mut vm);

        assert_eq!(
            edu.read(vm.qtest(), 0, 4, 4).unwrap(),
            0,
            "{kind}: liveness was reset"
        );
        assert_eq!(edu.read(vm.qtest(), 0, 0, 4).unwrap(), 0x0100_00ed);
        edu.write(vm.qtest(), 0, 4, 4, 1).unwrap();
        assert_eq!(edu.read(vm.qtest(), 0, 4, 4).unwrap(), 0xffff_fffe);
    }
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
