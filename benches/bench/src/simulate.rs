//! `potemkin-bench simulate`: seeds of the simulation, on all cores.

mod planted;
mod report;

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use potemkin_service::BoxError;
use potemkin_service::runtime::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, fail};
use potemkin_sim::{Options, Summary, Until};

use crate::args::Simulate;
use report::Report;

/// Between two lines of progress, for a person and for a log.
const PROGRESS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Exit codes: 0 nothing found, 1 found something or failed, 2 wrong arguments.
pub(crate) fn run(args: &Simulate) -> ExitCode {
    let planted = match args.planted.as_deref() {
        None => None,
        Some("all") => return planted::run_all(args, jobs(args)),
        Some(name) => match planted::find(name) {
            Ok(name) => Some(name),
            Err(error) => return fail(&*error, EXIT_USAGE),
        },
    };
    let options = Options {
        verbose: args.trace,
        planted,
    };
    let result = match args.seed {
        Some(seed) => one(seed, &options),
        None => many(args, &options),
    };
    match result {
        Ok(true) => ExitCode::from(EXIT_OK),
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        Err(error) => fail(&*error, EXIT_FAILURE),
    }
}

fn jobs(args: &Simulate) -> NonZeroUsize {
    let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    args.jobs.unwrap_or_else(cores)
}

/// True: nothing was found.
fn one(seed: u64, options: &Options) -> Result<bool, BoxError> {
    let outcome = potemkin_sim::run(seed, options);
    let mut out = io::stdout().lock();
    if let Some(trace) = &outcome.trace {
        write!(out, "{trace}")?;
    }
    writeln!(
        out,
        "seed {seed}: trace {:016x}, {} accesses, {} faults, {} resumes, {} containments",
        outcome.trace_hash,
        outcome.accesses,
        outcome.faults.total(),
        outcome.resumes,
        outcome.containments
    )?;
    if let Some(finding) = &outcome.finding {
        writeln!(out, "{finding}")?;
    }
    Ok(outcome.finding.is_none())
}

fn many(args: &Simulate, options: &Options) -> Result<bool, BoxError> {
    let (started, progress) = (Instant::now(), Progress::new(args.seeds));
    let seeds = args.from..args.from.saturating_add(args.seeds);
    let summary = potemkin_sim::run_all(seeds, jobs(args), Until::All, options, |so_far| {
        progress.show(so_far);
    });
    progress.clear();
    let report = Report::new(args, &summary, jobs(args), started.elapsed());
    writeln!(io::stdout(), "{}", report.text().trim_end())?;
    if let Some(file) = &args.json {
        std::fs::write(file, report.json()?)?;
    }
    Ok(summary.findings.is_empty())
}

/// How far it is, on standard error.
struct Progress {
    seeds: u64,
    started: Instant,
    last: Mutex<Instant>,
    terminal: bool,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        let now = Instant::now();
        Self {
            seeds,
            started: now,
            last: Mutex::new(now),
            terminal: io::stderr().is_terminal(),
        }
    }

    fn show(&self, so_far: &Summary) {
        // Whoever comes while another one writes has nothing new.
        let Ok(mut last) = self.last.try_lock() else {
            return;
        };
        let pause = if self.terminal {
            PROGRESS.0
        } else {
            PROGRESS.1
        };
        if last.elapsed() < pause {
            return;
        }
        *last = Instant::now();
        let (start, end) = if self.terminal {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        let elapsed = self.started.elapsed().as_secs_f64();
        let left = elapsed / so_far.seeds as f64 * self.seeds.saturating_sub(so_far.seeds) as f64;
        let mut err = io::stderr().lock();
        // Progress that cannot be shown is no reason to stop.
        let _ = write!(
            err,
            "{start}{} of {} seeds, {} accesses, {} findings, {left:.0} s left{end}",
            so_far.seeds,
            self.seeds,
            so_far.accesses,
            so_far.findings.len()
        );
        let _ = err.flush();
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
