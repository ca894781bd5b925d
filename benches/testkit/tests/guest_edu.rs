//! A Linux guest that drives QEMU's own `edu` from user space: validates the kit and the guest program.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_testkit::guest::{Guest, compile};
use potemkin_testkit::{Error, Vmm};
use serde_json::json;

/// A guest takes some 5 s of a CPU that it may have to share.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn a_guest_finds_edu_in_sysfs_and_drives_it() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("edu_user", folder.path()).unwrap();
    let guest = Guest::new(&Vmm::from_env(), "edu_user check && edu_user posted 1000")
        .file("/bin/edu_user", &program)
        .machine(|m| m.device(json!({ "driver": "edu" })));

    let report = guest.run(LONG).unwrap();

    assert_eq!(report.status, 0, "{}", report.console);
    assert_eq!(
        report
            .console
            .lines()
            .filter(|l| l.trim() == "PASS")
            .count(),
        2
    );
    let results = report.results();
    assert_eq!(results["identification"], "0x010000ed");
    assert_eq!(results["liveness_12345678"], "0xedcba987");
    assert_eq!(results["factorial_12"], "479001600");
    assert_eq!(results["posted_answer"], "0xfffffc17");
}

#[test]
fn a_guest_without_the_device_fails_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let program = compile("edu_user", folder.path()).unwrap();
    let guest = Guest::new(&Vmm::from_env(), "edu_user find").file("/bin/edu_user", &program);

    let report = guest.run(LONG).unwrap();

    assert_eq!(report.status, 1);
    assert!(
        report.console.contains("FAIL 0 functions"),
        "{}",
        report.console
    );
}

#[test]
fn a_script_waits_for_a_line_and_modules_load() {
    let script = "read word; echo \"GOT $word\"; grep -c . /proc/modules; ls /sys/bus/pci/drivers/vfio-pci >/dev/null";
    let guest = Guest::new(&Vmm::from_env(), script).module("vfio-pci");

    let mut running = guest.start().unwrap();
    running.wait_ready(LONG).unwrap();
    running.send_line("go").unwrap();
    let line = running.wait_line("GOT", LONG).unwrap();
    let report = running.wait_power_off(LONG).unwrap();

    assert_eq!(line, "GOT go");
    assert_eq!(report.status, 0, "{}", report.console);
    assert!(
        !report.console.contains("cannot load"),
        "{}",
        report.console
    );
}

#[test]
fn a_guest_that_panics_is_an_error() {
    let guest = Guest::new(&Vmm::from_env(), "echo c > /proc/sysrq-trigger");

    let error = guest.run(LONG).unwrap_err();

    assert!(matches!(error, Error::Peer { .. }), "{error}");
    assert!(error.to_string().contains("GUEST READY"), "{error}");
}
