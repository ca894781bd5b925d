//! What a run came to.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use potemkin_e2e::load::Totals;
use serde_json::{Value, json};

use crate::fault::Fault;

/// Counts, and times that are reported and judged by nobody.
#[derive(Default)]
pub(crate) struct Tally {
    rounds: u64,
    faults: BTreeMap<Fault, u64>,
    times: BTreeMap<&'static str, Vec<Duration>>,
    sessions: u64,
    resumes: u64,
    /// Of kills of both brokers: those that the session outlived.
    outlived: u64,
    totals: Totals,
}

impl Tally {
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.rounds += 1;
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn time(&mut self, what: &'static str, took: Duration) {
        println!("chaos:   {what}: {} ms", took.as_millis());
        self.times.entry(what).or_default().push(took);
    }

    pub(crate) fn kill_of_both(&mut self, outlived: bool) {
        self.outlived += u64::from(outlived);
    }

    /// A session has ended, or the run.
    pub(crate) fn session(&mut self, totals: Totals, resumes: u64) {
        self.sessions += 1;
        self.resumes += resumes;
        let all = &mut self.totals;
        all.accesses += totals.accesses;
        all.reads += totals.reads;
        all.interrupts += totals.interrupts;
        all.sums += totals.sums;
        all.slowest = all.slowest.max(totals.slowest);
    }

    /// A finding ends the run: what is reported has failed nowhere.
    pub(crate) fn json(&self, seed: u64, begin: Instant) -> Value {
        let faults = self.faults.iter();
        let faults: BTreeMap<String, u64> = faults.map(|(f, n)| (format!("{f:?}"), *n)).collect();
        let times = self.times.iter();
        let times: BTreeMap<&str, Value> = times.map(|(what, all)| (*what, summary(all))).collect();
        json!({
            "seed": seed, "rounds": self.rounds, "seconds": begin.elapsed().as_secs_f64(), "debug": cfg!(debug_assertions),
            "accesses": self.totals.accesses, "reads": self.totals.reads, "interrupts": self.totals.interrupts,
            "dma_sums": self.totals.sums, "slowest_read_ms": milliseconds(self.totals.slowest), "lost": 0, "repeated": 0,
            "reordered": 0, "sessions": self.sessions, "resumes": self.resumes, "kills_of_both_outlived": self.outlived, "faults": faults, "times_ms": times,
        })
    }
}

fn summary(times: &[Duration]) -> Value {
    let mut times = times.to_vec();
    times.sort_unstable();
    let [least, median, most] =
        [0, times.len() / 2, times.len() - 1].map(|n| milliseconds(times[n]));
    json!({ "count": times.len(), "min": least, "median": median, "max": most })
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
