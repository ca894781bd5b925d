//! Many seeds, and that they hit what they are meant to hit.

use std::{num::NonZeroUsize, thread};

use potemkin_sim::{Fault, Options, Summary, Until, run, run_all};

/// Seeds of this test. `potemkin-bench simulate` runs any others.
const SEEDS: u64 = 3_000;

/// Fewer than this of any kind of fault: the seeds do not test what they should.
const EACH_FAULT_MIN: u64 = 50;
const RESUMES_MIN: u64 = 1_000;
const CONTAINMENTS_MIN: u64 = 500;
const ACCESSES_MIN: u64 = 2_000_000;

fn summary() -> Summary {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    run_all(0..SEEDS, cores, Until::All, &Options::default(), |_| {})
}

#[test]
fn no_clause_is_broken_and_every_kind_of_fault_occurs() {
    let summary = summary();

    let found: Vec<_> = summary
        .findings
        .iter()
        .map(|(seed, finding)| format!("potemkin-bench simulate --seed {seed} --trace: {finding}"))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(summary.seeds, SEEDS);
    for fault in Fault::ALL {
        let count = summary.faults.of(fault);
        assert!(count >= EACH_FAULT_MIN, "{}: only {count}", fault.name());
    }
    assert!(
        summary.resumes >= RESUMES_MIN,
        "{} resumes",
        summary.resumes
    );
    let containments = summary.containments;
    assert!(
        containments >= CONTAINMENTS_MIN,
        "{containments} containments"
    );
    assert!(
        summary.accesses >= ACCESSES_MIN,
        "{} accesses",
        summary.accesses
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 38, 1846, 24082] {
        let (first, second) = (
            run(seed, &Options::default()),
            run(seed, &Options::default()),
        );

        assert_eq!(first.trace_hash, second.trace_hash);
        assert_eq!(first.events, second.events);
        assert_eq!(first.accesses, second.accesses);
    }
}

#[test]
fn a_trace_changes_nothing() {
    let verbose = Options {
        verbose: true,
        ..Options::default()
    };

    let (silent, told) = (run(7, &Options::default()), run(7, &verbose));

    assert_eq!(silent.trace_hash, told.trace_hash);
    assert!(silent.trace.is_none());
    assert!(told.trace.is_some_and(|trace| trace.contains("starts")));
}
