//! Paths in a configuration.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A path as written in a configuration: relative ones are relative to the configuration file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct ConfigPath(PathBuf);

impl ConfigPath {
    /// Where it points, for a configuration whose base is `base` ([`super::Loaded::base`]).
    #[must_use]
    pub fn resolve(&self, base: &Path) -> PathBuf {
        base.join(&self.0)
    }

    /// As written.
    #[must_use]
    pub fn as_written(&self) -> &Path {
        &self.0
    }
}

impl<T: Into<PathBuf>> From<T> for ConfigPath {
    fn from(path: T) -> Self {
        Self(path.into())
    }
}
