//! When TLS material is replaced.

use std::sync::Arc;

use tokio::sync::watch;

use super::Files;

/// Tells when the material is replaced. At first it counts as replaced, so that nothing is missed between a configuration that was
/// made before and the first question.
pub(crate) struct Changes(watch::Receiver<Arc<Files>>);

impl Changes {
    pub(super) fn new(mut receiver: watch::Receiver<Arc<Files>>) -> Self {
        receiver.mark_changed();
        Self(receiver)
    }

    /// Whether it was replaced since the last time that this was asked.
    pub(crate) fn seen(&mut self) -> bool {
        let changed = self.0.has_changed().unwrap_or(false);
        self.0.mark_unchanged();
        changed
    }

    /// Waits until it is replaced; for ever if nobody can replace it any more.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
