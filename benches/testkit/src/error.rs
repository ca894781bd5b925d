//! The one error of the kit: made to be read in a failed test's output.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// What a call of the kit returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a piece of the kit failed. `Debug` prints as `Display` does, so that `unwrap` and a test that returns
/// an error show the log in full.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the path or name it was tried on.
        what: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A child ended while something was expected of it.
    #[error("{who} ended ({status}) before: {what}\n{log}")]
    Exited {
        /// The child's name.
        who: String,
        /// How it ended.
        status: ExitStatus,
        /// What was waited for.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// Nothing came within the bound of a wait.
    #[error("{who}: not within {limit:?}: {what}\n{log}")]
    TimedOut {
        /// Whom it was waited for.
        who: String,
        /// What was waited for.
        what: String,
        /// The bound.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
    /// A tool ran and failed.
    #[error("{command}: {status}\n{stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// A peer (QEMU's monitor, its qtest server, a guest) answered what the protocol does not allow, or with an error.
    #[error("{peer}: {message}")]
    Peer {
        /// Who answered.
        peer: String,
        /// What was asked and what came.
        message: String,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// For `map_err`: names what was tried when `source` came.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The same for a system call made through `rustix`.
    pub(crate) fn sys(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }

    pub(crate) fn peer(peer: &str, message: impl Into<String>) -> Self {
        Self::Peer {
            peer: peer.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
