//! Watches: each has a bounded queue, and whoever does not keep up is told so and dropped.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use potemkin_proto::v1::{WatchEvent, watch_event::Kind};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use crate::broker::Broker;
use crate::core::{Core, Viewer};
use crate::ids::{DeviceId, SessionId};

/// Changes that may wait for a watcher.
const QUEUE_MAX: usize = 1024;

/// Everybody who watches.
#[derive(Debug)]
pub(crate) struct Watchers {
    watchers: HashMap<u64, Watcher>,
    next: u64,
    limit: usize,
}

#[derive(Debug)]
struct Watcher {
    viewer: Viewer,
    sender: mpsc::Sender<WatchEvent>,
    /// Set when a change did not fit any more.
    overflowed: Arc<AtomicBool>,
}

/// The receiving end of a watcher's queue.
#[derive(Debug)]
pub(crate) struct Changes {
    id: u64,
    receiver: mpsc::Receiver<WatchEvent>,
    overflowed: Arc<AtomicBool>,
}

impl Watchers {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            watchers: HashMap::new(),
            next: 0,
            limit,
        }
    }

    pub(crate) fn add(&mut self, viewer: Viewer) -> Result<Changes, Status> {
        if self.watchers.len() >= self.limit {
            return Err(Status::resource_exhausted(format!(
                "the broker has {} watchers, which is its limit",
                self.limit
            )));
        }
        self.next += 1;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let overflowed = Arc::new(AtomicBool::new(false));
        let watcher = Watcher {
            viewer,
            sender,
            overflowed: overflowed.clone(),
        };
        self.watchers.insert(self.next, watcher);
        Ok(Changes {
            id: self.next,
            receiver,
            overflowed,
        })
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.watchers.remove(&id);
    }

    pub(crate) fn clear(&mut self) {
        self.watchers.clear();
    }

    pub(crate) fn device(&mut self, core: &Core, device: &DeviceId) {
        self.tell(|viewer| core.device_info(device, viewer).map(Kind::Device));
    }

    pub(crate) fn device_gone(&mut self, core: &Core, device: &DeviceId, class: &str, host: &str) {
        self.tell(|viewer| {
            core.sees_device(viewer, device, class, host)
                .then(|| Kind::DeviceGone(device.as_str().to_owned()))
        });
    }

    pub(crate) fn session(&mut self, core: &Core, session: SessionId) {
        self.tell(|viewer| core.session_info(session, viewer).map(Kind::Session));
    }

    pub(crate) fn session_gone(&mut self, session: SessionId, agent: &str, host: &str) {
        self.tell(|viewer| {
            viewer
                .sees_session(agent, host)
                .then(|| Kind::SessionGone(session.to_bytes()))
        });
    }

    fn tell(&mut self, kind_for: impl Fn(&Viewer) -> Option<Kind>) {
        self.watchers.retain(|_, watcher| {
            let Some(kind) = kind_for(&watcher.viewer) else {
                return true;
            };
            let told = watcher.sender.try_send(event(kind)).is_ok();
            if !told {
                watcher.overflowed.store(true, Ordering::Relaxed);
            }
            told
        });
    }
}

/// The state of today, as events, with `in_sync` at the end.
pub(crate) fn snapshot(core: &Core, viewer: &Viewer) -> Vec<WatchEvent> {
    let devices = core.list_devices(viewer).into_iter().map(Kind::Device);
    let sessions = core.list_sessions(viewer).into_iter().map(Kind::Session);
    let in_sync = std::iter::once(Kind::InSync(true));
    devices.chain(sessions).chain(in_sync).map(event).collect()
}

fn event(kind: Kind) -> WatchEvent {
    WatchEvent { kind: Some(kind) }
}

/// What a watcher reads.
#[derive(Debug)]
pub(crate) struct Subscription {
    broker: Arc<Broker>,
    snapshot: std::vec::IntoIter<WatchEvent>,
    changes: Changes,
    ended: bool,
}

impl Subscription {
    pub(crate) fn new(broker: Arc<Broker>, snapshot: Vec<WatchEvent>, changes: Changes) -> Self {
        Self {
            broker,
            snapshot: snapshot.into_iter(),
            changes,
            ended: false,
        }
    }
}

impl Stream for Subscription {
    type Item = Result<WatchEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.snapshot.next() {
            return Poll::Ready(Some(Ok(event)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(self.changes.receiver.poll_recv(context));
        if let Some(event) = next {
            return Poll::Ready(Some(Ok(event)));
        }
        self.ended = true;
        let status = if self.changes.overflowed.load(Ordering::Relaxed) {
            Status::resource_exhausted("the watcher reads too slowly: watch again")
        } else {
            Status::unavailable("the broker is stopping")
        };
        Poll::Ready(Some(Err(status)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.broker.unwatch(self.changes.id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_stream::StreamExt;
    use tonic::Code;

    use super::*;
    use crate::testing::idle_broker;

    fn next(subscription: &mut Subscription) -> Option<Result<WatchEvent, Status>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(subscription).poll_next(&mut context) {
            Poll::Ready(item) => item,
            Poll::Pending => panic!("nothing to read"),
        }
    }

    #[test]
    fn a_watcher_that_does_not_keep_up_gets_what_fits_and_then_the_reason() {
        let broker = idle_broker();
        let mut watchers = Watchers::new(1);
        let changes = watchers.add(Viewer::Operator).unwrap();
        let mut subscription = Subscription::new(broker, Vec::new(), changes);

        for n in 0..=QUEUE_MAX {
            watchers.session_gone(SessionId(n as u128), "agent", "host");
        }

        for _ in 0..QUEUE_MAX {
            next(&mut subscription).unwrap().unwrap();
        }
        let status = next(&mut subscription).unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(next(&mut subscription).is_none());
        // Its place is free again.
        watchers.add(Viewer::Operator).unwrap();
    }

    #[tokio::test]
    async fn a_watch_begins_with_the_state_of_today() {
        let broker = idle_broker();
        let mut subscription = broker.watch(Viewer::Operator).unwrap();
        let first = subscription.next().await.unwrap().unwrap();
        assert_eq!(first.kind, Some(Kind::InSync(true)));
    }

    #[tokio::test]
    async fn watches_end_when_the_broker_stops() {
        let broker = idle_broker();
        let mut subscription = broker.watch(Viewer::Operator).unwrap();
        broker.stop();
        subscription.next().await.unwrap().unwrap();
        let status = subscription.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
}
