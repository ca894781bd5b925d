//! `potemkin-bench loopback`: all processes on this machine, all paths in turn.

mod deployment;
mod library;
mod parties;
mod vcpu;
mod vfio;

use potemkin_service::{Shutdown, signals};

use crate::args::Loopback;
use crate::error::BenchError;
use crate::machine::{Machine, Placement, pin_to_one_cpu};
use crate::path::Path;
use crate::report::{Report, Setup};
use crate::workspace::Workspace;

use parties::Parties;

/// Measures. The calling thread must be the process's only one: with it, all that come are pinned.
pub(crate) fn run(args: &Loopback) -> Result<Report, BenchError> {
    let machine = Machine::look();
    let placement = if args.one_cpu {
        pin_to_one_cpu().map_err(BenchError::io("cannot pin this process to one CPU"))?
    } else {
        Placement::Free
    };
    let setup = Setup::new(args, machine, placement);
    let shutdown = signals::install().map_err(BenchError::Signals)?;
    let workspace = Workspace::new()?;
    let measured = measure(args, &workspace, &shutdown);
    match &measured {
        Ok(_) | Err(BenchError::Interrupted) if args.keep_logs => keep(workspace),
        Ok(_) | Err(BenchError::Interrupted) => {}
        Err(error) => {
            if !error.shows_log() {
                eprint!("{}", workspace.log_tails());
            }
            keep(workspace);
        }
    }
    measured.map(|paths| Report::new(setup, &paths))
}

fn keep(workspace: Workspace) {
    eprintln!("logs are kept in {}", workspace.keep().display());
}

/// Starts everything, runs all rounds and ends everything. Each round has every path once, and begins with another one, so that
/// none always comes after the same neighbour.
fn measure(
    args: &Loopback,
    workspace: &Workspace,
    shutdown: &Shutdown,
) -> Result<Vec<Path>, BenchError> {
    let mut parties = Parties::start(args, workspace)?;
    let paths = parties.paths_mut();
    eprintln!(
        "measuring {} paths in {} rounds",
        paths.len(),
        args.warm_up + args.rounds
    );
    for round in 0..args.warm_up + args.rounds {
        let counts = round >= args.warm_up;
        let first = usize::try_from(round).unwrap_or_default() % paths.len();
        paths.rotate_left(first);
        for path in &mut *paths {
            if shutdown.is_cancelled() {
                return Err(BenchError::Interrupted);
            }
            path.run_round(args.reads, counts)?;
        }
        paths.rotate_right(first);
    }
    Ok(parties.into_paths())
}
