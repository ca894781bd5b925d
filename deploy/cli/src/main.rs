//! The operator's tool.

fn main() -> std::process::ExitCode {
    potemkin_cli::cli_main(std::env::args_os())
}
