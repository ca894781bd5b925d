//! Configuration: a TOML file, overridden by environment variables.
//!
//! An environment variable `POTEMKIN_<ROLE>__<KEY>` sets a top-level key, `POTEMKIN_<ROLE>__<SECTION>__<KEY>` a key of a
//! section, and so on: two underscores separate the parts, single ones belong to a name, case does not matter.
//! `POTEMKIN_BROKER__TLS__CA=/etc/ca.pem` sets `ca` of `[tls]` for the broker. A value is read as TOML (numbers, booleans,
//! arrays, quoted strings) and, where that does not fit the key, as plain text.
//!
//! An unknown key is an error in either place: with the file, line and column, or with the variable's name. So is a value that the
//! settings' owner refuses later ([`BadValue`], [`Loaded::check`]). Variables
//! without the double underscore after the role are left alone: a Kubernetes service called `potemkin-broker` makes some.

mod bad_value;
mod duration;
mod error;
mod overlay;
mod path;
mod places;
mod sections;
mod socket;
mod tls;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::DeTable;

pub use bad_value::BadValue;
pub use duration::{HumanDuration, ParseDurationError, parse_duration};
pub use error::{ConfigError, Origin};
pub use path::ConfigPath;
pub use places::Places;
pub use sections::{LogFormat, LogSection};
pub use socket::{SOCKET_PATH_BYTES_MAX, check_socket};
pub use tls::TlsSection;

use overlay::Overlay;

/// The largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration and where its relative paths start.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The configuration.
    pub settings: T,
    /// The folder that relative paths are resolved against: the file's, or the current one when there is no file.
    pub base: PathBuf,
    /// Where the values stand, for errors.
    pub places: Places,
}

impl<T> Loaded<T> {
    /// Has the settings' owner look at the values; what it refuses is told with its place.
    pub fn check<R>(
        &self,
        check: impl FnOnce(&T, &Path) -> Result<R, BadValue>,
    ) -> Result<R, ConfigError> {
        check(&self.settings, &self.base).map_err(|bad| self.places.blame(bad))
    }
}

/// Loads the configuration of `role` from `file` (none: all defaults) and the process's environment.
pub fn load<T: DeserializeOwned>(
    role: &str,
    file: Option<&Path>,
) -> Result<Loaded<T>, ConfigError> {
    load_with(role, file, std::env::vars_os())
}

/// As [`load`], with the environment given.
pub fn load_with<T: DeserializeOwned>(
    role: &str,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded<T>, ConfigError> {
    let text = file.map(read).transpose()?.unwrap_or_default();
    let table =
        DeTable::parse(&text).map_err(|e| ConfigError::at(&e, &text, file, &Overlay::default()))?;
    let mut overlay = Overlay::collect(role, environment, text.len())?;
    let settings = deserialize(&table, &mut overlay, &text, file)?;
    Ok(Loaded {
        settings,
        base: base_of(file),
        places: Places::new(file, text, overlay),
    })
}

/// Deserializes, and gives each variable whose TOML reading does not fit its key one more try as plain text.
fn deserialize<T: DeserializeOwned>(
    table: &Spanned<DeTable<'_>>,
    overlay: &mut Overlay,
    text: &str,
    file: Option<&Path>,
) -> Result<T, ConfigError> {
    let mut first_errors: Vec<Option<ConfigError>> = Vec::new();
    first_errors.resize_with(overlay.len(), || None);
    loop {
        let mut merged = table.clone();
        overlay.apply(&mut merged)?;
        let error = match T::deserialize(toml::Deserializer::from(merged)) {
            Ok(settings) => return Ok(settings),
            Err(error) => error,
        };
        let reported = ConfigError::at(&error, text, file, overlay);
        let variable = error.span().and_then(|span| overlay.index_at(span.start));
        match variable {
            Some(index) if overlay.read_as_text(index) => first_errors[index] = Some(reported),
            // The error of the TOML reading tells more than that of the text.
            Some(index) => return Err(first_errors[index].take().unwrap_or(reported)),
            None => return Err(reported),
        }
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    use std::io::Read;

    let unreadable = |source| ConfigError::Unreadable {
        file: file.to_owned(),
        source,
    };
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut text = String::new();
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            file: file.to_owned(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    Ok(text)
}

fn base_of(file: Option<&Path>) -> PathBuf {
    match file.and_then(Path::parent) {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests;
