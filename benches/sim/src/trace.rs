//! What happened: always as a hash, as text only when somebody wants to read it.

use std::fmt;

use crate::{clock::Micros, rng::mix};

/// The trace of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    text: Option<String>,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self {
            hash: 0,
            text: verbose.then(String::new),
        }
    }

    /// Everything that happens goes in here.
    pub(crate) fn mix(&mut self, word: u64) {
        self.hash = mix(self.hash ^ word).wrapping_add(1);
    }

    /// A line for people. It costs nothing when nobody reads.
    pub(crate) fn line(&mut self, now: Micros, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.text {
            use fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:>12.6} {}", now as f64 / 1e6, line());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn take_text(&mut self) -> Option<String> {
        self.text.take()
    }
}
