//! `potemkin-bench simulate`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;

/// Runs agents, brokers and a device host in one thread for each seed, on a simulated network with faults: no socket, no clock. An oracle
/// follows every access: applied once, in order, with its contents, its true result shown; or contained.
///
/// Exits with 1 if a seed breaks a clause, and prints the command that repeats it.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
        # Ten thousand seeds on all cores\n  \
        potemkin-bench simulate --seeds 10000\n\n  \
        # Others than last time, with the figures for a program\n  \
        potemkin-bench simulate --seeds 1000000 --from 5000000 --json simulate.json\n\n  \
        # What happens in one seed, line by line\n  \
        potemkin-bench simulate --seed 4711 --trace\n\n  \
        # Whether the oracle finds the planted bugs (built with --features planted)\n  \
        potemkin-bench simulate --planted all")]
pub(crate) struct Simulate {
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub(crate) from: u64,
    /// This seed only
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    pub(crate) seed: Option<u64>,
    /// Print what happens, line by line
    #[arg(long, requires = "seed")]
    pub(crate) trace: bool,
    /// Threads; default: one for each core
    #[arg(long, short, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Plant this bug in the session core; `all`: each in turn, until it is caught
    #[arg(long, value_name = "BUG")]
    pub(crate) planted: Option<String>,
    /// Write the figures to this file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
