//! A session as its users hold it: accesses go in, answers come back to whoever waits.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use potemkin_proto::v1::CloseCode;
use potemkin_session::{
    VERSION,
    access::{DmaError, Extent, Location, Posting},
    front::{
        DmaRead, DmaWrite, Failure, Front, FrontConfig, FrontCounters, FrontEvent, FrontState,
        NotSaved, Refused, Revocation,
    },
    ids::Path,
};
use tokio::sync::Notify;

use crate::{dma::Upstream, link::Link};

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
    pub(crate) lost: Option<Lost>,
    pub(crate) link: Link,
    stand: Stand,
}

/// Whether the driver is to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Moves,
    Wanted,
    Stands,
}

/// What ended a session, or interrupts it.
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
        Self::speaking(VERSION, config)
    }

    /// The same, speaking no newer version of the protocol than this one.
    pub fn speaking(version_max: u32, config: FrontConfig) -> Self {
        Self::of(Front::speaking(version_max, config, Instant::now()))
    }

    /// A session that another process has had.
    pub(crate) fn of(core: Front) -> Self {
        let state = State {
            settled: core.acknowledged(),
            core,
            waiting: HashMap::new(),
            blocked: Vec::new(),
            opened: Vec::new(),
            settling: Vec::new(),
            lost: None,
            link: Link::default(),
            stand: Stand::Moves,
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

    /// Number of the last item that was taken.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.lock().core.last_sequence()
    }

    /// The item with this number is one (not 0) that the host has not acknowledged.
    pub(crate) fn has_pending(&self, number: u64) -> bool {
        self.lock().core.acknowledged() < number
    }

    /// It takes accesses.
    pub(crate) fn is_live(&self) -> bool {
        self.lock().core.is_live()
    }

    /// The reason that the other side gave when it ended the session.
    pub(crate) fn closed_by(&self) -> Option<CloseCode> {
        self.lock().core.closed_by()
    }

    /// Takes the place of a session of the same function: what is counted goes on, and nothing that began there is taken for its own.
    pub(crate) fn inherit(&self, older: &Self) {
        let (legacy, link) = {
            let older = older.lock();
            (older.core.legacy(), older.link.clone())
        };
        let mut state = self.lock();
        state.core.inherit(legacy);
        state.link.resumes += link.resumes;
        state.link.dials += link.dials;
    }

    /// Which session this is: its id, epoch and the number of its newest dial.
    pub fn path(&self) -> Path {
        self.lock().core.path()
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
                FrontState::Live | FrontState::Interrupted | FrontState::Resuming => {
                    Poll::Ready(Ok(()))
                }
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

    /// Has the driver give up the path and stand still, all that came carried out, until [`Self::go_on`]. Accesses wait meanwhile.
    ///
    /// # Errors
    /// The session would not survive that.
    pub async fn stand(&self) -> Result<(), NotSaved> {
        self.lock().stand = Stand::Wanted;
        self.kick();
        poll_fn(|context| {
            let mut state = self.lock();
            if state.stand == Stand::Stands || state.lost.is_some() {
                return Poll::Ready(Ok(()));
            }
            if state.stand == Stand::Moves {
                return Poll::Ready(Err(NotSaved::NotResumable));
            }
            remember(&mut state.settling, context.waker());
            Poll::Pending
        })
        .await
    }

    /// Has the driver look for a path again.
    pub fn go_on(&self) {
        self.lock().stand = Stand::Moves;
        self.kick();
    }

    /// The driver is to stand still; one whose session would not survive it refuses.
    pub(crate) fn is_to_stand(&self, refuses: bool) -> bool {
        let mut state = self.lock();
        if state.stand == Stand::Moves {
            return false;
        }
        let can = state.core.is_savable() && !refuses;
        if !can {
            state.stand = Stand::Moves;
            state.settling.drain(..).for_each(Waker::wake);
        }
        can
    }

    /// The driver stands still.
    pub(crate) fn stands(&self) {
        let mut state = self.lock();
        if state.stand == Stand::Wanted {
            state.stand = Stand::Stands;
        }
        state.settling.drain(..).for_each(Waker::wake);
    }

    /// Where it stands.
    pub fn state(&self) -> FrontState {
        self.lock().core.state()
    }

    /// Why and since when it is contained or closed, once it is.
    pub fn lost(&self) -> Option<Lost> {
        self.lock().lost.clone()
    }

    /// How its way to the host does.
    pub fn link(&self) -> Link {
        self.lock().link.clone()
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

    /// Hands an access to the core as soon as there is credit. Bounded: a wait for credit has the core's deadline, after which
    /// the session is contained and refuses. What the wait took is no longer there for the answer. `waits`: the
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
                FrontEvent::Interrupted(reason) => self.link.interrupt(&reason),
                FrontEvent::Resumed => self.link.resume(),
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
        self.link.interrupted = None;
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
