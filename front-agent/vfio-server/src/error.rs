//! Why a server does not come up, and why a client is sent away.

use std::path::PathBuf;

use potemkin_vfio_user::message::RegionAccess;
use potemkin_vfio_user::{DecodeError, Errno, HeaderError};
use thiserror::Error;

/// Why [`Server::bind`](crate::Server::bind) failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The path does not fit into a socket address.
    #[error("{path}: a socket's path has at most {most} bytes, this has {len}", path = path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
        /// The most that fits.
        most: usize,
    },
    /// Another server listens there.
    #[error("{}: another server listens there", .0.display())]
    InUse(PathBuf),
    /// Something that is not a socket is there; it is left alone.
    #[error("{}: exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The operating system.
    #[error("{path}: {step}: {errno}", path = path.display())]
    Os {
        /// The path.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        errno: Errno,
    },
}

/// Why [`Server::serve`](crate::Server::serve) ended, other than by its shutdown.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The listening socket failed.
    #[error("listening on the vfio-user socket: {0}")]
    Listener(#[source] std::io::Error),
}

/// Why a client's connection ends.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    #[error("the client has closed the connection")]
    Closed,
    #[error("the client has closed the connection in the middle of a message")]
    ClosedInMessage,
    #[error("the client did not agree on a version in time")]
    NoVersion,
    #[error("the rest of a message did not come in time")]
    HalfMessage,
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("{0}")]
    Reply(DecodeError),
    #[error("a reply to message {0}, which was not sent")]
    UnexpectedReply(u16),
    #[error("message {0} before a version was agreed on: {1}")]
    NotNegotiated(u16, Refusal),
    #[error("descriptors came that could not be taken")]
    DescriptorsLost,
    #[error("the socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// Why a request is refused; the client hears the error number, the log the rest.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{what}")]
    Because { what: &'static str, errno: Errno },
    #[error("region {}, offset {:#x}, count {}: {what}", access.region, access.offset, access.count)]
    Access {
        access: RegionAccess,
        what: &'static str,
        errno: Errno,
    },
    #[error("the function refuses: {0}")]
    Function(Errno),
}

impl Refusal {
    pub(crate) fn because(errno: Errno, what: &'static str) -> Self {
        Self::Because { what, errno }
    }

    pub(crate) fn access(access: RegionAccess, errno: Errno, what: &'static str) -> Self {
        Self::Access {
            access,
            what,
            errno,
        }
    }

    pub(crate) fn errno(&self) -> Errno {
        match self {
            Self::Decode(error) => error.errno(),
            Self::Because { errno, .. } | Self::Access { errno, .. } | Self::Function(errno) => {
                *errno
            }
        }
    }
}
