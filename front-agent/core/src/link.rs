//! How a session's way to its host does, for operators.

use std::time::Instant;

use crate::{leg::Route, session::Lost};

/// A session's way to its host: which one, whether it is interrupted, and what was counted.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// The way in use; while it is interrupted, the one that was tried last.
    pub route: Option<Route>,
    /// Why and since when another way is looked for; none while all is well.
    pub interrupted: Option<Lost>,
    /// Times that the session went on over another way.
    pub resumes: u64,
    /// Connections that were begun for that, whatever became of them.
    pub dials: u64,
}

impl Link {
    /// The way is lost, or stands still. An interruption has the first of its reasons; those that follow are failed tries.
    pub(crate) fn interrupt(&mut self, reason: &str) {
        if self.interrupted.is_some() {
            tracing::debug!(reason, "still interrupted");
            return;
        }
        tracing::warn!(reason, "session interrupted: another path is dialled");
        self.interrupted = Some(Lost {
            reason: reason.to_owned(),
            since: Instant::now(),
        });
    }

    /// The host has accepted another way.
    pub(crate) fn resume(&mut self) {
        self.resumes += 1;
        self.go_on("session resumed: nothing was lost");
    }

    /// The way in use moves again by itself.
    pub(crate) fn recover(&mut self) {
        self.go_on("the path moves again");
    }

    fn go_on(&mut self, what: &str) {
        let Some(interrupted) = self.interrupted.take() else {
            return;
        };
        let after_ms = u64::try_from(interrupted.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &self.route {
            Some(route) => tracing::info!(after_ms, %route, "{what}"),
            None => tracing::info!(after_ms, "{what}"),
        }
    }
}
