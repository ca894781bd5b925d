//! Proof that the checker checks: each fault that can be planted is found, within so many seeds.
#![cfg(feature = "planted")]

use std::{num::NonZeroUsize, thread};

use potemkin_sim::{Options, Until, planted, run_all};

/// Seeds within which each has to be found.
const SEEDS: u64 = 1_000;

#[test]
fn each_planted_fault_is_found() {
    let seeds = std::env::var("POTEMKIN_PLANTED_SEEDS");
    let seeds = seeds.ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut missed = Vec::new();
    for name in planted::names() {
        let options = Options {
            planted: Some(name),
            ..Options::default()
        };
        let summary = run_all(0..seeds, cores, Until::FirstFinding, &options, |_| {});
        match summary.findings.first() {
            Some((seed, finding)) => println!("{name:<30} {:>6}  {finding}", seed + 1),
            None => {
                println!("{name:<30}      -");
                missed.push(name);
            }
        }
    }
    assert!(
        missed.is_empty(),
        "not found within {seeds} seeds: {missed:?}"
    );
}
