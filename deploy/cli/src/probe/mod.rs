//! A guest without a VM: enumerates the function behind a vfio-user socket, drives it and measures it.

mod bars;
mod capabilities;
mod checks;
mod counters;
mod edu;
mod enumerate;
mod function;
mod measure;
mod read_spec;
mod report;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use potemkin_service::admin::AdminError;
use potemkin_vfio_user::{Client, ClientError};

pub(crate) use read_spec::ReadSpec;
pub(crate) use report::{Report, report_text};

/// What to probe, and how hard.
#[derive(Debug)]
pub(crate) struct Options {
    /// The vfio-user socket.
    pub(crate) socket: PathBuf,
    /// The front agent's admin socket, for counters.
    pub(crate) agent: Option<PathBuf>,
    pub(crate) agent_timeout: Duration,
    /// The device's name at the agent.
    pub(crate) name: Option<String>,
    /// Accesses of each kind.
    pub(crate) samples: u32,
    /// The longest time for one kind.
    pub(crate) limit: Duration,
    /// Posted writes in a burst.
    pub(crate) burst: u32,
    /// Registers to read of a device that is not edu.
    pub(crate) reads: Vec<ReadSpec>,
}

/// Why a probe came to no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("cannot connect to the vfio-user socket {}: is the device attached (see `potemkin status`), and does no VM use it?", path.display())]
    Connect { path: PathBuf, source: ClientError },
    #[error("an access to the function failed")]
    Access(#[from] ClientError),
    #[error(
        "the function does not answer: its vendor id is absent. Is its session lost (see `potemkin status`)?"
    )]
    Absent,
    #[error(
        "the device answers all-ones: its session is lost, or it does not decode its BAR (see `potemkin status`)"
    )]
    AllOnes,
    #[error("the device {name} is lost: {reason}. Detach it and attach it again")]
    Lost { name: String, reason: String },
    #[error("the device {name} is not attached yet: {reason}")]
    Waiting { name: String, reason: String },
    #[error("--read {spec}: {problem}")]
    Read { spec: ReadSpec, problem: String },
    #[error("edu did not compute {n}! within {limit:?}")]
    Stuck { n: u32, limit: Duration },
    #[error(transparent)]
    Agent(#[from] AdminError),
    #[error("the front agent at {} has no device {what}: see `potemkin status`, and pass --name", agent.display())]
    NotAttached { agent: PathBuf, what: String },
    #[error("the device {name} was detached while it was probed")]
    Detached { name: String },
    #[error("{failed} of {total} checks failed, see above")]
    Failed { failed: usize, total: usize },
}

/// Probes the function behind a socket.
pub(crate) fn probe(options: &Options) -> Result<Report, ProbeError> {
    let counters = counters::CounterSource::find(options)?;
    let mut client = Client::connect(&options.socket).map_err(|source| ProbeError::Connect {
        path: options.socket.clone(),
        source,
    })?;
    run::run(&mut client, counters, options)
}

#[cfg(test)]
mod tests;
