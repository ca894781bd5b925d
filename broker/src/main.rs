//! The broker's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    potemkin_broker::cli_main(std::env::args_os())
}
