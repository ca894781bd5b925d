//! Why a command failed, in words that say what to do.

use potemkin_service::admin::AdminError;
use potemkin_service::certs::CertsError;
use potemkin_service::config::{BadValue, ConfigError};
use potemkin_service::runtime::{EXIT_FAILURE, EXIT_USAGE};
use potemkin_service::selector::SelectorError;
use potemkin_transport::IdentityError;

use crate::commands::BrokerError;
use crate::probe::ProbeError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Something that was needed was not given.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Selector(#[from] SelectorError),
    #[error(
        "`{text}` is not an identity to expect of a broker, as spiffe://potemkin.dev/broker/* is"
    )]
    Identity { text: String, source: IdentityError },
    #[error(
        "cannot use the certificates: make some with `potemkin certs dev DIR` and pass --tls-dir DIR"
    )]
    Tls(#[source] BadValue),
    #[error(transparent)]
    Certs(#[from] CertsError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("cannot write to standard output")]
    Output(#[source] std::io::Error),
    #[error("cannot start a runtime")]
    Runtime(#[source] std::io::Error),
}

impl CliError {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) | Self::Selector(_) | Self::Identity { .. } => {
                EXIT_USAGE
            }
            _ => EXIT_FAILURE,
        }
    }
}
