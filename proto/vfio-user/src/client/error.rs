//! What can go wrong for a client.

use rustix::io::Errno;
use thiserror::Error;

use crate::fdpass::ReceiveError;
use crate::{DecodeError, HeaderError};

/// Why a call of a [`Client`](super::Client) failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server answered with an error. The connection goes on.
    #[error("the server refuses {command}: {errno}")]
    Refused {
        /// Name of the command.
        command: &'static str,
        /// The error number of the reply.
        errno: Errno,
    },
    /// No answer in time. A late answer is dropped when it comes; the connection goes on.
    #[error("no answer in time")]
    Timeout,
    /// The server has closed the connection.
    #[error("the server has closed the connection")]
    Closed,
    /// The server answered with a version that this side does not speak.
    #[error("the server answers with version {major}.{minor}")]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// An answer is not what was asked for.
    #[error(
        "{command}: the answer has {found} bytes or another place, {expected} bytes were asked for"
    )]
    Answer {
        /// Name of the command.
        command: &'static str,
        /// Bytes that the answer is about.
        found: u32,
        /// Bytes that the command was about.
        expected: u32,
    },
    /// The server sent a message that breaks the protocol.
    #[error("from the server: {0}")]
    Decode(#[from] DecodeError),
    /// The server sent an impossible header.
    #[error("from the server: {0}")]
    Header(#[from] HeaderError),
    /// The server sent a reply that nobody waits for.
    #[error("from the server: a reply to message {0}, which was not sent")]
    UnexpectedReply(u16),
    /// The access has no bytes, or more than the negotiated limit.
    #[error("an access of {count} bytes: 1 to {limit} are possible")]
    Count {
        /// Bytes of the access.
        count: usize,
        /// Most that were agreed on.
        limit: u32,
    },
    /// More descriptors than the server takes with one message.
    #[error("{count} descriptors: the server takes {limit} with a message")]
    Descriptors {
        /// Descriptors given.
        count: usize,
        /// Most that were agreed on.
        limit: usize,
    },
    /// Descriptors came that could not be taken.
    #[error(transparent)]
    Receive(ReceiveError),
    /// The operating system.
    #[error(transparent)]
    Os(#[from] Errno),
}

impl From<ReceiveError> for ClientError {
    fn from(error: ReceiveError) -> Self {
        match error {
            // What a blocking socket says when its timeout has passed.
            ReceiveError::Os(Errno::AGAIN) => Self::Timeout,
            ReceiveError::Os(Errno::CONNRESET) => Self::Closed,
            ReceiveError::Os(errno) => Self::Os(errno),
            lost @ ReceiveError::DescriptorsLost => Self::Receive(lost),
        }
    }
}

impl ClientError {
    /// A failed send. A timeout there may have cut a message in two, so it is not [`Self::Timeout`].
    pub(super) fn from_send(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            errno => Self::Os(errno),
        }
    }

    /// The error number of an error reply.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } | Self::Os(errno) => Some(*errno),
            _ => None,
        }
    }
}
