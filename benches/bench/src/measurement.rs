//! What all measurements have in common: where they run, their folder, and the order of the rounds.

use potemkin_service::{Shutdown, signals};

use crate::args::Run;
use crate::error::BenchError;
use crate::machine::{Machine, Placement, pin_to_one_cpu};
use crate::report::Setup;
use crate::workspace::Workspace;

/// Measures. The calling thread must be the process's only one: with it, all that come are pinned.
pub(crate) fn run<T>(
    name: &'static str,
    args: &Run,
    measure: impl FnOnce(&Workspace, &Shutdown) -> Result<T, BenchError>,
) -> Result<(Setup, T), BenchError> {
    let machine = Machine::look();
    let placement = if args.one_cpu {
        pin_to_one_cpu().map_err(BenchError::io("cannot pin this process to one CPU"))?
    } else {
        Placement::Free
    };
    let setup = Setup::new(name, args, machine, placement);
    let shutdown = signals::install().map_err(BenchError::Signals)?;
    let workspace = Workspace::new()?;
    let measured = measure(&workspace, &shutdown);
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
    Ok((setup, measured?))
}

fn keep(workspace: Workspace) {
    eprintln!("logs are kept in {}", workspace.keep().display());
}

/// Runs all rounds: `round` is told whether its figures count. Each round has every path once, and begins with another one, so
/// that none always comes after the same neighbour.
pub(crate) fn rounds<P>(
    args: &Run,
    shutdown: &Shutdown,
    paths: &mut [P],
    mut round: impl FnMut(&mut P, bool) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    let all = args.warm_up + args.rounds;
    eprintln!(
        "measuring {} paths in {} rounds, after {} to warm up",
        paths.len(),
        args.rounds,
        args.warm_up
    );
    for number in 0..all {
        let counts = number >= args.warm_up;
        let first = usize::try_from(number).unwrap_or_default() % paths.len();
        paths.rotate_left(first);
        for path in &mut *paths {
            if shutdown.is_cancelled() {
                return Err(BenchError::Interrupted);
            }
            round(path, counts)?;
        }
        paths.rotate_right(first);
    }
    Ok(())
}
