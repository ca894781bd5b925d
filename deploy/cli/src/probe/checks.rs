//! What must hold for a function to be usable, and whether it does.

use serde::Serialize;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    pub(crate) passed: bool,
    /// What was found instead; empty if it passed.
    pub(crate) found: String,
}

/// Everything checked in a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    pub(crate) fn add(&mut self, what: &str, passed: bool, found: impl FnOnce() -> String) {
        self.0.push(Check {
            what: what.to_owned(),
            passed,
            found: if passed { String::new() } else { found() },
        });
    }

    pub(crate) fn all(&self) -> &[Check] {
        &self.0
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = &Check> {
        self.0.iter().filter(|check| !check.passed)
    }
}
