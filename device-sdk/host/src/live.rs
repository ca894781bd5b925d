//! The sessions that live on this host, for brokers to be told of: a broker that hears of one can route it.
//!
//! The data plane calls [`LiveSessions::started`] when a session's first `open` was accepted, before it answers, and
//! [`LiveSessions::ended`] when the session is over, before it reports that. Each Register stream reads: first what there is
//! ([`LiveSessions::follow`]), then what begins afterwards ([`News::next`]), with no gap between the two. Of a session that
//! ended before its broker was told of its begin nothing is told any more.

use std::collections::BTreeMap;

use potemkin_session::ids::{Epoch, SessionId};
use potemkin_transport::Identity;
use tokio::sync::watch;

/// A session that lives on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveSession {
    pub(crate) session: SessionId,
    /// The device's id.
    pub(crate) device: String,
    pub(crate) epoch: Epoch,
    /// As a broker vouched for it.
    pub(crate) agent: Identity,
}

/// All of them; at most one for each device.
#[derive(Debug, Default)]
pub(crate) struct LiveSessions(watch::Sender<Table>);

#[derive(Debug, Default)]
struct Table {
    /// The number of the session that began last.
    last: u64,
    /// By number.
    live: BTreeMap<u64, LiveSession>,
}

/// What begins after a snapshot, in order.
#[derive(Debug)]
pub(crate) struct News {
    table: watch::Receiver<Table>,
    /// All up to this number are known.
    known: u64,
}

impl LiveSessions {
    /// A session's first stream was accepted. Another stream of the same session is no news.
    pub(crate) fn started(&self, session: LiveSession) {
        self.0.send_if_modified(|table| {
            let known = table.live.values().any(|s| s.session == session.session);
            if !known {
                table.last += 1;
                table.live.insert(table.last, session);
            }
            !known
        });
    }

    /// A session is over.
    pub(crate) fn ended(&self, session: SessionId) {
        // Nobody waits for this: brokers hear of it by the session's report.
        self.0.send_if_modified(|table| {
            table.live.retain(|_, s| s.session != session);
            false
        });
    }

    /// The sessions that live now, and what will tell of those that begin afterwards.
    pub(crate) fn follow(&self) -> (Vec<LiveSession>, News) {
        let table = self.0.subscribe();
        let (live, known) = {
            let now = table.borrow();
            (now.live.values().cloned().collect(), now.last)
        };
        (live, News { table, known })
    }
}

impl News {
    /// Waits for the next session that has begun and lives. Cancel-safe.
    pub(crate) async fn next(&mut self) -> LiveSession {
        let known = self.known;
        let changed = self.table.wait_for(|table| table.after(known).is_some());
        let next = changed.await.ok().and_then(|table| table.after(known));
        let Some((number, session)) = next else {
            // The host is going down: nothing begins any more.
            return std::future::pending().await;
        };
        self.known = number;
        session
    }
}

impl Table {
    /// The first that began after this number, with its own.
    fn after(&self, number: u64) -> Option<(u64, LiveSession)> {
        let (number, session) = self.live.range(number + 1..).next()?;
        Some((*number, session.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn session(number: u8) -> LiveSession {
        LiveSession {
            session: SessionId::from_bytes([number; 16]),
            device: format!("edu-{number}"),
            epoch: Epoch(3),
            agent: "spiffe://potemkin.dev/agent/dev".parse().unwrap(),
        }
    }

    /// What there is to tell, without waiting.
    fn told(news: &mut News) -> Vec<LiveSession> {
        let mut context = Context::from_waker(Waker::noop());
        let mut told = Vec::new();
        while let Poll::Ready(next) = pin!(news.next()).poll(&mut context) {
            told.push(next);
        }
        told
    }

    #[test]
    fn every_session_is_in_the_snapshot_or_in_the_news_and_in_none_twice() {
        let live = LiveSessions::default();
        live.started(session(2));
        live.started(session(1));

        let (snapshot, mut news) = live.follow();
        live.started(session(4));
        live.started(session(3));

        assert_eq!(snapshot, [session(2), session(1)]);
        assert_eq!(told(&mut news), [session(4), session(3)]);
        assert_eq!(told(&mut news), []);
    }

    #[test]
    fn of_sessions_that_are_over_nothing_is_told() {
        let live = LiveSessions::default();
        live.started(session(1));
        live.started(session(2));
        live.ended(session(1).session);

        let (snapshot, mut news) = live.follow();
        live.started(session(3));
        live.started(session(4));
        live.ended(session(3).session);

        assert_eq!(snapshot, [session(2)]);
        assert_eq!(told(&mut news), [session(4)]);
    }

    #[test]
    fn a_session_begins_once() {
        let live = LiveSessions::default();
        let (_, mut news) = live.follow();
        live.started(session(1));
        live.started(session(1));
        assert_eq!(told(&mut news), [session(1)]);
        live.started(session(1));
        assert_eq!(told(&mut news), []);
    }
}
