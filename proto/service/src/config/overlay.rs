//! Environment variables laid over a parsed file.
//!
//! Each variable is given a range of positions of its own behind the end of the file, so that the position in a later
//! error tells which variable it came from.

use std::borrow::Cow;
use std::ffi::OsString;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};

/// The most variables of one role that are taken.
const VARIABLES_MAX: usize = 256;
/// The longest value of a variable, in bytes.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The variables of one role.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlay {
    variables: Vec<Variable>,
}

#[derive(Debug, Clone)]
struct Variable {
    name: String,
    path: Vec<String>,
    text: String,
    positions: Range<usize>,
    /// The text as a TOML assignment, behind as many spaces as make its positions these.
    document: String,
    /// Whether the value is read as TOML: it can be, and that has not turned out wrong for its key.
    typed: bool,
}

impl Overlay {
    /// Picks the variables of `role`; their positions begin behind `file_len`.
    pub(super) fn collect(
        role: &str,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        file_len: usize,
    ) -> Result<Self, ConfigError> {
        let prefix = format!("POTEMKIN_{role}__");
        let mut found = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(&prefix)) else {
                continue;
            };
            let bad = |message: &str| ConfigError::invalid(Origin::variable(name), message);
            let value = value
                .into_string()
                .map_err(|_| bad("the value is not UTF-8"))?;
            if value.len() > VALUE_BYTES_MAX {
                return Err(bad(&format!("the value exceeds {VALUE_BYTES_MAX} bytes")));
            }
            if found.len() == VARIABLES_MAX {
                return Err(bad(&format!("more than {VARIABLES_MAX} variables")));
            }
            found.push((name.to_owned(), value));
        }
        // The order of the environment is arbitrary; errors should not be.
        found.sort();
        let mut overlay = Self::default();
        let mut start = file_len + 1;
        for (name, text) in found {
            let variable = Variable::parse(&prefix, name, text, start)?;
            start = variable.positions.end;
            overlay.variables.push(variable);
        }
        Ok(overlay)
    }

    pub(super) fn len(&self) -> usize {
        self.variables.len()
    }

    /// Which variable a position belongs to; none: the file.
    pub(super) fn index_at(&self, position: usize) -> Option<usize> {
        self.variables
            .iter()
            .position(|variable| variable.positions.contains(&position))
    }

    /// The name of the variable that a position belongs to.
    pub(super) fn name_at(&self, position: usize) -> Option<&str> {
        let index = self.index_at(position)?;
        Some(&self.variables[index].name)
    }

    /// Takes the variable's value as plain text from now on. False: it was already.
    pub(super) fn read_as_text(&mut self, index: usize) -> bool {
        std::mem::take(&mut self.variables[index].typed)
    }

    /// Lays all variables over the file's table.
    pub(super) fn apply<'a>(&'a self, table: &mut Spanned<DeTable<'a>>) -> Result<(), ConfigError> {
        for variable in &self.variables {
            if let Err(not_a_section) = variable.insert(table.get_mut()) {
                return Err(ConfigError::invalid(
                    Origin::variable(&variable.name),
                    &format!("`{not_a_section}` is set to a value elsewhere: it has no keys"),
                ));
            }
        }
        Ok(())
    }
}

impl Variable {
    fn parse(prefix: &str, name: String, text: String, start: usize) -> Result<Self, ConfigError> {
        let path: Vec<String> = name[prefix.len()..]
            .split("__")
            .map(str::to_lowercase)
            .collect();
        if path.iter().any(String::is_empty) {
            return Err(ConfigError::invalid(
                Origin::variable(&name),
                &format!("names no key: write {prefix}<KEY> or {prefix}<SECTION>__<KEY>"),
            ));
        }
        let document = format!("{}{ASSIGNMENT}{text}", " ".repeat(start));
        Ok(Self {
            positions: start..document.len() + 1,
            typed: value_of(&document).is_some(),
            document,
            name,
            path,
            text,
        })
    }

    /// The error names what is on the way to the key and no table.
    fn insert<'a>(&'a self, root: &mut DeTable<'a>) -> Result<(), &'a str> {
        let mut table = root;
        let (key, sections) = self
            .path
            .split_last()
            .expect("a variable's path has at least one part");
        for section in sections {
            let entry = table
                .entry(self.spanned(Cow::Borrowed(section.as_str())))
                .or_insert_with(|| self.spanned(DeValue::Table(DeTable::new())));
            let DeValue::Table(inner) = entry.get_mut() else {
                return Err(section);
            };
            table = inner;
        }
        // A map keeps an equal key that it has, and with it the position in the file: take that out first.
        table.remove(key.as_str());
        table.insert(self.spanned(Cow::Borrowed(key.as_str())), self.value());
        Ok(())
    }

    fn value(&self) -> Spanned<DeValue<'_>> {
        self.typed
            .then(|| value_of(&self.document))
            .flatten()
            .unwrap_or_else(|| self.spanned(DeValue::String(Cow::Borrowed(self.text.as_str()))))
    }

    fn spanned<T>(&self, value: T) -> Spanned<T> {
        Spanned::new(self.positions.clone(), value)
    }
}

const ASSIGNMENT: &str = "v=";

/// The value that a padded assignment gives, if that is all there is in it.
fn value_of(document: &str) -> Option<Spanned<DeValue<'_>>> {
    let mut table = DeTable::parse(document).ok()?.into_inner();
    let value = table.remove("v")?;
    table.is_empty().then_some(value)
}
