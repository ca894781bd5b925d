//! Finding where a value stands, after it was read.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::BadValue;
use super::error::{ConfigError, Origin};
use super::overlay::Overlay;

/// Where the values of a configuration stand: in which line of its file, or in which environment variable.
#[derive(Debug, Clone, Default)]
pub struct Places {
    file: Option<PathBuf>,
    text: String,
    overlay: Overlay,
}

impl Places {
    pub(super) fn new(file: Option<&Path>, text: String, overlay: Overlay) -> Self {
        Self {
            file: file.map(Path::to_owned),
            text,
            overlay,
        }
    }

    /// Where a dotted key, as `devices[2].id`, has its value. If it has none there, where the section is that it belongs to.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        let unset = || match &self.file {
            Some(file) => Origin::Unset { file: file.clone() },
            None => Origin::Defaults,
        };
        self.position_of(key)
            .map_or_else(unset, |position| self.origin_at(position))
    }

    /// The error for people: where the value stands, the key, what is wrong.
    #[must_use]
    pub fn blame(&self, bad: BadValue) -> ConfigError {
        ConfigError::refused(self.of(&bad.key), bad)
    }

    fn origin_at(&self, position: usize) -> Origin {
        match (self.overlay.name_at(position), &self.file) {
            (Some(name), _) => Origin::variable(name),
            (None, Some(file)) => Origin::file(file, &self.text, position),
            (None, None) => Origin::Defaults,
        }
    }

    fn position_of(&self, key: &str) -> Option<usize> {
        // Both went well when the configuration was read.
        let mut table = DeTable::parse(&self.text).ok()?;
        self.overlay.apply(&mut table).ok()?;
        deepest(&table, key)
    }
}

/// The position of the last value on the way to the key; none: not even the first part is there.
fn deepest(root: &Spanned<DeTable<'_>>, key: &str) -> Option<usize> {
    let mut parts = key.split(['.', '[']);
    let first = root.get_ref().get(parts.next()?)?;
    let mut value = first;
    for part in parts {
        match child(value, part) {
            Some(inner) => value = inner,
            None => break,
        }
    }
    Some(value.span().start)
}

/// `part` is a name, or an index with the bracket that closes it.
fn child<'a, 'b>(value: &'a Spanned<DeValue<'b>>, part: &str) -> Option<&'a Spanned<DeValue<'b>>> {
    match value.get_ref() {
        DeValue::Table(table) => table.get(part),
        DeValue::Array(array) => array.get(part.strip_suffix(']')?.parse::<usize>().ok()?),
        _ => None,
    }
}
