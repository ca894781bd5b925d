//! The broker's background tasks: its alarm clock, its hand on the store, its counts.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::Broker;
use crate::store::Store;

/// Tells the core when its deadlines are over. Never ends.
pub(crate) async fn keep_time(broker: &Broker) {
    loop {
        let deadline = broker.with(|core, now| {
            core.handle_timeout(now);
            core.poll_timeout()
        });
        let changed = broker.deadline_changed.notified();
        match deadline {
            None => changed.await,
            Some(time) => {
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(broker.instant(time)) => {}
                }
            }
        }
    }
}

/// Commits what the core wants kept, one commit at a time. Never ends.
pub(crate) async fn keep_rows<S: Store>(broker: &Broker, store: Arc<S>) {
    loop {
        while let Some(rows) = broker.with(|core, _| core.next_commit()) {
            let store = store.clone();
            let commit = tokio::task::spawn_blocking(move || {
                let result = store.commit(&rows);
                (rows, result)
            });
            let Ok((rows, result)) = commit.await else {
                // The store panicked, or the runtime is going down: without a store nothing can be handed out.
                tracing::error!("the store's thread is gone");
                return std::future::pending().await;
            };
            if let Err(error) = &result {
                tracing::error!(%error, cause = ?std::error::Error::source(error), "commit failed");
                broker.metrics.commit_failed();
            }
            broker.with(|core, now| core.committed(now, &rows, result.is_ok()));
        }
        broker.commit_wanted.notified().await;
    }
}

/// How often what there is is counted at most: a pool has many devices, and they change one by one.
const COUNT_PERIOD: Duration = Duration::from_secs(1);

/// Keeps the gauges. Never ends.
pub(crate) async fn keep_counts(broker: &Broker) {
    loop {
        let tally = broker.with(|core, _| core.tally());
        broker.metrics.show(&tally);
        tokio::time::sleep(COUNT_PERIOD).await;
        broker.counts_changed.notified().await;
    }
}
