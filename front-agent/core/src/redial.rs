//! Looks for another path, while the session goes on.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use potemkin_transport::TransportKind;
use tokio::time::{Sleep, sleep_until};

use crate::{
    attach::{AttachError, chain},
    leg::Leg,
    names::Names,
    pace::Pace,
    remote::RemoteOptions,
    session::Session,
};

/// Attempts under way at a time. Of those of one search the first stay until they succeed or time out, for a network on which a handshake
/// takes long; the others make room for new ones.
const UNDER_WAY: usize = 8;
const STAY: usize = 4;
/// A path that has lasted for so long was good: the search after it has no history. One that breaks again and again is dialled with back-off.
const LASTED: Duration = Duration::from_secs(2);

/// What a search came to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A stream is open.
    Leg(Box<Leg>),
    /// The time for it is over.
    Nothing,
}

/// Dials until there is a path.
///
/// Attempts are begun one after the other and are under way together. They go round the brokers, and begin with the one after that in use,
/// which comes last: most likely it is the reason. Every second round is over the other transport: what stops one may let the other pass.
/// An attempt takes one of the addresses that its broker's name has, another one in each second round.
pub(crate) struct Redial {
    options: Arc<RemoteOptions>,
    session: Session,
    names: Vec<Names>,
    /// Which broker has the path, or had it last.
    in_use: usize,
    search: Search,
    searching: bool,
    /// When the last search ended.
    ended: Option<Instant>,
    under_way: VecDeque<Attempt>,
    alarm: Option<Pin<Box<Sleep>>>,
}

type Attempt = Pin<Box<dyn Future<Output = Result<Leg, AttachError>> + Send>>;

/// A search, and those before it whose paths did not last.
struct Search {
    /// When a path was wanted.
    since: Instant,
    /// The broker that comes first.
    first: usize,
    /// Attempts so far.
    begun: usize,
    pace: Pace,
    /// An access waits.
    urgent: bool,
}

impl Search {
    fn new(first: usize) -> Self {
        let now = Instant::now();
        Self {
            since: now,
            first,
            begun: 0,
            pace: Pace::new(now, random()),
            urgent: false,
        }
    }
}

impl Redial {
    /// Ready to look for other paths than that through the broker with this index.
    pub(crate) fn new(options: Arc<RemoteOptions>, in_use: usize, session: Session) -> Self {
        let brokers = options.brokers.iter();
        Self {
            names: brokers.map(|broker| Names::new(&broker.address)).collect(),
            options,
            session,
            in_use,
            search: Search::new(0),
            searching: false,
            ended: None,
            under_way: VecDeque::new(),
            alarm: None,
        }
    }

    /// A session without a path has ended.
    pub(crate) fn is_off(&self) -> bool {
        self.options.resume_window.is_zero() || self.names.is_empty()
    }

    pub(crate) fn is_searching(&self) -> bool {
        self.searching
    }

    /// A path is wanted, as long as it is not said to be good. `urgent`: an access waits for it.
    pub(crate) fn want(&mut self, urgent: bool) {
        if !self.searching {
            self.searching = true;
            if self.ended.is_none_or(|ended| ended.elapsed() >= LASTED) {
                self.search = Search::new(self.in_use + 1);
            }
            self.search.since = Instant::now();
        }
        self.search.urgent = urgent;
    }

    /// The path is good: what is under way is given up.
    pub(crate) fn rest(&mut self) {
        self.searching = false;
        self.ended = Some(Instant::now());
        self.under_way.clear();
    }

    /// Waits for the next stream that is open, or until it has taken too long. The attempts that are under way then stay so, as the new path
    /// may be refused. Cancel-safe.
    pub(crate) async fn found(&mut self) -> Found {
        poll_fn(|context| self.poll_found(context)).await
    }

    fn poll_found(&mut self, context: &mut Context<'_>) -> Poll<Found> {
        loop {
            if let Some(leg) = self.poll_attempts(context) {
                self.in_use = leg.broker;
                return Poll::Ready(Found::Leg(Box::new(leg)));
            }
            let now = Instant::now();
            let due = self.search.pace.due(self.search.urgent);
            let over = self.over();
            if over.is_some_and(|over| over <= now) {
                return Poll::Ready(Found::Nothing);
            }
            if due <= now {
                self.begin(now);
                continue;
            }
            let next = over.map_or(due, |over| over.min(due));
            if self.poll_alarm(next, context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// While an access waits its deadline is what counts.
    fn over(&self) -> Option<Instant> {
        let over = self.search.since + self.options.resume_window;
        (!self.search.urgent).then_some(over)
    }

    fn poll_alarm(&mut self, next: Instant, context: &mut Context<'_>) -> Poll<()> {
        let alarm = self
            .alarm
            .get_or_insert_with(|| Box::pin(sleep_until(next.into())));
        alarm.as_mut().reset(next.into());
        alarm.as_mut().poll(context)
    }

    /// The oldest that is open, if one is.
    fn poll_attempts(&mut self, context: &mut Context<'_>) -> Option<Leg> {
        let mut at = 0;
        while let Some(attempt) = self.under_way.get_mut(at) {
            let Poll::Ready(outcome) = attempt.as_mut().poll(context) else {
                at += 1;
                continue;
            };
            drop(self.under_way.remove(at));
            match outcome {
                Ok(leg) => return Some(leg),
                Err(error) => tracing::debug!(error = chain(&error), "no path that way"),
            }
        }
        None
    }

    fn begin(&mut self, now: Instant) {
        let Search {
            first,
            begun,
            pace,
            urgent,
            ..
        } = &mut self.search;
        pace.begin(now, *urgent, random());
        let turn = Turn::new(*first, *begun, self.names.len());
        *begun += 1;
        self.session.lock().link.dials += 1;
        let attempt = self.attempt(turn);
        hold(&mut self.under_way, attempt);
    }

    fn attempt(&self, turn: Turn) -> Attempt {
        let options = Arc::clone(&self.options);
        let names = self.names[turn.broker].clone();
        Box::pin(async move {
            let address = names.address(turn.address).await?;
            let transport = turn.transport(options.transport);
            Leg::dial_at(&options, turn.broker, address, transport).await
        })
    }
}

/// One more, if need be in place of another.
fn hold<T>(under_way: &mut VecDeque<T>, attempt: T) {
    if under_way.len() == UNDER_WAY {
        under_way.remove(STAY);
    }
    under_way.push_back(attempt);
}

/// What an attempt tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    broker: usize,
    /// Over another transport than the configured one.
    other_transport: bool,
    /// Which of the broker's addresses, modulo their number.
    address: usize,
}

impl Turn {
    fn new(first: usize, attempt: usize, brokers: usize) -> Self {
        let round = attempt / brokers;
        Self {
            broker: (first + attempt) % brokers,
            other_transport: round % 2 == 1,
            address: round / 2,
        }
    }

    fn transport(self, configured: TransportKind) -> TransportKind {
        match (configured, self.other_transport) {
            (TransportKind::Quic, true) => TransportKind::Grpc,
            (TransportKind::Grpc, true) => TransportKind::Quic,
            (configured, false) => configured,
        }
    }
}

/// Without random numbers agents may come together: no reason to give up.
fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_round_the_brokers_the_one_in_use_last() {
        let brokers: Vec<_> = (0..4).map(|n| Turn::new(2, n, 3).broker).collect();

        assert_eq!(brokers, [2, 0, 1, 2], "1 was in use");
    }

    #[test]
    fn of_many_attempts_the_first_and_the_newest_are_kept() {
        let mut under_way = VecDeque::new();

        for attempt in 0..20 {
            hold(&mut under_way, attempt);
        }

        assert_eq!(under_way, [0, 1, 2, 3, 16, 17, 18, 19]);
    }

    #[test]
    fn every_second_round_is_over_the_other_transport() {
        let turns = (0..6).map(|n| Turn::new(0, n, 2).transport(TransportKind::Quic));

        let (quic, grpc) = (TransportKind::Quic, TransportKind::Grpc);
        assert_eq!(
            turns.collect::<Vec<_>>(),
            [quic, quic, grpc, grpc, quic, quic]
        );
    }

    #[test]
    fn each_address_is_tried_over_both_transports() {
        let turns = (0..4).map(|n| Turn::new(0, n, 1));

        let tried: Vec<_> = turns.map(|t| (t.address, t.other_transport)).collect();
        assert_eq!(tried, [(0, false), (0, true), (1, false), (1, true)]);
    }
}
