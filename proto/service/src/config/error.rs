//! Errors of configuration, told by file, line and column or by environment variable.

use std::fmt;
use std::path::{Path, PathBuf};

use super::BadValue;
use super::overlay::Overlay;
use crate::BoxError;

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration file {} exceeds {bytes_max} bytes", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// A key or value is wrong: unknown, missing, of another type, out of range, or not TOML at all.
    #[error("{origin}: {message}")]
    Invalid {
        /// Where it stands.
        origin: Origin,
        /// What is wrong, with the key's name.
        message: String,
        /// Why, if that is not all.
        source: Option<BoxError>,
    },
}

/// Where a wrong setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// In a file.
    File {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// In an environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// In an argument of the command line.
    Argument {
        /// Its name.
        name: &'static str,
    },
    /// Nowhere in the file: its default counts, or it is missing.
    Unset {
        /// The file.
        file: PathBuf,
    },
    /// Nowhere: there is no file, and what is missing has no default.
    Defaults,
}

impl ConfigError {
    /// A wrong value that only the settings' owner can see.
    pub(crate) fn invalid(origin: Origin, message: &str) -> Self {
        Self::Invalid {
            origin,
            message: message.to_owned(),
            source: None,
        }
    }

    /// A value that its owner refused.
    pub(super) fn refused(origin: Origin, bad: BadValue) -> Self {
        Self::Invalid {
            origin,
            message: format!("`{}`: {}", bad.key, bad.problem),
            source: bad.source,
        }
    }

    /// A value that was refused and came from the command line.
    #[must_use]
    pub fn in_argument(name: &'static str, bad: BadValue) -> Self {
        Self::refused(Origin::Argument { name }, bad)
    }

    /// Finds where an error of the TOML reader stands.
    pub(super) fn at(
        error: &toml::de::Error,
        text: &str,
        file: Option<&Path>,
        overlay: &Overlay,
    ) -> Self {
        let position = error.span().map_or(0, |span| span.start);
        let origin = match (overlay.name_at(position), file) {
            (Some(name), _) => Origin::variable(name),
            (None, Some(file)) => Origin::file(file, text, position),
            (None, None) => Origin::Defaults,
        };
        Self::Invalid {
            origin,
            message: describe(error),
            source: None,
        }
    }
}

impl Origin {
    pub(super) fn variable(name: &str) -> Self {
        Self::Variable {
            name: name.to_owned(),
        }
    }

    pub(super) fn file(file: &Path, text: &str, position: usize) -> Self {
        let before = text.get(..position).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self::File {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable { name } => write!(f, "environment variable {name}"),
            Self::Argument { name } => write!(f, "argument {name}"),
            Self::Unset { file } => write!(f, "{}", file.display()),
            Self::Defaults => f.write_str("configuration (no file given, see --config)"),
        }
    }
}

/// The reader's message in our words, with the key's full name and a suggestion.
fn describe(error: &toml::de::Error) -> String {
    let message = error
        .message()
        .replacen("unknown field `", "unknown key `", 1)
        .replacen("missing field `", "missing key `", 1);
    if let Some(suggestion) = suggestion(&message) {
        return format!("{message}; did you mean `{suggestion}`?");
    }
    match key_of(error) {
        Some(key) if !message.contains(" key `") => format!("`{key}`: {message}"),
        Some(section) => format!("{message} in [{section}]"),
        None => message,
    }
}

/// The dotted key that the reader was at. It tells this only as a line of its text.
fn key_of(error: &toml::de::Error) -> Option<String> {
    let text = error.to_string();
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'))?;
    Some(key.to_owned())
}

/// Of "unknown key `a`, expected one of `b`, `c`": the expected one that `a` looks like.
fn suggestion(message: &str) -> Option<&str> {
    /// How alike two names must be (Jaro-Winkler: 1 is equal) for one to be a slip for the other.
    const ALIKE_MIN: f64 = 0.8;

    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown "))?;
    quoted
        .map(|name| (name, strsim::jaro_winkler(unknown, name)))
        .filter(|(_, alike)| *alike >= ALIKE_MIN)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(name, _)| name)
}
