//! Chaos: a guest drives `order` without pause, through two brokers in network namespaces of their own, while processes are killed, stopped and
//! told to stop, and links go down, lose or slow down what passes. No access may be lost, repeated or out of order, and none may fail but
//! where the fault lasts beyond the deadline: there the guest must see all-ones, and nothing late.
//!
//! `POTEMKIN_CHAOS_ROUNDS`: rounds; by default one of each fault. `POTEMKIN_CHAOS_SEED`: repeats a run. `POTEMKIN_CHAOS_DEADLINE_MS`: the agent's
//! deadline. `POTEMKIN_CHAOS_REPORT`: a file for the results, JSON. `POTEMKIN_CHAOS_KEEP`: 1 keeps logs of a run that fails.

#![allow(clippy::unwrap_used)]

mod fault;
mod scene;
mod tally;

use std::{
    env,
    fmt::Display,
    fs,
    str::FromStr,
    time::{Duration, Instant},
};

use potemkin_e2e::dice::{Dice, any_seed};
use serde_json::Value;

use fault::Fault;
use scene::Scene;
use tally::Tally;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const DEFAULT_DEADLINE_MS: u64 = 1_000;

#[test]
fn accesses_happen_once_and_in_order_or_are_contained() {
    let seed = number("POTEMKIN_CHAOS_SEED").unwrap_or_else(any_seed);
    let rounds = number("POTEMKIN_CHAOS_ROUNDS").unwrap_or(Fault::ROUNDS);
    let deadline = number("POTEMKIN_CHAOS_DEADLINE_MS").unwrap_or(DEFAULT_DEADLINE_MS);
    println!("chaos: POTEMKIN_CHAOS_SEED={seed}, {rounds} rounds, deadline {deadline} ms");
    let (begin, deadline) = (Instant::now(), Duration::from_millis(deadline));
    let mut tally = Tally::default();

    for scene_number in 0..rounds.div_ceil(Fault::ROUNDS) {
        let first = scene_number * Fault::ROUNDS;
        // A short run, too, comes to each transport in time.
        let mut scene = Scene::new(seed.wrapping_add(scene_number), deadline, tally);
        for round in first..rounds.min(first + Fault::ROUNDS) {
            let fault = Fault::of_round(seed, round);
            println!("chaos: round {round}: {fault:?}");
            scene.play(fault, &mut Dice::new(seed, "round", round));
        }
        tally = scene.end();
        report(&tally.json(seed, begin));
    }

    println!("{}", tally.json(seed, begin));
}

fn report(json: &Value) {
    if let Some(path) = env::var_os("POTEMKIN_CHAOS_REPORT") {
        fs::write(path, format!("{json}\n")).unwrap();
    }
}

fn number<T: FromStr<Err: Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}
