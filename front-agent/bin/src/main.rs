//! `potemkin-front`; see the library.

fn main() -> std::process::ExitCode {
    potemkin_front_agent::cli_main(std::env::args_os())
}
