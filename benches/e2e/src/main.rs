//! Every binary of Potemkin in one, so that a test needs only its own package's binary: `potemkin-role broker --config ...`.

use std::{ffi::OsString, process::ExitCode};

type Main = fn(Vec<OsString>) -> ExitCode;

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let role = if args.len() > 1 {
        args.remove(1)
    } else {
        OsString::new()
    };
    let main: Main = match role.to_str() {
        Some("broker") => |args| potemkin_broker::cli_main(args),
        Some("host") => |args| potemkin_host::cli_main(args),
        Some("front") => |args| potemkin_front_agent::cli_main(args),
        Some("cli") => |args| potemkin_cli::cli_main(args),
        _ => {
            eprintln!("usage: potemkin-role broker|host|front|cli ARGUMENT...");
            return ExitCode::from(2);
        }
    };
    main(args)
}
