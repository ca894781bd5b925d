//! `potemkin-front`; see the library.

fn main() -> std::process::ExitCode {
    potemkin_front::cli_main(std::env::args_os())
}
