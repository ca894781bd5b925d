//! Measures Potemkin against yardsticks that run beside it.
//!
//! Wall times drift from machine to machine and from minute to minute, so every figure that counts is a ratio within one run:
//! each round runs every path once, and a path's median is divided by that of the plain relay (or, among peers, of ours) in the same round.
//!
//! All parties are processes of their own, as in production. They are this very program, started again in a hidden role
//! (`potemkin-bench role broker --config FILE`), so that one file is all a measurement needs.

mod accesses;
mod args;
mod error;
mod loopback;
mod machine;
mod measurement;
mod path;
mod peers;
mod probe;
mod report;
mod role;
mod settings;
mod simulate;
mod stats;
mod workspace;
mod yardstick;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use potemkin_service::config::{self, ConfigError};
use potemkin_service::runtime::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, exit_of_clap, fail};
use potemkin_service::{BoxError, telemetry};

use args::{Command, CommandLine, Format, Loopback, Peers};
use settings::BenchSettings;

/// Runs `potemkin-bench` with these arguments, the program's name first. Call it from a process's only thread: it may be pinned
/// to a CPU, and what it starts with it.
///
/// Exit codes: 0 measured, 1 failed or stopped, 2 wrong arguments.
pub fn cli_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (line, matches) = match CommandLine::parse_args(args) {
        Ok(parsed) => parsed,
        Err(error) => return exit_of_clap(&error),
    };
    if let Some(Command::Role(role)) = line.command {
        return role::run(role);
    }
    if let Some(Command::Simulate(args)) = line.command {
        return simulate::run(&args);
    }
    let settings = match load_settings(line.config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    let result = match (line.command, matches.subcommand()) {
        (Some(Command::Loopback(args)), Some((_, given))) if !line.check_config => {
            let mut args = args.deduplicated();
            args.run.complete(&settings.loopback, given);
            run_loopback(&args)
        }
        (Some(Command::Peers(mut args)), Some((_, given))) if !line.check_config => {
            args.run.complete(&settings.peers, given);
            run_peers(&args)
        }
        _ => print_settings(&settings),
    };
    match result {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => fail(&*error, EXIT_FAILURE),
    }
}

fn load_settings(file: Option<&Path>) -> Result<BenchSettings, ConfigError> {
    let loaded = config::load::<BenchSettings>("BENCH", file)?;
    loaded.check(|settings, _| {
        settings.check()?;
        telemetry::init(&settings.log.0)
    })?;
    Ok(loaded.settings)
}

fn print_settings(settings: &BenchSettings) -> Result<(), BoxError> {
    let text = toml::to_string_pretty(settings)?;
    writeln!(io::stdout(), "configuration OK\n\n{}", text.trim_end())?;
    Ok(())
}

fn run_loopback(args: &Loopback) -> Result<(), BoxError> {
    let report = loopback::run(args)?;
    print(match args.run.output {
        Format::Table => report.text(),
        Format::Json => report.json()?,
    })
}

fn run_peers(args: &Peers) -> Result<(), BoxError> {
    let report = peers::run(args)?;
    print(match args.run.output {
        Format::Table => report.text(),
        Format::Json => report.json()?,
    })
}

fn print(report: String) -> Result<(), BoxError> {
    match writeln!(io::stdout(), "{}", report.trim_end()) {
        // Whoever read has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
