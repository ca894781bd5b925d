//! A Linux guest whose driver takes MSI-X behind DMA and resets the function, again and again, while brokers are killed, told to stop and
//! stopped, and links go down: its results are right, and its kernel does not complain of a stall.
//!
//! `POTEMKIN_GUEST_CHAOS_ROUNDS`: how often each fault occurs. `POTEMKIN_GUEST_CHAOS_REPORT`: a file for the results, JSON.

#![allow(clippy::unwrap_used)]

use std::{env, fs, thread, time::Duration};

use potemkin_e2e::{Duo, DuoOptions, Link, Ways, guest_with_iommu};
use potemkin_testkit::guest::{RunningGuest, compile};
use serde_json::json;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const LIMIT: Duration = Duration::from_secs(240);
const DEFAULT_ROUNDS: u32 = 1;
/// How long a link, a broker or the host is away: well below the deadline.
const AWAY: Duration = Duration::from_millis(400);

/// The driver's program runs over and over until a line comes. Thresholds of the kernel's watchdogs are at a half and less of their usual
/// values; what they say is looked for in all that the kernel logged.
const SCRIPT: &str = "cd /sys/bus/pci/drivers/vfio-pci; echo 1234 0d3e >new_id; f=$(echo 0000:*); \
    echo 10 >/proc/sys/kernel/watchdog_thresh; echo 20 >/proc/sys/kernel/hung_task_timeout_secs; \
    work() { n=0; while [ ! -e /run/stop ]; do order_vfio $f 100 || return 1; n=$((n+1)); echo ROUND $n; done; echo RESULT runs $n; }; \
    work & worker=$!; read line; : >/run/stop; wait $worker || exit 1; \
    dmesg | grep -iE 'soft lockup|hard lockup|blocked for more than|rcu.*(stall|starved)|hung task' && exit 2; exit 0";

#[test]
fn a_guests_kernel_and_driver_notice_nothing() {
    let rounds = env::var("POTEMKIN_GUEST_CHAOS_ROUNDS").map_or(DEFAULT_ROUNDS, |text| {
        text.parse()
            .expect("POTEMKIN_GUEST_CHAOS_ROUNDS is a number")
    });
    let options = DuoOptions {
        deadline: Duration::from_secs(4),
        ..DuoOptions::default()
    };
    let mut duo = Duo::start(ROLE, &options, Some(Ways::new().unwrap())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = compile("order_vfio", folder.path()).unwrap();
    let guest = guest_with_iommu(SCRIPT, &duo.attach()).file("/bin/order_vfio", &program);
    let mut guest = guest.start().unwrap();
    guest.wait_line("ROUND 1", LIMIT).unwrap();

    for round in 0..rounds {
        for fault in [kill, terminate, stop, blip, pause_host] {
            fault(&mut duo);
            go_on(&mut guest);
        }
        println!(
            "guest chaos: round {round}: {} resumes",
            duo.status().counters.resumes
        );
    }

    guest.send_line("stop").unwrap();
    let report = guest.wait_power_off(LIMIT).unwrap();
    assert_eq!(report.status, 0, "{}", report.console);
    let counters = duo.status().counters;
    let result = json!({
        "rounds": rounds, "faults": 5 * rounds, "runs": report.results()["runs"], "resumes": counters.resumes,
        "bar_reads": counters.bar_reads, "round_trips": counters.round_trips, "interrupts": counters.interrupts, "failed": 0,
    });
    println!("{result}");
    if let Some(path) = env::var_os("POTEMKIN_GUEST_CHAOS_REPORT") {
        fs::write(path, format!("{result}\n")).unwrap();
    }
    assert_eq!(counters.dma_refused, 0);
    assert!(counters.resumes >= u64::from(2 * rounds), "{counters:?}");
}

/// A whole run of the program that began after the fault.
fn go_on(guest: &mut RunningGuest) {
    for _ in 0..2 {
        guest.wait_line("ROUND", LIMIT).unwrap();
    }
}

fn kill(duo: &mut Duo) {
    let broker = duo.in_use();
    duo.brokers[broker].process.kill().unwrap();
    duo.restart_broker(broker).unwrap();
}

fn terminate(duo: &mut Duo) {
    let broker = duo.in_use();
    duo.brokers[broker].terminate().unwrap();
    duo.restart_broker(broker).unwrap();
}

/// Beyond every time-out; the other broker goes on.
fn stop(duo: &mut Duo) {
    let broker = duo.in_use();
    duo.brokers[broker].process.pause().unwrap();
    thread::sleep(2 * DuoOptions::default().idle_timeout);
    duo.brokers[broker].process.resume().unwrap();
    duo.settle(1).unwrap();
}

fn blip(duo: &mut Duo) {
    let ways = duo.ways();
    Link::ALL
        .iter()
        .for_each(|link| ways.take_down(*link).unwrap());
    thread::sleep(AWAY);
    Link::ALL
        .iter()
        .for_each(|link| ways.take_up(*link).unwrap());
}

fn pause_host(duo: &mut Duo) {
    duo.host.process.pause().unwrap();
    thread::sleep(AWAY);
    duo.host.process.resume().unwrap();
}
