//! What the seeds came to: for programs, and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use potemkin_sim::{Fault, Summary};
use serde::Serialize;

use crate::args::Simulate;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    tool: &'static str,
    version: &'static str,
    measurement: &'static str,
    /// Whether the program was built with optimisation.
    optimised: bool,
    first_seed: u64,
    seeds: u64,
    jobs: usize,
    elapsed_s: f64,
    /// Issued by guests, and followed by the oracle.
    accesses: u64,
    /// Of these, done by devices.
    applied: u64,
    accesses_per_s: u64,
    events: u64,
    resumes: u64,
    containments: u64,
    faults: BTreeMap<&'static str, u64>,
    /// Of all traces: the same seeds give the same.
    trace_hash: String,
    findings: Vec<Found>,
}

#[derive(Debug, Serialize)]
struct Found {
    seed: u64,
    clause: String,
    detail: String,
    repeat: String,
}

impl Report {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A rate is positive and far below 2^53.
    pub(super) fn new(
        args: &Simulate,
        summary: &Summary,
        jobs: NonZeroUsize,
        elapsed: Duration,
    ) -> Self {
        let elapsed_s = elapsed.as_secs_f64();
        let planted = args.planted.as_ref();
        let planted = planted.map_or_else(String::new, |name| format!(" --planted {name}"));
        let findings = summary.findings.iter().map(|(seed, finding)| Found {
            seed: *seed,
            clause: finding.clause.name(),
            detail: finding.detail.clone(),
            repeat: format!("potemkin-bench simulate --seed {seed} --trace{planted}"),
        });
        Self {
            tool: "potemkin-bench",
            version: env!("CARGO_PKG_VERSION"),
            measurement: "simulate",
            optimised: !cfg!(debug_assertions),
            first_seed: args.from,
            seeds: summary.seeds,
            jobs: jobs.get(),
            elapsed_s,
            accesses: summary.accesses,
            applied: summary.applied,
            accesses_per_s: (summary.accesses as f64 / elapsed_s) as u64,
            events: summary.events,
            resumes: summary.resumes,
            containments: summary.containments,
            faults: Fault::ALL
                .iter()
                .map(|fault| (fault.name(), summary.faults.of(*fault)))
                .collect(),
            trace_hash: format!("{:016x}", summary.trace_hash),
            findings: findings.collect(),
        }
    }

    /// One JSON object, over several lines.
    pub(super) fn json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    // Writing to a String cannot fail.
    fn write(&self, text: &mut String) {
        let rows = [
            ("seeds", self.seeds),
            ("accesses checked", self.accesses),
            ("accesses applied", self.applied),
            ("accesses per second", self.accesses_per_s),
            ("sessions resumed", self.resumes),
            ("sessions contained", self.containments),
        ];
        for (name, count) in rows {
            let _ = writeln!(text, "{name:<22} {count:>14}");
        }
        let _ = writeln!(text, "{:<22} {:>14.1}\n\nfaults", "seconds", self.elapsed_s);
        for fault in Fault::ALL {
            let count = self.faults.get(fault.name()).copied().unwrap_or_default();
            let _ = writeln!(text, "  {:<20} {count:>14}", fault.name());
        }
        let _ = writeln!(text, "\ntraces {}", self.trace_hash);
        if self.findings.is_empty() {
            let _ = writeln!(text, "nothing found");
        }
        for found in &self.findings {
            let Found {
                seed,
                clause,
                detail,
                repeat,
            } = found;
            let _ = writeln!(text, "\nseed {seed}: {clause}: {detail}\n  {repeat}");
        }
    }
}
