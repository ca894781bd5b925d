//! Connections and sessions that were refused.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{TransportError, TransportKind};

/// A connection, or a session on one, that was refused before it was one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The transport that it tried.
    pub kind: TransportKind,
    /// Why.
    pub reason: TransportError,
}

/// Is told of each [`Refusal`], on the listener's task: it must not block.
#[derive(Clone)]
pub struct RefusalObserver(Arc<dyn Fn(Refusal) + Send + Sync>);

impl RefusalObserver {
    /// An observer that calls `observe`.
    pub fn new(observe: impl Fn(Refusal) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }
}

impl fmt::Debug for RefusalObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefusalObserver")
    }
}

/// Reports refusals of one listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    observer: Option<RefusalObserver>,
    count: Arc<AtomicU64>,
}

impl Refusals {
    pub(crate) fn new(observer: Option<RefusalObserver>) -> Self {
        Self {
            observer,
            count: Arc::default(),
        }
    }

    /// Logs and tells of one. A flood of bad peers must not become a flood of log lines, so of n refusals about log2(n)
    /// are logged as information; the others are for debugging.
    pub(crate) fn report(&self, remote: SocketAddr, kind: TransportKind, reason: TransportError) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::info!(%remote, %kind, %reason, count, "peer refused");
        } else {
            tracing::debug!(%remote, %kind, %reason, count, "peer refused");
        }
        if let Some(RefusalObserver(observe)) = &self.observer {
            observe(Refusal {
                remote,
                kind,
                reason,
            });
        }
    }
}
