//! What a process holds, from `/proc` (proc(5)).

use std::path::PathBuf;

use crate::{Error, Result};

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Open file descriptors.
    pub fds: usize,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Threads.
    pub threads: u64,
}

/// Reads what the process `pid` holds.
///
/// # Errors
/// When there is no such process, or it belongs to another user.
pub fn usage_of(pid: u32) -> Result<Usage> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let what = || format!("cannot read the usage of process {pid}");
    let fds = std::fs::read_dir(proc.join("fd"))
        .map_err(Error::io(what()))?
        .count();
    let status = std::fs::read_to_string(proc.join("status")).map_err(Error::io(what()))?;
    Ok(Usage {
        fds,
        // A zombie has no VmRSS line: it holds nothing.
        rss_bytes: field(&status, "VmRSS").unwrap_or(0) * 1024,
        threads: field(&status, "Threads").unwrap_or(0),
    })
}

/// The number in a line like `VmRSS:     1234 kB`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|l| l.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
