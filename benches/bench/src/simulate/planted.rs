//! Does the oracle find what is planted?

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use potemkin_service::BoxError;
use potemkin_service::runtime::{EXIT_FAILURE, EXIT_OK, EXIT_USAGE, fail};
use potemkin_sim::{Options, Until, planted};

use crate::args::Simulate;

/// The planted bug of this name.
pub(super) fn find(name: &str) -> Result<&'static str, BoxError> {
    let known = planted::names();
    if let Some(found) = known.iter().find(|known| **known == name) {
        return Ok(found);
    }
    if known.is_empty() {
        return Err(
            "--planted: this program has no planted bugs: build it with --features planted".into(),
        );
    }
    Err(format!("--planted: no bug {name:?}; there are {}", known.join(", ")).into())
}

/// A table: bug, seeds until it was caught, the clause that it broke.
pub(super) fn run_all(args: &Simulate, jobs: NonZeroUsize) -> ExitCode {
    let names = planted::names();
    if names.is_empty() {
        return match find("all") {
            Ok(_) => ExitCode::from(EXIT_USAGE),
            Err(error) => fail(&*error, EXIT_USAGE),
        };
    }
    let mut missed = 0;
    for name in names {
        let options = Options {
            verbose: false,
            planted: Some(name),
        };
        let seeds = args.from..args.from.saturating_add(args.seeds);
        let summary = potemkin_sim::run_all(seeds, jobs, Until::FirstFinding, &options, |_| {});
        let line = match summary.findings.first() {
            Some((seed, finding)) => format!(
                "{name:<32} {:>10}  {:?}",
                seed - args.from + 1,
                finding.clause
            ),
            None => {
                missed += 1;
                format!("{name:<32} {:>10}  not caught", summary.seeds)
            }
        };
        if writeln!(io::stdout(), "{line}").is_err() {
            break;
        }
    }
    ExitCode::from(if missed == 0 { EXIT_OK } else { EXIT_FAILURE })
}
