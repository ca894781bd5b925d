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

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(180);
/// Rounds, after those in which tables and pools grow to their size.
const ROUNDS: u32 = 100;
const WARM_UP: u32 = 10;
/// Resident memory that the rounds may add, in bytes: pages of the allocator's. 5 KiB kept of each round show.
const RSS_SLACK: u64 = 512 << 10;
/// How long what a client held may take to be given back.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A guest that takes each function of `edu` that is plugged into its root port.
fn listening_guest() -> RunningGuest {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("edu_uio", folder.path()).unwrap();
    // An event of a CPU says that events are listened to.
    let script = "echo 1234 11e8 >/sys/bus/pci/drivers/uio_pci_generic/new_id; \
                  (until [ -e /run/listening ]; do echo change >/sys/devices/system/cpu/cpu0/uevent; done) & \
                  uevent /bin/plugged.sh";
    let mut guest = Guest::new(&Vmm::from_env(), script)
        .file("/bin/edu_uio", &program)
        .file("/bin/plugged.sh", &sources().join("plugged.sh"))
        .module("uio_pci_generic")
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
    let mut guest = listening_guest();

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

/// One life of the function in the guest, from its appearance to QEMU's word that it is gone.
fn plug_drive_and_unplug(guest: &mut RunningGuest, socket: &Path) {
    let device = vfio_user_device("remote", socket, Some("rp0"));
    guest.vm.qmp.device_add(device).unwrap();
    let line = guest.wait_line("PLUGGED", LIMIT).unwrap();
    assert_eq!(line, "PLUGGED PASS", "{}", guest.vm.console().text());
    guest.vm.qmp.device_del("remote", LIMIT).unwrap();
    guest.wait_line("REMOVED", LIMIT).unwrap();
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
