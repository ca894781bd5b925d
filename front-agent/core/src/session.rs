//! A session as its users hold it: accesses go in, answers come back to whoever waits.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use potemkin_session::{
    access::{DmaError, Extent, Location, Posting},
    front::{
        DmaRead, DmaWrite, Failure, Front, FrontConfig, FrontCounters, FrontEvent, FrontState,
        Refused, Revocation,
    },
};
use tokio::sync::Notify;

use crate::dma::Upstream;

/// A handle on one session. Cheap to clone; any thread may use it. Something must run [`crate::drive`] for it.
///
/// Lock order: the one lock here is held for single steps of the core, never across a wait, and no other lock is taken under it.
/// Who wakes whom: users wake the driver by `kick`; the driver wakes users by the wakers in `State`.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    kick: Notify,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) core: Front,
    /// Somebody waits for these answers. Bounded by the non-posted credits.
    waiting: HashMap<u64, Waiting>,
    /// Refused for want of credit; at most one entry for each waiting caller.
    blocked: Vec<Waker>,
    opened: Vec<Waker>,
    /// Who waits until something is acknowledged.
    settling: Vec<Waker>,
    /// What was acknowledged when everything that came before had been handed out.
    settled: u64,
    lost: Option<Lost>,
}

/// What ended a session.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Why, for people.
    pub reason: String,
    /// When.
    pub since: Instant,
}

#[derive(Debug)]
enum Waiting {
    Pending(Option<Waker>),
    Done(Result<Bytes, Failure>),
}

/// Somebody waits for the answer to this access. Removes its entry when the waiter goes away, so that an abandoned wait leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    session: &'a Session,
    sequence: u64,
}

impl Session {
    /// A session that is about to be opened.
    pub fn new(config: FrontConfig) -> Self {
        let state = State {
            core: Front::new(config, Instant::now()),
            waiting: HashMap::new(),
            blocked: Vec::new(),
            opened: Vec::new(),
            settling: Vec::new(),
            settled: 0,
            lost: None,
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                kick: Notify::new(),
            }),
        }
    }

    /// Reads; waits for the answer, at most for the session's deadline.
    ///
    /// # Errors
    /// When there is no result; the guest gets all-ones then.
    pub async fn read(&self, at: Location, extent: Extent) -> Result<Bytes, Failure> {
        self.ask(at, extent).await?.answer().await
    }

    /// Sends a read; the ticket waits for its answer. So several of one caller's are under way at a time.
    pub(crate) async fn ask(&self, at: Location, extent: Extent) -> Result<Ticket<'_>, Failure> {
        let sequence = self
            .admitted(true, |core, now| core.read(now, at, extent))
            .await?;
        Ok(self.ticket(sequence))
    }

    /// Writes. A posted write returns once it has credit; a non-posted one once it is done.
    ///
    /// # Errors
    /// When it was dropped, or its outcome is unknown.
    pub async fn write(
        &self,
        at: Location,
        extent: Extent,
        posting: Posting,
        data: &[u8],
    ) -> Result<(), Failure> {
        match self.tell(at, extent, posting, data).await? {
            None => Ok(()),
            Some(ticket) => ticket.answer().await.map(drop),
        }
    }

    /// Sends a write; of a non-posted one the ticket waits until it is done.
    pub(crate) async fn tell(
        &self,
        at: Location,
        extent: Extent,
        posting: Posting,
        data: &[u8],
    ) -> Result<Option<Ticket<'_>>, Failure> {
        let waits = posting == Posting::NonPosted;
        let sequence = self
            .admitted(waits, |core, now| {
                core.write(now, at, extent, posting, data)
            })
            .await?;
        Ok(waits.then(|| self.ticket(sequence)))
    }

    /// Resets the function, in order with the accesses before and after. Waits for nothing. Gives the new DMA generation.
    pub(crate) fn reset(&self) -> u64 {
        let generation = self.lock().core.reset(Instant::now());
        self.kick();
        generation
    }

    /// What the device began before is void. Gives the new DMA generation.
    pub(crate) fn revoke(&self, why: Revocation) -> u64 {
        let generation = self.lock().core.revoke(Instant::now(), why);
        if why == Revocation::BusMasterOff {
            self.kick();
        }
        generation
    }

    pub(crate) fn dma_written(&self, write: &DmaWrite, outcome: Result<(), DmaError>) {
        self.lock().core.dma_written(write, outcome);
        self.kick();
    }

    pub(crate) fn answer_dma_read(&self, read: &DmaRead, outcome: Result<Bytes, DmaError>) {
        self.lock()
            .core
            .answer_dma_read(Instant::now(), read, outcome);
        self.kick();
    }

    /// Sends what is collected now. Gives the number of the last item.
    pub(crate) fn pushed(&self) -> u64 {
        let last = {
            let mut state = self.lock();
            state.core.push();
            state.core.last_sequence()
        };
        self.kick();
        last
    }

    /// Whether the device has done everything up to this item, and what it had to say of it was handed out.
    pub(crate) fn has_settled(&self, last: u64) -> bool {
        let state = self.lock();
        state.settled >= last || !state.core.is_live()
    }

    /// The function was reset, and the host has not confirmed it.
    pub(crate) fn is_resetting(&self) -> bool {
        self.lock().core.is_resetting()
    }

    /// Waits until the device has done everything that was taken before, at most for the session's deadline: then what it
    /// has to say of it has been heard.
    pub async fn settled(&self) {
        let last = self.pushed();
        poll_fn(|context| {
            let mut state = self.lock();
            if state.settled >= last || !state.core.is_live() {
                return Poll::Ready(());
            }
            remember(&mut state.settling, context.waker());
            Poll::Pending
        })
        .await;
    }

    /// What is collected should go now: a doorbell was written.
    pub fn push(&self) {
        self.lock().core.push();
        self.kick();
    }

    /// Waits until the host has accepted the session.
    ///
    /// # Errors
    /// Why it did not, for people.
    pub async fn opened(&self) -> Result<(), String> {
        poll_fn(|context| {
            let mut state = self.lock();
            match state.core.state() {
                FrontState::Opening => {
                    state.opened.push(context.waker().clone());
                    Poll::Pending
                }
                FrontState::Live => Poll::Ready(Ok(())),
                FrontState::Contained | FrontState::Closed => {
                    let lost = state.lost.as_ref().map(|lost| lost.reason.clone());
                    Poll::Ready(Err(lost.unwrap_or_else(|| "closed".to_owned())))
                }
            }
        })
        .await
    }

    /// Ends the session on purpose; the driver sends a last frame and returns.
    pub fn close(&self, reason: &str) {
        let mut state = self.lock();
        state.core.close(reason);
        state.note_end(reason.to_owned());
        drop(state);
        self.kick();
    }

    /// Where it stands.
    pub fn state(&self) -> FrontState {
        self.lock().core.state()
    }

    /// Why and since when it is contained or closed, once it is.
    pub fn lost(&self) -> Option<Lost> {
        self.lock().lost.clone()
    }

    /// Frames and bytes so far.
    pub fn counters(&self) -> FrontCounters {
        self.lock().core.counters()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that has been reported; the core's state is still whole between its steps.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the driver.
    pub(crate) fn kick(&self) {
        self.shared.kick.notify_one();
    }

    pub(crate) async fn kicked(&self) {
        self.shared.kick.notified().await;
    }

    /// Hands an access to the core as soon as there is credit. Bounded: no credit means that something is in flight, and that has
    /// a deadline, after which the session is contained and refuses. What the wait took is no longer there for the answer. `waits`: the
    /// caller will ask for the answer; its entry is made under the same lock, so that no answer comes before it.
    async fn admitted(
        &self,
        waits: bool,
        mut submit: impl FnMut(&mut Front, Instant) -> Result<u64, Refused>,
    ) -> Result<u64, Failure> {
        let mut until = None;
        poll_fn(|context| {
            let mut state = self.lock();
            let now = Instant::now();
            let result = submit(&mut state.core, now);
            match result {
                Ok(sequence) => {
                    if let Some(until) = until {
                        state.core.answer_by(until);
                    }
                    if waits {
                        state.waiting.insert(sequence, Waiting::Pending(None));
                    }
                }
                Err(Refused::NoCredit) => {
                    let until = *until.get_or_insert(now + state.core.deadline());
                    if until <= now {
                        state.core.handle_starved();
                    }
                    state.block(context.waker());
                }
                Err(_) => {}
            }
            drop(state);
            match result {
                Err(Refused::NotLive | Refused::Size) => Poll::Ready(Err(Failure::Contained)),
                Err(Refused::Resetting) => Poll::Ready(Err(Failure::Resetting)),
                Err(Refused::NoCredit) => {
                    self.kick();
                    Poll::Pending
                }
                Ok(sequence) => {
                    self.kick();
                    Poll::Ready(Ok(sequence))
                }
            }
        })
        .await
    }

    fn ticket(&self, sequence: u64) -> Ticket<'_> {
        Ticket {
            session: self,
            sequence,
        }
    }
}

impl Ticket<'_> {
    /// Waits for the answer, at most for the session's deadline.
    pub(crate) async fn answer(self) -> Result<Bytes, Failure> {
        poll_fn(|context| self.poll(context.waker())).await
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<Bytes, Failure>> {
        let mut state = self.session.lock();
        match state.waiting.get_mut(&self.sequence) {
            Some(Waiting::Pending(slot)) => {
                slot.clone_from(&Some(waker.clone()));
                Poll::Pending
            }
            Some(Waiting::Done(result)) => Poll::Ready(result.clone()),
            None => Poll::Ready(Err(Failure::Contained)),
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.session.lock().waiting.remove(&self.sequence);
    }
}

/// Each caller once.
fn remember(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

impl State {
    /// Remembers whom to wake when there is credit again.
    fn block(&mut self, waker: &Waker) {
        remember(&mut self.blocked, waker);
    }

    /// Hands what happened to whoever waits for it, up to what the device started itself: that is for the caller, and what comes
    /// after it has to wait until it is done.
    pub(crate) fn dispatch(&mut self) -> Option<Upstream> {
        while let Some(event) = self.core.poll_event() {
            match event {
                FrontEvent::DmaWrite(write) => return Some(Upstream::Write(write)),
                FrontEvent::DmaRead(read) => return Some(Upstream::Read(read)),
                FrontEvent::Interrupt { generation, vector } => {
                    return Some(Upstream::Interrupt { generation, vector });
                }
                FrontEvent::Intx(level) => return Some(Upstream::Intx(level)),
                FrontEvent::Completed { sequence, outcome } => self.complete(sequence, outcome),
                FrontEvent::Unblocked => self.blocked.drain(..).for_each(Waker::wake),
                FrontEvent::Opened => self.opened.drain(..).for_each(Waker::wake),
                FrontEvent::Contained(reason) => {
                    tracing::warn!(%reason, "session contained: reads give all-ones, writes are dropped");
                    self.note_end(reason);
                    self.opened.drain(..).for_each(Waker::wake);
                }
            }
        }
        self.settled = self.core.acknowledged();
        self.settling.drain(..).for_each(Waker::wake);
        None
    }

    /// The first reason is the one that counts: a contained session is closed later.
    fn note_end(&mut self, reason: String) {
        self.lost.get_or_insert_with(|| Lost {
            reason,
            since: Instant::now(),
        });
    }

    fn complete(&mut self, sequence: u64, outcome: Result<Bytes, Failure>) {
        // Nobody there: the waiter has gone away.
        if let Some(waiting) = self.waiting.get_mut(&sequence)
            && let Waiting::Pending(Some(waker)) =
                std::mem::replace(waiting, Waiting::Done(outcome))
        {
            waker.wake();
        }
    }
}
