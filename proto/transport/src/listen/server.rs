//! What both transports' accept loops share: limits, sessions, and the end.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SessionHandler;
use crate::refusal::Refusals;
use crate::{FrameStream, Identity, ListenOptions, TransportError, TransportKind};

/// A running listener.
pub(crate) struct Server<H> {
    handler: H,
    pub(crate) options: ListenOptions,
    pub(crate) refusals: Refusals,
    /// Room for connections of both transports.
    connections: Arc<Semaphore>,
    sessions: TaskTracker,
    /// Nothing new is accepted.
    pub(crate) draining: CancellationToken,
    /// Everything ends.
    pub(crate) killed: CancellationToken,
}

impl<H: SessionHandler> Server<H> {
    pub(super) fn new(handler: H, options: ListenOptions) -> Self {
        Self {
            handler,
            refusals: Refusals::new(options.on_refused.clone()),
            connections: Arc::new(Semaphore::new(options.max_connections)),
            sessions: TaskTracker::new(),
            draining: CancellationToken::new(),
            killed: CancellationToken::new(),
            options,
        }
    }

    /// Room for one more connection, to be kept as long as it lives; else the refusal is reported.
    pub(crate) fn connection_permit(
        &self,
        remote: SocketAddr,
        kind: TransportKind,
    ) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok();
        if permit.is_none() {
            self.refuse_for_limit(remote, kind, "connection", self.options.max_connections);
        }
        permit
    }

    /// Room for one connection's sessions.
    pub(crate) fn session_permits(&self) -> Arc<Semaphore> {
        let limit = self.options.max_sessions_per_connection;
        Arc::new(Semaphore::new(usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// Room for one more session on a connection; else the refusal is reported.
    pub(crate) fn session_permit(
        &self,
        sessions: &Arc<Semaphore>,
        remote: SocketAddr,
        kind: TransportKind,
    ) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(sessions).try_acquire_owned().ok();
        if permit.is_none() {
            let limit = self.options.max_sessions_per_connection;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            self.refuse_for_limit(remote, kind, "sessions per connection", limit);
        }
        permit
    }

    pub(crate) fn refuse_for_limit(
        &self,
        peer: SocketAddr,
        kind: TransportKind,
        what: &'static str,
        limit: usize,
    ) {
        let error = TransportError::Limit {
            peer,
            kind,
            what,
            limit,
        };
        self.refusals.report(peer, kind, error);
    }

    /// Runs the handler on a stream, in a task of its own, until it returns or everything ends.
    pub(crate) fn start_session(
        self: &Arc<Self>,
        peer: Identity,
        kind: TransportKind,
        remote: SocketAddr,
        stream: FrameStream,
        permit: OwnedSemaphorePermit,
    ) {
        let server = Arc::clone(self);
        self.sessions.spawn(async move {
            let session = server.handler.session(peer, kind, remote, stream);
            server.until_killed(session).await;
            drop(permit);
        });
    }

    /// What `future` yields, or `None` when nothing new is to be accepted.
    pub(crate) async fn until_draining<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.draining.run_until_cancelled(future).await
    }

    /// What `future` yields, or `None` when everything ends.
    pub(crate) async fn until_killed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.killed.run_until_cancelled(future).await
    }

    /// Accepts nothing new, waits for the sessions, and ends everything.
    pub(super) async fn drain(&self) {
        self.draining.cancel();
        self.sessions.close();
        if timeout(self.options.drain_timeout, self.sessions.wait())
            .await
            .is_err()
        {
            tracing::info!(
                sessions = self.sessions.len(),
                "dropping sessions at shutdown"
            );
        }
        self.kill();
    }

    /// Ends everything.
    pub(super) fn kill(&self) {
        self.draining.cancel();
        self.killed.cancel();
    }
}
