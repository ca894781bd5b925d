//! Rolling restarts of two brokers under load: each is told to stop and started again while the session goes on through the other. No access
//! may fail, wait for its deadline, or come twice.
//!
//! `POTEMKIN_RESTARTS`: how often both are restarted. `POTEMKIN_RESTARTS_REPORT`: a file for the results, JSON.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, env, fs, time::Duration};

use potemkin_e2e::{Duo, DuoOptions, load::Load};
use potemkin_transport::TransportKind::{Grpc, Quic};
use serde_json::{Value, json};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const DEFAULT_RESTARTS: u32 = 2;
/// Turns of the guest between two restarts.
const TURNS: u64 = 20;

#[test]
fn rolling_restarts_of_two_brokers_cost_no_access() {
    let restarts = env::var("POTEMKIN_RESTARTS").map_or(DEFAULT_RESTARTS, |text| {
        text.parse().expect("POTEMKIN_RESTARTS is a number")
    });
    let mut results = BTreeMap::new();
    for kind in [Quic, Grpc] {
        let options = DuoOptions {
            agent_leg: kind,
            host_leg: kind,
            // Whoever shares this machine's processors must not make an access fail.
            deadline: Duration::from_secs(4),
            ..DuoOptions::default()
        };
        let mut duo = Duo::start(ROLE, &options, None).unwrap();
        let load = Load::start(&duo.attach());

        let mut waits = Vec::new();
        for _ in 0..restarts {
            for broker in [0, 1] {
                load.await_turns(TURNS);
                waits.push(restart(&mut duo, &load, broker));
            }
        }
        load.await_turns(TURNS);
        let status = duo.status();
        let totals = load.stop();

        assert!(
            status.counters.resumes >= u64::from(restarts),
            "{kind}: {status:?}"
        );
        waits.sort_unstable();
        let result = json!({
            "restarts": restarts, "resumes": status.counters.resumes, "accesses": totals.accesses, "failed": 0,
            "interrupts": totals.interrupts, "slowest_read_ms": totals.slowest.as_millis(),
            "median_of_slowest_ms": waits[waits.len() / 2].as_millis(), "debug": cfg!(debug_assertions),
        });
        println!("{kind}: {result}");
        results.insert(kind.to_string(), result);
        report(&results);
    }
}

/// Gives the longest read meanwhile.
fn restart(duo: &mut Duo, load: &Load, broker: usize) -> Duration {
    let _before = load.take_slowest();
    duo.brokers[broker].terminate().unwrap();
    load.await_turns(TURNS);
    duo.restart_broker(broker).unwrap();
    load.take_slowest()
}

fn report(results: &BTreeMap<String, Value>) {
    if let Some(path) = env::var_os("POTEMKIN_RESTARTS_REPORT") {
        let text = serde_json::to_string(results).unwrap();
        fs::write(path, text + "\n").unwrap();
    }
}
