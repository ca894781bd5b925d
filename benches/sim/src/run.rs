//! One seed, from beginning to end.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    fault::Faults,
    oracle::{Clause, Finding},
    planted,
    world::World,
};

/// How a seed is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep the trace as text.
    pub verbose: bool,
    /// A bug that is planted in the session core, by its name in [`planted::names`]; feature `planted` only.
    pub planted: Option<&'static str>,
}

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The same for the same seed, on every machine.
    pub trace_hash: u64,
    /// Accesses that guests issued, and the oracle followed to their end.
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
    /// The trace, if it was asked for.
    pub trace: Option<String>,
    /// The first clause that did not hold.
    pub finding: Option<Finding>,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    let _planted = planted::Planted::set(options.planted);
    let mut world = World::new(seed, options.verbose);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    if panicked {
        world
            .ctx
            .oracle
            .fail(Clause::NoPanic, || "see standard error".to_owned());
    }
    let ctx = &mut world.ctx;
    let finding = ctx.oracle.take_finding();
    if let Some(finding) = &finding {
        let now = ctx.now;
        ctx.trace.line(now, || format!("FOUND {finding}"));
    }
    Outcome {
        trace_hash: ctx.trace.hash(),
        accesses: ctx.oracle.issued,
        applied: ctx.oracle.applied,
        events: world.events,
        faults: ctx.net.faults,
        resumes: ctx.resumes,
        containments: ctx.containments,
        trace: ctx.trace.take_text(),
        finding,
    }
}
