//! What can be wrong with a message.

use std::fmt;

use rustix::io::Errno;
use thiserror::Error;

/// A message that breaks the protocol, or asks for more than this side allows.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}: {field}: {reason}")]
pub struct DecodeError {
    /// Which message, by its name in the specification without the `VFIO_USER_` prefix.
    pub message: &'static str,
    /// Which field of it.
    pub field: &'static str,
    /// What is wrong with the field.
    pub reason: Reason,
}

impl DecodeError {
    pub(crate) fn new(message: &'static str, field: &'static str, reason: Reason) -> Self {
        Self {
            message,
            field,
            reason,
        }
    }

    /// What to put into an error reply.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self.reason {
            Reason::Unsupported(_) => Errno::NOTSUP,
            _ => Errno::INVAL,
        }
    }
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The payload ends before the field does; lengths in bytes.
    Truncated {
        /// Bytes that the field has.
        needed: usize,
        /// Bytes that are left.
        found: usize,
    },
    /// The field has one right value and this is not it.
    Mismatch {
        /// What it says.
        found: u64,
        /// What it has to say.
        expected: u64,
    },
    /// Below the least allowed value.
    TooSmall {
        /// What it says.
        found: u64,
        /// The least allowed.
        least: u64,
    },
    /// Above the largest allowed value.
    TooLarge {
        /// What it says.
        found: u64,
        /// The largest allowed.
        most: u64,
    },
    /// An address or offset plus its length does not fit into 64 bits.
    Overflow,
    /// A value or a combination of bits that means nothing.
    Invalid(u64),
    /// It means something, and this side does not do it.
    Unsupported(u64),
    /// Not the text it has to be.
    Text(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, found } => {
                write!(f, "needs {needed} bytes, {found} are left")
            }
            Self::Mismatch { found, expected } => write!(f, "is {found}, has to be {expected}"),
            Self::TooSmall { found, least } => write!(f, "is {found}, at least {least} is needed"),
            Self::TooLarge { found, most } => write!(f, "is {found}, at most {most} is allowed"),
            Self::Overflow => f.write_str("with its length it passes the end of 64 bits"),
            Self::Invalid(value) => write!(f, "{value:#x} is not valid"),
            Self::Unsupported(value) => write!(f, "{value:#x} is not supported"),
            Self::Text(what) => f.write_str(what),
        }
    }
}
