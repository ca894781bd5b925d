//! `potemkin-bench`; see the library.

fn main() -> std::process::ExitCode {
    potemkin_bench::cli_main(std::env::args_os())
}
