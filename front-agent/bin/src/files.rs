//! How many files the agent may open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as this process may: a VMM passes one descriptor for each interrupt vector, up to 2,048 a device, and many systems
/// begin with 1,024. A client whose descriptors cannot be taken is disconnected.
pub(crate) fn allow_many() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, files = limit.current, "the limit of open files cannot be raised");
    }
}
