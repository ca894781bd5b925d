//! The device host's binary.

fn main() -> std::process::ExitCode {
    potemkin_host::cli_main(std::env::args_os())
}
