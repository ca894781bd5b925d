//! `potemkin`, the operator's tool: makes development certificates, shows what a broker and a front agent have, attaches and
//! detaches devices, and probes an attached one as a guest would.
//!
//! Every command prints a table for people, or with `--output json` one JSON document for programs. Exit codes: 0 done, 1
//! failed, 2 wrong arguments or configuration.

mod args;
mod commands;
mod error;
mod output;
mod probe;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use potemkin_service::runtime::{EXIT_OK, exit_of_clap, fail};

use args::{CommandLine, GlobalArgs};
use error::CliError;
use output::Output;

/// Runs the tool on a command line (the program's name first).
pub fn cli_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => return exit_of_clap(&error),
    };
    match run(line) {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(error) => fail(&error, error.exit_code()),
    }
}

fn run(line: CommandLine) -> Result<(), CliError> {
    let GlobalArgs {
        config,
        output,
        check_config,
        log,
    } = line.global;
    let loaded = settings::load(config.as_deref(), &log)?;
    let output = Output::new(output);
    match line.command {
        _ if check_config => settings::check(&loaded, output),
        Some(command) => commands::run(command, &loaded, output),
        None => Err(CliError::usage("no command given: see `potemkin --help`")),
    }
}
