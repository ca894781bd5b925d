//! Why there are no figures.

use std::io;

use potemkin_front_core::{AttachError, BackgroundError};
use potemkin_service::certs::Role;
use potemkin_service::signals::SignalError;
use potemkin_transport::{TlsError, TransportError};
use potemkin_vfio_user::ClientError;
use tonic::Status;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BenchError {
    /// The operating system refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A process could not be started or ended early; the message has the end of its log.
    #[error(transparent)]
    Process(#[from] potemkin_testkit::Error),
    /// What a process wrote into its ready-file is not what was awaited.
    #[error("{who}: its ready-file says {content:?}")]
    Ready {
        /// The process.
        who: String,
        /// What it wrote.
        content: String,
        /// Why that cannot be read.
        source: serde_json::Error,
    },
    /// The certificates of a role cannot be used.
    #[error("certificate for role {role}")]
    Tls {
        /// The role.
        role: Role,
        /// Why.
        source: TlsError,
    },
    /// The broker's control plane cannot be reached.
    #[error("cannot reach the broker")]
    Control(#[from] TransportError),
    /// The broker's control plane refused.
    #[error("the broker, when asked for the devices of the pool: {}", .0.message())]
    Watch(Box<Status>),
    /// A device was not offered in time.
    #[error("the host did not offer {missing} within {limit_s} s")]
    NotOffered {
        /// Their ids.
        missing: String,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// A device could not be attached.
    #[error("{path}: cannot attach")]
    Attach {
        /// For which path.
        path: String,
        /// Why.
        source: AttachError,
    },
    /// A device could not be attached on a thread of its own.
    #[error("{path}: cannot attach")]
    Background {
        /// For which path.
        path: String,
        /// Why.
        source: BackgroundError,
    },
    /// The session was not accepted.
    #[error("{path}: session not accepted: {reason}")]
    NotAccepted {
        /// For which path.
        path: String,
        /// Why.
        reason: String,
    },
    /// A vfio-user socket does not do what it should.
    #[error("{path}")]
    Vfio {
        /// Which path.
        path: String,
        /// Why.
        source: ClientError,
    },
    /// The client of the crate `vfio_user` gave up.
    #[error("{path}")]
    VfioCrate {
        /// Which path.
        path: String,
        /// Why.
        source: vfio_user::Error,
    },
    /// A peer's client or server hangs: it has no limit of its own.
    #[error("{path}: no end of a round within {limit_s} s")]
    NoAnswer {
        /// Which path.
        path: String,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// A peer's server does not come up.
    #[error("{who}: {what}")]
    Peer {
        /// Which.
        who: &'static str,
        /// What it did.
        what: String,
    },
    /// A read gave something else than the device's register: most often all-ones, because its session is lost.
    #[error("{path}: a read of {register} gave {found:#010x} instead of {expected:#010x}")]
    Value {
        /// Which path.
        path: String,
        /// The register's name.
        register: &'static str,
        /// What came.
        found: u32,
        /// What should have come.
        expected: u32,
    },
    /// The thread that drives a session or a client has ended.
    #[error("{path}: its thread ended early")]
    Ended {
        /// Which path.
        path: String,
    },
    /// Signals could not be handled.
    #[error(transparent)]
    Signals(#[from] SignalError),
    /// The user has seen enough.
    #[error("stopped by a signal")]
    Interrupted,
}

impl BenchError {
    /// Whether the message has the log of the process at fault.
    pub(crate) fn shows_log(&self) -> bool {
        matches!(self, Self::Process(_))
    }

    /// For `map_err`: names what was tried when an I/O error came.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }
}
