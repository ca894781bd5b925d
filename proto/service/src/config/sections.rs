//! Sections that several roles have.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use potemkin_transport::{TlsError, TlsMaterial};

use serde::{Deserialize, Serialize};

use super::ConfigPath;

/// `[tls]`: this process's certificate and the authority that it accepts peers by, all PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSection {
    /// Certificates of the authorities that peers' chains must end at.
    pub ca: ConfigPath,
    /// This process's certificate chain, its own first.
    pub cert: ConfigPath,
    /// The certificate's private key.
    pub key: ConfigPath,
}

impl TlsSection {
    /// Reads the files; `base` is the configuration's ([`super::Loaded::base`]).
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn load(&self, base: &Path) -> Result<TlsMaterial, TlsError> {
        TlsMaterial::load(
            &self.ca.resolve(base),
            &self.cert.resolve(base),
            &self.key.resolve(base),
        )
    }
}

/// `[log]`: what is logged, on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or a list of `module=level` (tracing-subscriber's `EnvFilter`).
    pub filter: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <Self as clap::ValueEnum>::from_str(text, false)
    }
}
