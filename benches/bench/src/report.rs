//! What a measurement found: for programs, and for people.

pub(crate) mod peers;
mod table;

use std::time::Duration;

use serde::Serialize;

use crate::args::Run;
use crate::machine::{Machine, Placement};
use crate::path::{Path, Way, Writes};
use crate::probe::{BURST_WRITES, Burst};
use crate::stats::{Spread, Summary};

/// All figures of one run. Times are in nanoseconds; the member's name says so.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    #[serde(flatten)]
    pub(crate) setup: Setup,
    /// In the order of the table; the first is the plain relay.
    pub(crate) paths: Vec<PathReport>,
}

/// How it was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setup {
    pub(crate) tool: &'static str,
    pub(crate) version: &'static str,
    pub(crate) measurement: &'static str,
    /// Whether the program was built with optimisation; without, figures say little.
    pub(crate) optimised: bool,
    pub(crate) machine: Machine,
    pub(crate) placement: Placement,
    pub(crate) rounds: u32,
    pub(crate) warm_up_rounds: u32,
    pub(crate) reads_per_round: u32,
}

/// One path.
#[derive(Debug, Serialize)]
pub(crate) struct PathReport {
    pub(crate) name: String,
    pub(crate) way: Way,
    /// A register read; of a yardstick, 32 bytes there and back.
    pub(crate) read_ns: Summary,
    /// Its median over the plain relay's median, round by round.
    pub(crate) read_to_relay: Option<Spread>,
    /// Missing: not measured on this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) posted_writes: Option<PostedWrites>,
    /// A config read that the local image answers. Missing: not measured on this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_read_ns: Option<Spread>,
}

/// Posted writes of 4 bytes to a register whose device takes each.
#[derive(Debug, Serialize)]
pub(crate) struct PostedWrites {
    /// Until a write of a burst is issued, each.
    pub(crate) issue_ns: Spread,
    /// Each, issued without a pause until the device has done all.
    pub(crate) sustained_ns: Spread,
    /// Writes of a burst, which one read follows.
    pub(crate) burst_writes: u32,
    /// Until the read behind a burst is answered.
    pub(crate) burst_ns: Spread,
    /// Frames for a burst and its read, in the round that needed most.
    pub(crate) burst_frames_sent_max: u64,
    /// Frames that came back, in the round that had most.
    pub(crate) burst_frames_received_max: u64,
    /// Times that the guest waited for the host, in the round that had most.
    pub(crate) burst_round_trips_max: u64,
}

impl Setup {
    pub(crate) fn new(
        measurement: &'static str,
        args: &Run,
        machine: Machine,
        placement: Placement,
    ) -> Self {
        Self {
            tool: "potemkin-bench",
            version: env!("CARGO_PKG_VERSION"),
            measurement,
            optimised: !cfg!(debug_assertions),
            machine,
            placement,
            rounds: args.rounds,
            warm_up_rounds: args.warm_up,
            reads_per_round: args.reads,
        }
    }
}

impl Report {
    /// The figures of `paths`; the first is what the others are compared with.
    pub(crate) fn new(setup: Setup, paths: &[Path]) -> Self {
        let relay = paths.first();
        let report = |path| relay.map(|relay| PathReport::new(path, relay));
        Self {
            setup,
            paths: paths.iter().filter_map(report).collect(),
        }
    }

    /// One JSON object, over several lines.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// Tables.
    pub(crate) fn text(&self) -> String {
        table::render(self)
    }
}

impl PathReport {
    fn new(path: &Path, relay: &Path) -> Self {
        Self {
            name: path.way.to_string(),
            way: path.way,
            read_ns: path.reads.summary(),
            read_to_relay: path.reads.ratio_to(&relay.reads),
            posted_writes: PostedWrites::new(&path.writes),
            config_read_ns: Spread::of(path.writes.config_read_ns.clone()),
        }
    }
}

impl PostedWrites {
    fn new(writes: &Writes) -> Option<Self> {
        let most = |count: fn(&Burst) -> u64| writes.bursts.iter().map(count).max();
        let answered = writes.bursts.iter().map(|burst| nanos(burst.answered));
        Some(Self {
            issue_ns: Spread::of(writes.issue_ns())?,
            sustained_ns: Spread::of(writes.sustained_ns.clone())?,
            burst_writes: BURST_WRITES,
            burst_ns: Spread::of(answered.collect())?,
            burst_frames_sent_max: most(|burst| burst.frames_sent)?,
            burst_frames_received_max: most(|burst| burst.frames_received)?,
            burst_round_trips_max: most(|burst| burst.round_trips)?,
        })
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}
