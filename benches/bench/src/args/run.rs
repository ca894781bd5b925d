//! What the command lines of all measurements have in common.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};

use crate::settings::RunSection;

/// Most rounds of one run.
pub(crate) const ROUNDS_MAX: i64 = 10_000;
/// Most reads of one round: a round must end while the idle sessions of the other paths are still alive.
pub(crate) const READS_MAX: i64 = 1_000_000;

/// How long, where, and how it is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Pin all processes to one CPU, the first that this one may use: repeats within about 10%, where a free placement swings
    /// with each wake-up on another CPU
    #[arg(long)]
    pub(crate) one_cpu: bool,
    /// Rounds that count
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    pub(crate) rounds: u32,
    /// Rounds before those, which do not count
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=ROUNDS_MAX))]
    pub(crate) warm_up: u32,
    /// Reads of each path in a round
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=READS_MAX))]
    pub(crate) reads: u32,
    /// How results are printed
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Keep the processes' logs and say where they are
    #[arg(long)]
    pub(crate) keep_logs: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Run {
    /// Takes from the configuration what the command line (`given`: the subcommand's matches) left out.
    pub(crate) fn complete(&mut self, section: &RunSection, given: &ArgMatches) {
        let left_out = |id| given.value_source(id) != Some(ValueSource::CommandLine);
        if left_out("one_cpu") {
            self.one_cpu = section.one_cpu;
        }
        for (id, argument, configured) in [
            ("rounds", &mut self.rounds, section.rounds),
            ("warm_up", &mut self.warm_up, section.warm_up),
            ("reads", &mut self.reads, section.reads),
        ] {
            if left_out(id) {
                *argument = configured;
            }
        }
    }
}
