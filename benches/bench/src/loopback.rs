//! `potemkin-bench loopback`: all processes on this machine, all paths in turn.

mod deployment;
mod library;
mod parties;
mod vcpu;
mod vfio;

use crate::args::Loopback;
use crate::error::BenchError;
use crate::measurement;
use crate::report::Report;

use parties::Parties;

/// Measures. The calling thread must be the process's only one: with it, all that come are pinned.
pub(crate) fn run(args: &Loopback) -> Result<Report, BenchError> {
    let (setup, paths) = measurement::run("loopback", &args.run, |workspace, shutdown| {
        let mut parties = Parties::start(args, workspace)?;
        measurement::rounds(&args.run, shutdown, parties.paths_mut(), |path, counts| {
            path.run_round(args.run.reads, counts)
        })?;
        Ok(parties.into_paths())
    })?;
    Ok(Report::new(setup, &paths))
}
