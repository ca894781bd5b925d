//! One of the three is of an older build, which speaks version 1 of the protocol only: they work together.
//!
//! `POTEMKIN_OLD_ROLE`: its `potemkin-role`. `POTEMKIN_VERSIONS_REPORT`: a file for the results, JSON.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use potemkin_e2e::{Stack, StackOptions, load::Load};
use potemkin_transport::TransportKind::{Grpc, Quic};
use serde_json::{Value, json};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
/// Of the guest.
const TURNS: u64 = 300;

#[test]
fn neighbours_one_version_apart_work_together() {
    let old = env::var_os("POTEMKIN_OLD_ROLE").expect("POTEMKIN_OLD_ROLE is set");
    let old = PathBuf::from(old);
    let mut results = BTreeMap::new();
    for role in ["front", "host", "broker"] {
        for kind in [Quic, Grpc] {
            let options = StackOptions {
                other_build: Some((role, old.clone())),
                ..StackOptions::on(kind)
            };
            let stack = Stack::start(ROLE, &options.with_order(64)).unwrap();

            // The second finds the device as the detach of the first has left it: reset.
            let accesses: Vec<u64> = ["first", "second"].map(|name| drive(&stack, name)).into();

            let name = format!("old {role}, {kind}");
            println!("{name}: {accesses:?} accesses");
            results.insert(name, json!({ "accesses": accesses, "failed": 0 }));
            report(&results);
        }
    }
}

/// Attaches, drives and detaches; how many accesses that took.
fn drive(stack: &Stack, name: &str) -> u64 {
    let load = Load::start(&stack.attach_device(name, Stack::ORDER).socket);
    load.await_turns(TURNS);
    let totals = load.stop();
    stack.admin().detach(name).unwrap();
    totals.accesses
}

fn report(results: &BTreeMap<String, Value>) {
    if let Some(path) = env::var_os("POTEMKIN_VERSIONS_REPORT") {
        let text = serde_json::to_string(results).unwrap();
        fs::write(path, text + "\n").unwrap();
    }
}
