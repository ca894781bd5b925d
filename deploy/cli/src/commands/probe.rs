//! `potemkin probe`.

use potemkin_service::config::Loaded;

use crate::args::ProbeArgs;
use crate::error::CliError;
use crate::output::Output;
use crate::probe::{Options, ProbeError, probe, report_text};
use crate::settings::{CliSettings, find_agent_path};

pub(super) fn run(
    args: ProbeArgs,
    loaded: &Loaded<CliSettings>,
    output: Output,
) -> Result<(), CliError> {
    let options = Options {
        agent: find_agent_path(&args.agent, loaded),
        agent_timeout: args.agent.timeout,
        name: args.name,
        samples: args.samples,
        limit: args.limit,
        burst: args.burst,
        reads: args.read,
        socket: args.socket,
    };
    let report = probe(&options)?;
    output.print(&report, report_text)?;
    match report.checks.failed().count() {
        0 => Ok(()),
        failed => Err(ProbeError::Failed {
            failed,
            total: report.checks.all().len(),
        }
        .into()),
    }
}
