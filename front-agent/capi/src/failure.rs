//! Why a device was not opened.

use std::{error::Error, fmt::Write as _};

use potemkin_front_core::{AttachError, BackgroundError, UrlError};
use potemkin_transport::{CertificateError, Identity, TlsError};
use thiserror::Error;

use crate::status::Status;

/// Why a device was not opened.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// A field of the options.
    #[error("options: {0}")]
    Option(&'static str),
    /// The options or the callbacks are null, or of a size that is none.
    #[error("{0}: null, of a wrong size, or with fields that this library does not know")]
    Structure(&'static str),
    /// Not a URL of ours.
    #[error("url")]
    Url(#[from] UrlError),
    /// Null or not UTF-8.
    #[error("url: null, or not UTF-8")]
    UrlText,
    /// Certificates or key.
    #[error("certificates")]
    Tls(#[from] TlsError),
    /// Our certificate is not valid today.
    #[error("our certificate")]
    Time(#[from] CertificateError),
    /// Our certificate is another role's.
    #[error("our certificate is {0}: an agent's is needed")]
    Role(Identity),
    /// The rest.
    #[error(transparent)]
    Attach(#[from] BackgroundError),
}

impl OpenError {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Option(_) | Self::Structure(_) | Self::Url(_) | Self::UrlText => {
                Status::InvalidArgument
            }
            Self::Tls(_) | Self::Time(_) | Self::Role(_) => Status::Refused,
            Self::Attach(BackgroundError::Attach(error)) => attach_status(error),
            Self::Attach(_) => Status::TryAgain,
        }
    }

    /// In one line, each cause once.
    pub(crate) fn reason(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !line.contains(&words) {
                // Writing to a string does not fail.
                let _ = write!(line, ": {words}");
            }
            cause = error.source();
        }
        line
    }
}

fn attach_status(error: &AttachError) -> Status {
    if error.may_pass() {
        Status::TryAgain
    } else {
        Status::Refused
    }
}
