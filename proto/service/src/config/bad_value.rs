//! A value that the settings' owner refuses.

use crate::BoxError;

/// What is wrong with the value of a key. [`super::Places`] finds the line or the variable that it came from.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadValue {
    pub(super) key: String,
    pub(super) problem: String,
    pub(super) source: Option<BoxError>,
}

impl BadValue {
    /// `key` is the dotted name from the configuration's root, as `hosts.lease` or `devices[2].id`; `problem` says what is
    /// wrong and what to do.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            source: None,
        }
    }

    /// The same with a cause, which `problem` does not repeat.
    #[must_use]
    pub fn because(self, source: impl Into<BoxError>) -> Self {
        Self {
            source: Some(source.into()),
            ..self
        }
    }

    /// The dotted name of the key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}
