//! A guest that drives `order` without pause, on a thread of its own, and checks every answer, every byte and every interrupt: nothing may be
//! lost, repeated or out of order, until the function is contained; and from then on nothing may come at all.

mod driver;
mod engines;

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use driver::Driver;

/// Bounds every wait; nothing is timed by it.
const LIMIT: Duration = Duration::from_secs(60);

/// The guest, running.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What a guest did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Reads and writes of the device that were checked, in all.
    pub accesses: u64,
    /// Those that had an answer.
    pub reads: u64,
    /// Interrupts behind data that were checked.
    pub interrupts: u64,
    /// Sums of guest memory that the device made.
    pub sums: u64,
    /// The longest that a read took, before it was contained.
    pub slowest: Duration,
}

/// A read: when it began and when it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When the guest asked.
    pub begun: Instant,
    /// When it went on.
    pub answered: Instant,
}

/// What driver and watcher share. The condition variable is signalled with each change that somebody may wait for.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    totals: Totals,
    turns: u64,
    stop: bool,
    ended: bool,
    /// The longest read since somebody asked.
    slowest: Duration,
    /// The last read that was answered by the device.
    last: Option<Answer>,
    /// The read that gave all-ones first.
    contained: Option<Answer>,
    failure: Option<String>,
}

impl Load {
    /// Begins to drive the function behind this socket, which must be fresh from its attach.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        let shared = Arc::new(Shared::default());
        let (socket, theirs) = (socket.to_owned(), Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let _end = Ended(&theirs);
            if let Err(failure) = Driver::new(&socket, &theirs).run() {
                theirs.lock().failure = Some(failure);
            }
        });
        Self { shared, thread }
    }

    /// Waits until so many more turns were done: the device answers.
    ///
    /// # Panics
    /// With what the guest found wrong; when it was contained.
    pub fn await_turns(&self, more: u64) {
        let until = self.shared.sound().turns + more;
        self.wait("more turns", |state| {
            assert_eq!(state.contained, None, "contained");
            (state.turns >= until).then_some(())
        });
    }

    /// Waits until so many more turns were done, or a read gave all-ones: whether the session lives.
    ///
    /// # Panics
    /// With what the guest found wrong.
    #[must_use]
    pub fn lives_for(&self, more: u64) -> bool {
        let until = self.shared.sound().turns + more;
        self.wait("more turns", |state| {
            let over = state.turns >= until || state.contained.is_some();
            over.then_some(state.contained.is_none())
        })
    }

    /// Waits for the answer to a read that began after this moment.
    ///
    /// # Panics
    /// With what the guest found wrong; when it was contained.
    #[must_use]
    pub fn await_answer(&self, after: Instant) -> Answer {
        self.wait("an answer", |state| {
            assert_eq!(state.contained, None, "contained");
            state.last.filter(|last| last.begun >= after)
        })
    }

    /// Waits for the first answer after this moment, whenever its read began.
    ///
    /// # Panics
    /// As [`Load::await_answer`].
    #[must_use]
    pub fn await_answered(&self, after: Instant) -> Answer {
        self.wait("an answer", |state| {
            assert_eq!(state.contained, None, "contained");
            state.last.filter(|last| last.answered >= after)
        })
    }

    /// The longest that a read took since this was asked before.
    #[must_use]
    pub fn take_slowest(&self) -> Duration {
        std::mem::take(&mut self.shared.sound().slowest)
    }

    /// Waits until a read gave all-ones.
    ///
    /// # Panics
    /// With what the guest found wrong.
    #[must_use]
    pub fn await_containment(&self) -> Answer {
        self.wait("all-ones", |state| state.contained)
    }

    /// The guest stops, and checks what is left to be checked.
    ///
    /// # Panics
    /// With what the guest found wrong.
    pub fn stop(self) -> Totals {
        self.shared.lock().stop = true;
        self.wait("its end", |state| state.ended.then_some(()));
        let totals = self.shared.sound().totals;
        drop(self.thread.join());
        totals
    }

    fn wait<T>(&self, what: &str, mut found: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        let mut state = self.shared.sound();
        loop {
            if let Some(found) = found(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the guest: no {what} within {LIMIT:?}");
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.check();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sound(&self) -> MutexGuard<'_, State> {
        let state = self.lock();
        state.check();
        state
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl State {
    fn check(&self) {
        if let Some(failure) = &self.failure {
            panic!("the guest found: {failure}");
        }
    }
}

/// However the thread ends, who waits is told.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.change(|state| {
            if thread::panicking() {
                state
                    .failure
                    .get_or_insert_with(|| "it panicked".to_owned());
            }
            state.ended = true;
        });
    }
}
