//! Many seeds, on as many threads as wanted. The simulation itself has none: a seed is one thread's.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{Faults, Finding, Options, Outcome, run};

/// Seeds that a thread takes at once.
const PORTION: u64 = 64;
/// Findings that are kept.
const FINDINGS_MAX: usize = 16;

/// What came of many seeds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many were run.
    pub seeds: u64,
    /// Accesses that guests issued.
    pub accesses: u64,
    /// Of these, how many devices did.
    pub applied: u64,
    /// Events of the simulation.
    pub events: u64,
    /// Faults that hit, by kind.
    pub faults: Faults,
    /// Sessions that were taken up again on another path.
    pub resumes: u64,
    /// Sessions that were contained.
    pub containments: u64,
    /// The seeds that found something, lowest first; not all, if they are many.
    pub findings: Vec<(u64, Finding)>,
    /// The hashes of all traces, summed up.
    pub trace_hash: u64,
}

impl Summary {
    fn take(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.accesses += outcome.accesses;
        self.applied += outcome.applied;
        self.events += outcome.events;
        self.faults.add(&outcome.faults);
        self.resumes += outcome.resumes;
        self.containments += outcome.containments;
        self.trace_hash = self.trace_hash.wrapping_add(outcome.trace_hash);
        if let Some(finding) = outcome.finding {
            self.findings.push((seed, finding));
        }
    }

    /// Adds those of others.
    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.accesses += other.accesses;
        self.applied += other.applied;
        self.events += other.events;
        self.faults.add(&other.faults);
        self.resumes += other.resumes;
        self.containments += other.containments;
        self.trace_hash = self.trace_hash.wrapping_add(other.trace_hash);
        self.findings.extend(other.findings);
        self.findings.sort_by_key(|(seed, _)| *seed);
        self.findings.truncate(FINDINGS_MAX);
    }
}

/// When a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All seeds have run.
    All,
    /// One has found something.
    FirstFinding,
}

/// Runs seeds on `jobs` threads. `progress` is called now and then, from any of them, with how many are done.
pub fn run_all(
    seeds: Range<u64>,
    jobs: NonZeroUsize,
    until: Until,
    options: &Options,
    progress: impl Fn(&Summary) + Sync,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let enough = AtomicBool::new(false);
    let total = Mutex::new(Summary::default());
    let work = || {
        loop {
            let first = next.fetch_add(PORTION, Ordering::Relaxed);
            if first >= seeds.end || enough.load(Ordering::Relaxed) {
                return;
            }
            let mut portion = Summary::default();
            for seed in first..seeds.end.min(first + PORTION) {
                portion.take(seed, run(seed, options));
                if until == Until::FirstFinding && !portion.findings.is_empty() {
                    enough.store(true, Ordering::Relaxed);
                    break;
                }
            }
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            total.add(portion);
            progress(&total);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.get() {
            scope.spawn(work);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}
