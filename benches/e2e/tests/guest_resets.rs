//! A Linux guest resets its function, restarts itself or is stopped for a while: the device is then as a local one would be, and works.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_e2e::{Stack, StackOptions};
use potemkin_testkit::{
    Vmm,
    guest::{Guest, compile},
    initramfs::{Initramfs, READY_LINE},
};
use potemkin_transport::TransportKind::{self, Grpc, Quic};
use tempfile::TempDir;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(180);
/// Leaves a value in the liveness register, which gives its complement.
const SET_LIVENESS: &str = "edu_user posted 5 && edu_user read 4";
const LIVENESS_SET: &str = "RESULT read 0xfffffffa";
/// After a reset.
const LIVENESS_CLEAR: &str = "RESULT read 0x00000000";

#[test]
fn a_reset_of_the_secondary_bus_resets_the_device() {
    on_both_transports(|kind| {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let socket = stack.attach("vm").socket;
        let folder = programs();
        // The root port resets what is behind it; the kernel puts configuration space back (PCI Express Base Specification, 7.5.1.3.13).
        let script = format!(
            "f=/sys/bus/pci/devices/0000:01:00.0; cat $f/reset_method; {SET_LIVENESS} && \
             echo bus >$f/reset_method && echo 1 >$f/reset && edu_user read 4 && edu_user check"
        );
        let guest = guest(&folder, &script).machine(|machine| {
            machine
                .root_port("rp0", 1)
                .vfio_user_on("rp0", "remote", &socket)
        });

        let report = guest.run(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{}", report.console);
        let reads: Vec<_> = lines(&report.console, "RESULT read");
        assert_eq!(reads, [LIVENESS_SET, LIVENESS_CLEAR], "{kind}");
    });
}

#[test]
fn a_function_level_reset_resets_the_device_and_it_works_again() {
    on_both_transports(|kind| {
        let stack = Stack::start(ROLE, &StackOptions::on(kind).with_order(64)).unwrap();
        let socket = stack.attach_device("vm", Stack::ORDER).socket;
        let folder = tempfile::tempdir().unwrap();
        let program = compile("order_user", folder.path()).unwrap();
        let script = "f=0000:01:00.0; d=/sys/bus/pci/devices/$f; \
                      order_user $f use && echo flr >$d/reset_method && \
                      for round in 1 2 3; do \
                      echo 1 >$d/reset && order_user $f fresh && order_user $f use || exit 1; done";
        let guest = Guest::new(&Vmm::from_env(), script)
            .file("/bin/order_user", &program)
            .machine(|machine| {
                machine
                    .root_port("rp0", 1)
                    .vfio_user_on("rp0", "remote", &socket)
            });

        let report = guest.run(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{kind}: {}", report.console);
        let passed = lines(&report.console, "PASS");
        assert_eq!(passed[..1], ["PASS use"]);
        assert_eq!(passed[1..], ["PASS fresh", "PASS use"].repeat(3));
    });
}

#[test]
fn a_guest_that_reboots_finds_the_device_as_at_power_on() {
    on_both_transports(|kind| {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let socket = stack.attach("vm").socket;
        let folder = programs();
        let script = format!(
            "edu_user read 4; edu_user check; {SET_LIVENESS}; \
             echo ASKING; read word; [ $word = on ] || reboot -f"
        );
        let mut guest = guest(&folder, &script)
            .machine(|machine| machine.reboots().vfio_user("remote", &socket))
            .start()
            .unwrap();

        guest.wait_line("ASKING", LIMIT).unwrap();
        guest.send_line("again").unwrap();
        guest.wait_line(READY_LINE, LIMIT).unwrap();
        guest.wait_line("ASKING", LIMIT).unwrap();
        guest.send_line("on").unwrap();
        let report = guest.wait_power_off(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{}", report.console);
        let reads: Vec<_> = lines(&report.console, "RESULT read");
        let boot = [LIVENESS_CLEAR, LIVENESS_SET];
        assert_eq!(reads, [boot, boot].concat(), "{kind}: {}", report.console);
        assert_eq!(lines(&report.console, "FAIL"), [""; 0]);
    });
}

#[test]
fn a_kernel_started_by_kexec_finds_the_device_as_it_was_left() {
    on_both_transports(|kind| {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let socket = stack.attach("vm").socket;
        let vmm = Vmm::from_env();
        let folder = programs();
        let second = Initramfs::new(&vmm)
            .file("/bin/edu_user", &folder.path().join("edu_user"))
            .script("edu_user read 4 && edu_user check");
        let initrd = folder.path().join("initrd");
        std::fs::write(&initrd, second.build().unwrap()).unwrap();
        let script = format!("{SET_LIVENESS} && kexec /vmlinuz /initrd");
        let guest = guest(&folder, &script)
            .file("/bin/kexec", &folder.path().join("kexec"))
            .file("/vmlinuz", &vmm.kernel)
            .file("/initrd", &initrd)
            .machine(|machine| machine.vfio_user("remote", &socket));

        let report = guest.run(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{}", report.console);
        assert_eq!(lines(&report.console, READY_LINE).len(), 2);
        let reads: Vec<_> = lines(&report.console, "RESULT read");
        assert_eq!(reads, [LIVENESS_SET, LIVENESS_SET], "{kind}");
    });
}

#[test]
fn a_guest_that_is_stopped_beyond_deadline_and_lease_goes_on_where_it_was() {
    on_both_transports(|kind| {
        let options = StackOptions {
            lease: Duration::from_secs(3),
            ..StackOptions::on(kind)
        };
        assert!(options.lease > options.deadline);
        let mut hourglass = Stack::start(ROLE, &options).unwrap();
        let stack = Stack::start(ROLE, &options).unwrap();
        let socket = stack.attach("vm").socket;
        let folder = programs();
        let script = format!(
            "f=$(edu_user find | sed -n 's/RESULT function //p'); \
             echo 1234 11e8 >/sys/bus/pci/drivers/uio_pci_generic/new_id; edu_uio $f {ROUNDS}"
        );
        let mut guest = guest(&folder, &script)
            .file("/bin/edu_uio", &folder.path().join("edu_uio"))
            .module("uio_pci_generic")
            .machine(|machine| machine.vfio_user("remote", &socket))
            .start()
            .unwrap();

        guest.wait_line("WORKING", LIMIT).unwrap();
        guest.vm.qmp.stop().unwrap();
        let stopped = stack.status("vm").counters;
        // Another stack's host falls silent now: once its lease is over, so would be one that was lost here.
        hourglass.host.pause().unwrap();
        let silence = "no heartbeat within the lease";
        hourglass.broker.wait_log(silence, LIMIT).unwrap();
        let still = stack.status("vm").counters;
        guest.vm.qmp.cont().unwrap();
        let report = guest.wait_power_off(LIMIT).unwrap();

        assert_eq!(report.status, 0, "{kind}: {}", report.console);
        assert!(stopped.interrupts < ROUNDS * 2, "it was stopped at work");
        // Posted writes may have been under way; 3 s of work are hundreds of rounds.
        assert!(still.bar_writes - stopped.bar_writes < 10, "it stood still");
        let counters = stack.status("vm").counters;
        assert_eq!(counters.interrupts, ROUNDS * 2);
        assert_eq!(counters.dma_refused, 0);
    });
}

/// So many that the guest is stopped before the last.
const ROUNDS: u64 = 800;

fn on_both_transports(test: fn(TransportKind)) {
    for kind in [Quic, Grpc] {
        test(kind);
    }
}

/// A folder with the guest's programs.
fn programs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for program in ["edu_user", "edu_uio", "kexec"] {
        compile(program, folder.path()).unwrap();
    }
    folder
}

/// A guest with `edu_user`.
fn guest(programs: &TempDir, script: &str) -> Guest {
    let program = programs.path().join("edu_user");
    Guest::new(&Vmm::from_env(), script).file("/bin/edu_user", &program)
}

/// The console's lines that begin so.
fn lines<'a>(console: &'a str, start: &str) -> Vec<&'a str> {
    let lines = console.lines().map(str::trim);
    lines.filter(|line| line.starts_with(start)).collect()
}
