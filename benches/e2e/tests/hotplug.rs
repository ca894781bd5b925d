//! A function is plugged into a running Linux guest and unplugged, again and again, on one socket of one agent.

#![allow(clippy::unwrap_used)]

use std::{path::Path, time::Duration};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Process, Vmm,
    guest::{Guest, RunningGuest, compile, sources},
    process::Usage,
    qemu::vfio_user_device,
};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use serde_json::json;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(180);
/// Rounds, after those in which tables and pools grow to their size.
const ROUNDS: u32 = 100;
const WARM_UP: u32 = 10;
/// That have `order` plugged in, one after the other.
const GUESTS: u64 = 2;
/// That each has it send, twice.
const MESSAGES: u64 = 16;
/// Resident memory that the rounds may add, in bytes: pages of the allocator's. 5 KiB kept of each round show.
const RSS_SLACK: u64 = 512 << 10;
/// How long what a client held may take to be given back.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A guest that takes each function with these ids that is plugged into its root port, and drives it by `program`.
fn listening_guest(
    ids: &str,
    driver: &str,
    program: &str,
    change: impl FnOnce(Guest) -> Guest,
) -> RunningGuest {
    let folder = tempfile::tempdir().unwrap();
    let source = compile(program, folder.path()).unwrap();
    // An event of a CPU says that events are listened to.
    let script = format!(
        "echo {ids} >/sys/bus/pci/drivers/{driver}/new_id; \
         (until [ -e /run/listening ]; do echo change >/sys/devices/system/cpu/cpu0/uevent; done) & \
         uevent /bin/plugged.sh"
    );
    let guest = Guest::new(&Vmm::from_env(), &script)
        .file(&format!("/bin/{program}"), &source)
        .file("/bin/plugged.sh", &sources().join("plugged.sh"));
    let mut guest = change(guest)
        .machine(|machine| machine.root_port("rp0", 1))
        .start()
        .unwrap();
    guest.wait_line("LISTENING", LIMIT).unwrap();
    guest
}

#[test]
fn plugged_in_100_times_over_quic_and_nothing_is_left() {
    a_guest_drives_it_each_time_and_nothing_is_left(Quic);
}

#[test]
fn plugged_in_100_times_over_grpc_and_nothing_is_left() {
    a_guest_drives_it_each_time_and_nothing_is_left(Grpc);
}

fn a_guest_drives_it_each_time_and_nothing_is_left(kind: TransportKind) {
    let mut stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
    let socket = stack.attach("vm").socket;
    let unused = [&stack.front, &stack.host].map(|process| process.usage().unwrap());
    let mut guest = listening_guest("1234 11e8", "uio_pci_generic", "edu_uio", |guest| {
        guest.module("uio_pci_generic")
    });

    for _ in 0..WARM_UP {
        plug_drive_and_unplug(&mut guest, &socket);
    }
    let base = await_usages(&mut stack, |now, unused| now.fds <= unused.fds, unused);
    for _ in 0..ROUNDS {
        plug_drive_and_unplug(&mut guest, &socket);
    }
    await_usages(&mut stack, at_baseline, base);

    let counters = stack.status("vm").counters;
    let rounds = u64::from(WARM_UP + ROUNDS);
    assert_eq!(counters.interrupts, rounds * 2);
    assert_eq!(counters.dma_bytes_read, rounds * 4_096);
    assert_eq!(counters.dma_bytes_written, rounds * 4_096);
    assert_eq!(counters.dma_refused, 0);
}

/// It is not unplugged: QEMU 11.1 takes the pending bit array of a vfio-user function out of its BAR when the BAR is gone already, and
/// aborts (`vfio_user_msix_teardown`).
#[test]
fn a_function_with_rom_and_msix_is_plugged_in_and_nothing_is_left_of_its_guest() {
    let mut stack = Stack::start(ROLE, &StackOptions::default().with_order(64)).unwrap();
    let socket = stack.attach_device("vm", Stack::ORDER).socket;
    let unused = [&stack.front, &stack.host].map(|process| process.usage().unwrap());

    for _ in 0..GUESTS {
        let mut guest = listening_guest("1234 0d3e", "vfio-pci", "order_vfio", with_iommu);
        plug_and_drive(&mut guest, &socket);
        assert!(guest.vm.quit(LIMIT).unwrap().success());
    }

    await_usages(&mut stack, |now, unused| now.fds <= unused.fds, unused);
    let counters = stack.status("vm").counters;
    // Before a reset of the function and after it, as `plugged.sh` asks for.
    assert_eq!(counters.interrupts, GUESTS * 2 * MESSAGES);
    assert_eq!(counters.dma_bytes_written, GUESTS * 2 * MESSAGES * 4_096);
    assert_eq!(counters.dma_refused, 0);
}

/// vfio-pci, behind an IOMMU that tells QEMU what is mapped.
fn with_iommu(guest: Guest) -> Guest {
    let iommu = json!({ "driver": "intel-iommu", "intremap": "on", "caching-mode": true });
    guest
        .module("vfio_iommu_type1")
        .module("vfio-pci")
        .kernel_arguments("intel_iommu=on")
        .machine(|machine| machine.device(iommu))
}

/// One life of the function in the guest, from its appearance to QEMU's word that it is gone.
fn plug_drive_and_unplug(guest: &mut RunningGuest, socket: &Path) {
    plug_and_drive(guest, socket);
    guest.vm.qmp.device_del("remote", LIMIT).unwrap();
    guest.wait_line("REMOVED", LIMIT).unwrap();
}

fn plug_and_drive(guest: &mut RunningGuest, socket: &Path) {
    let device = vfio_user_device("remote", socket, Some("rp0"));
    guest.vm.qmp.device_add(device).unwrap();
    let line = guest.wait_line("PLUGGED", LIMIT).unwrap();
    assert_eq!(line, "PLUGGED PASS", "{}", guest.vm.console().text());
}

fn at_baseline(now: &Usage, base: &Usage) -> bool {
    now.fds <= base.fds
        && now.threads <= base.threads
        && now.rss_bytes <= base.rss_bytes + RSS_SLACK
}

/// What agent and host hold, once each compares so with what it held before.
fn await_usages(
    stack: &mut Stack,
    settled: fn(&Usage, &Usage) -> bool,
    before: [Usage; 2],
) -> [Usage; 2] {
    let [agent, host] = before;
    let wait = |process: &mut Process, before: Usage| {
        let now = process.wait_usage(SETTLE_LIMIT, |now| settled(now, &before));
        now.unwrap_or_else(|error| panic!("before: {before:?}\n{error}"))
    };
    [wait(&mut stack.front, agent), wait(&mut stack.host, host)]
}
