//! A front agent that is upgraded again and again under a real QEMU: no access fails, and no message comes before its data.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use potemkin_e2e::Stack;
use potemkin_service::admin::DeviceState;
use potemkin_testkit::{Vmm, qemu::Machine};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    machine_with_order,
    rounds::{ROUNDS_BY_MESSAGE, Ram, VECTORS, check},
    start_with_order,
};

const ROUNDS: u64 = 20_000;

/// Upgrades the agent until `guest` has done its work; how often.
fn upgrade_under(stack: &Stack, guest: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    let upgrades = thread::scope(|scope| {
        let operator = scope.spawn(|| {
            let mut upgrades = 0;
            while !done.load(Ordering::SeqCst) {
                assert_eq!(stack.admin().upgrade().unwrap().devices, 2);
                upgrades += 1;
                thread::sleep(Duration::from_millis(50));
            }
            upgrades
        });
        // Also when the guest's check fails.
        let ends = Done(&done);
        guest();
        drop(ends);
        operator.join().unwrap()
    });
    for name in ["vm", "order"] {
        let status = stack.status(name);
        assert_eq!(status.state, DeviceState::Live, "{:?}", status.reason);
        assert_eq!(status.counters.dma_refused, 0);
    }
    assert!(upgrades > 1);
    upgrades
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_qemu_does_not_notice_upgrades_of_its_agent() {
    for kind in [Quic, Grpc] {
        let (stack, vm) = machine_with_order(kind, VECTORS);
        let ram = Ram(Some(vm.memory().unwrap()));
        let upgrades = upgrade_under(&stack, || check(vm, &ram, ROUNDS, &kind.to_string()));
        println!("{kind}: {upgrades} upgrades");
    }
}

#[test]
fn a_qemu_whose_memory_has_no_descriptor_does_not_notice_them_either() {
    let machine = Machine::qtest(&Vmm::from_env()).anonymous_memory();
    let (stack, vm) = start_with_order(Quic, VECTORS, machine);
    let ram = Ram(None);
    let upgrades = upgrade_under(&stack, || check(vm, &ram, ROUNDS_BY_MESSAGE, "messages"));
    println!("{upgrades} upgrades");
}
