//! What a device has started and its host has not taken yet.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use potemkin_pci::Interrupts;

use crate::bus_master::{BusError, Vector};
use crate::hosting::Wake;

/// What may be under way at a time; see [`crate::BusMaster::BACKLOG_BYTES_MAX`].
pub(crate) const BACKLOG_BYTES_MAX: usize = 1 << 20;
/// What a transfer counts beside its data, so that many short ones are bounded too.
const TRANSFER_COST: usize = 64;
/// Interrupts that wait in order with transfers. Past it a vector that fires several times fires once, after all else that waits.
const INTERRUPTS_MAX: usize = 256;

/// Something that a device has started, for its host to pass on. The generation is the one that was newest when the device got its
/// [`crate::BusMaster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write guest memory.
    DmaWrite {
        /// DMA generation in which the work began.
        generation: u64,
        /// Where in the guest's memory, in bytes.
        address: u64,
        /// 1 byte to 16 MiB.
        data: Bytes,
    },
    /// Read guest memory.
    DmaRead {
        /// DMA generation in which the work began.
        generation: u64,
        /// Where in the guest's memory, in bytes.
        address: u64,
        /// 1 byte to 16 MiB.
        length: usize,
        /// For the answer.
        tag: u64,
    },
    /// Raise a message-signalled interrupt.
    Interrupt {
        /// DMA generation in which the work began.
        generation: u64,
        /// One that the descriptor has.
        vector: Vector,
    },
    /// Set the level of INTx; it differs from the one before.
    Intx(bool),
}

/// DMA generations of a session: a number that grows with each reset, with bus mastering turned off, and with each change of the guest's
/// memory after which older work must not reach what is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// Of what begins now.
    pub newest: u64,
    /// What began in an older one is void.
    pub floor: u64,
}

/// The host's end of what a device starts. While it is closed, as at first, nothing goes in. All that is in it and all [`crate::BusMaster`]s
/// end when it is closed or dropped.
pub struct Outbox {
    shared: Arc<Shared>,
    /// As the device's side knows them.
    generations: Generations,
    under_way_bytes: usize,
}

impl Outbox {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            generations: Generations::default(),
            under_way_bytes: 0,
        }
    }

    /// A guest uses the device, or again after a reset: from now on it may act on the guest.
    pub fn open(&mut self, generations: Generations) {
        let mut state = self.shared.state();
        state.open = true;
        state.serial += 1;
        state.generations = generations;
        drop(state);
        self.generations = generations;
    }

    /// To be called before the device is reset, for whatever reason. What was waiting is forgotten, INTx is low, and every
    /// [`crate::BusMaster`] that was given is void.
    pub fn close(&mut self) {
        let mut state = self.shared.state();
        *state = State {
            serial: state.serial,
            ..State::default()
        };
        self.shared.waiting.store(false, Ordering::Release);
        self.shared.starved.store(false, Ordering::Release);
        drop(state);
        self.under_way_bytes = 0;
    }

    /// The session's DMA generations, as they are now. To be called before each callback; costs nothing while they stay the same. What
    /// began below a new floor is refused from now on; what of it waits already is still given out.
    pub fn set_generations(&mut self, generations: Generations) {
        if self.generations != generations {
            self.generations = generations;
            self.shared.state().generations = generations;
        }
    }

    /// What the device has started, in order. Costs an atomic load when there is nothing.
    #[must_use]
    pub fn take(&mut self) -> Vec<Action> {
        if !self.shared.waiting.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut state = self.shared.state();
        self.shared.waiting.store(false, Ordering::Release);
        let actions = state.take();
        self.under_way_bytes = state.under_way_bytes;
        actions
    }

    /// Bytes of DMA that were taken from here and are not done with, so that the device does not start more than is sound.
    pub fn set_under_way(&mut self, bytes: usize) {
        if self.under_way_bytes != bytes {
            self.under_way_bytes = bytes;
            self.shared.state().under_way_bytes = bytes;
        }
    }

    /// Whether [`crate::Device::dma_ready`] is owed; it is not any more afterwards.
    #[must_use]
    pub fn take_ready(&mut self) -> bool {
        if !self.shared.starved.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.shared.state();
        let ready = state.wanted.is_none_or(|wanted| state.has_half(wanted));
        if ready {
            state.wanted = None;
            self.shared.starved.store(false, Ordering::Release);
        }
        ready
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("generations", &self.generations)
            .field("under_way_bytes", &self.under_way_bytes)
            .finish_non_exhaustive()
    }
}

/// What a [`crate::BusMaster`] is worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Right {
    /// Of the time between two resets.
    serial: u64,
    pub(crate) generation: u64,
}

/// Of a device's threads and its host. The lock is held for a few instructions, and no other lock is taken under it; the waker is called
/// without it.
pub(crate) struct Shared {
    /// Something waits: changed under the lock, read without.
    waiting: AtomicBool,
    /// Somebody was told [`BusError::Full`]: likewise.
    starved: AtomicBool,
    state: Mutex<State>,
    interrupts: Interrupts,
    pub(crate) waker: Box<dyn Wake>,
}

#[derive(Default)]
struct State {
    open: bool,
    /// Counts how often it was opened.
    serial: u64,
    generations: Generations,
    actions: Vec<Action>,
    /// Interrupts and levels among them.
    interrupts: usize,
    /// Interrupts for which there was no room, and the newest generation of each.
    late: BTreeMap<Vector, u64>,
    intx: bool,
    /// There was no room for the level of INTx.
    late_intx: bool,
    /// Cost of the transfers among `actions`.
    waiting_bytes: usize,
    /// Taken by the host, and not done with.
    under_way_bytes: usize,
    /// The least that was refused.
    wanted: Option<usize>,
}

impl Shared {
    pub(crate) fn new(waker: Box<dyn Wake>, interrupts: Interrupts) -> Self {
        Self {
            waiting: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            state: Mutex::default(),
            interrupts,
            waker,
        }
    }

    pub(crate) fn right(&self) -> Right {
        let state = self.state();
        Right {
            serial: state.serial,
            generation: state.generations.newest,
        }
    }

    pub(crate) fn transfer(
        &self,
        right: Right,
        bytes: usize,
        action: Action,
    ) -> Result<(), BusError> {
        let cost = bytes + TRANSFER_COST;
        let mut state = self.state();
        state.check(right)?;
        if !state.has_room(cost) {
            state.wanted = Some(state.wanted.map_or(cost, |wanted| wanted.min(cost)));
            self.starved.store(true, Ordering::Release);
            return Err(BusError::Full);
        }
        state.waiting_bytes += cost;
        state.actions.push(action);
        self.changed(state);
        Ok(())
    }

    pub(crate) fn raise(&self, right: Right, vector: Vector) -> Result<(), BusError> {
        let exists = match vector {
            Vector::Msi(n) => n < self.interrupts.msi_vectors.into(),
            Vector::Msix(n) => n < self.interrupts.msix_vectors,
        };
        if !exists {
            return Err(BusError::Vector);
        }
        let mut state = self.state();
        state.check(right)?;
        state.raise(vector, right.generation);
        self.changed(state);
        Ok(())
    }

    pub(crate) fn set_intx(&self, level: bool) {
        let mut state = self.state();
        if self.interrupts.intx_pin != 0 && state.open && state.intx != level {
            state.set_intx(level);
            self.changed(state);
        }
    }

    /// Something waits now.
    fn changed(&self, state: MutexGuard<'_, State>) {
        let rung = self.waiting.swap(true, Ordering::AcqRel);
        drop(state);
        if !rung {
            self.waker.wake_bus();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, right: Right) -> Result<(), BusError> {
        let valid =
            self.open && self.serial == right.serial && self.generations.floor <= right.generation;
        valid.then_some(()).ok_or(BusError::Revoked)
    }

    fn has_room(&self, cost: usize) -> bool {
        let used = self.waiting_bytes + self.under_way_bytes;
        used == 0 || used + cost <= BACKLOG_BYTES_MAX
    }

    /// Room for that, and for more after it: a device that is called back for each small piece would do little else.
    fn has_half(&self, cost: usize) -> bool {
        self.has_room(cost.max(BACKLOG_BYTES_MAX / 2))
    }

    fn raise(&mut self, vector: Vector, generation: u64) {
        if self.is_crowded() {
            let newest = self.late.entry(vector).or_default();
            *newest = generation.max(*newest);
            return;
        }
        self.interrupts += 1;
        self.actions.push(Action::Interrupt { generation, vector });
    }

    fn set_intx(&mut self, level: bool) {
        self.intx = level;
        if self.is_crowded() {
            self.late_intx = true;
        } else {
            self.interrupts += 1;
            self.actions.push(Action::Intx(level));
        }
    }

    fn is_crowded(&self) -> bool {
        self.interrupts >= INTERRUPTS_MAX
    }

    fn take(&mut self) -> Vec<Action> {
        self.under_way_bytes += mem::take(&mut self.waiting_bytes);
        self.interrupts = 0;
        let mut actions = mem::take(&mut self.actions);
        let late = mem::take(&mut self.late).into_iter();
        actions.extend(late.map(|(vector, generation)| Action::Interrupt { generation, vector }));
        if mem::take(&mut self.late_intx) {
            actions.push(Action::Intx(self.intx));
        }
        actions
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
