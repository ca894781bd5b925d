//! Crowds of bad peers: each is told what is wrong, costs at most its own session, and leaves nothing behind.
//!
//! One stack serves a good guest the whole time. For each kind of bad peer a first round warms the allocators and the
//! pools up; then comes the crowd. After it the good guest's session still works, each process holds no descriptor more
//! than before any bad peer came, and its resident memory is back at its baseline.
//!
//! | variable | what |
//! | --- | --- |
//! | `POTEMKIN_BAD_PEERS` | peers of each kind; default 20 |
//! | `POTEMKIN_BAD_PEERS_SEED` | of all that is random; it is printed |
//! | `POTEMKIN_BAD_PEERS_ONLY` | only the kinds whose names contain this, or one of these with commas between |
//! | `POTEMKIN_BAD_PEERS_REPORT` | a JSON file of results, written after each kind |
//! | `POTEMKIN_BAD_PEERS_RESUME` | `1`: kinds that passed in that file with as many peers are left out |

#![allow(clippy::unwrap_used)]

mod control;
mod crowd;
mod first_frames;
mod guests;
mod kind;
mod local;
mod measure;
mod pool;
mod registrations;
mod report;
mod scene;
mod sessions;
mod strangers;
mod tls;
mod wire;

use std::{env, sync::Arc};

use potemkin_e2e::dice;

use crowd::Crowd;
use kind::Kind;
use report::Report;
use scene::Scene;

const DEFAULT_PEERS: u64 = 20;

fn kinds() -> Vec<Kind> {
    [
        strangers::kinds(),
        first_frames::kinds(),
        sessions::kinds(),
        control::kinds(),
        registrations::kinds(),
        guests::kinds(),
        local::kinds(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}: {text:?} is no number")),
    )
}

#[test]
fn crowds_of_bad_peers_are_told_why_and_leave_nothing_behind() {
    let peers = number("POTEMKIN_BAD_PEERS").unwrap_or(DEFAULT_PEERS);
    let seed = number("POTEMKIN_BAD_PEERS_SEED").unwrap_or_else(dice::any_seed);
    let only = env::var("POTEMKIN_BAD_PEERS_ONLY").unwrap_or_default();
    println!("POTEMKIN_BAD_PEERS_SEED={seed}");
    let mut report = Report::from_env();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let scene = Arc::new(runtime.block_on(Scene::new()));
    let mut crowd = Crowd::new(&runtime, scene, seed, peers);

    let mut failures = Vec::new();
    for kind in kinds() {
        let chosen = only.split(',').any(|part| kind.name.contains(part));
        if !chosen || report.has(&kind.name, peers) {
            continue;
        }
        let outcome = crowd.run(&kind);
        println!("{}: {outcome}", kind.name);
        failures.extend(
            outcome
                .failure
                .as_ref()
                .map(|why| format!("{}: {why}", kind.name)),
        );
        report.add(&kind.name, &outcome);
    }

    failures.extend(crowd.back_to_start().err());
    assert!(failures.is_empty(), "seed {seed}\n{}", failures.join("\n"));
}
