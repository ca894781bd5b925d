//! What the guest sees of a function whose session was lost and whose device is attached again: it is latched failed until the guest resets it.
//!
//! Which session there is, and the phase, change under the gate's lock. An access takes the session first and looks at the phase then, so it never
//! reaches a new session before the guest's reset.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::Guard;
use potemkin_pci::Space;
use potemkin_session::front::{FrontState, Revocation};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    device::FrontDevice,
    session::{Lost, Session},
};

/// What comes after a session that is contained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AfterLoss {
    /// Nothing: reads give all-ones, writes are dropped, and the VMM is asked to unplug the function.
    #[default]
    Remove,
    /// The same device is attached again, for as long as it takes. The guest finds the function failed, as its descriptor says it looks then, until it
    /// resets it: for drivers that recover by resetting their controller. If the device has become another, as [`AfterLoss::Remove`].
    Reset,
}

/// How a function stands that is kept after the loss of its session.
#[derive(Debug, Clone)]
pub enum Standing {
    /// As its session does.
    Session,
    /// Its session is lost, and the device is being attached again. Why: the last try's failure, or that of the session.
    Reattaching(Lost),
    /// Attached again: it waits until the guest resets it. Why the session before was lost, and since when.
    AwaitingReset(Lost),
}

/// Ordered: from `FAILED` on no access reaches a session.
mod phase {
    /// The session counts, and nothing comes after it.
    pub(super) const LAST: u8 = 0;
    /// The session counts; once it is lost the function is latched.
    pub(super) const LIVE: u8 = 1;
    /// Latched.
    pub(super) const FAILED: u8 = 2;
    /// Latched; the guest has reset the function, which does not answer until there is a session.
    pub(super) const RESET: u8 = 3;
    /// Latched; the guest has reset it by a register, which still shows the failure until there is a session.
    pub(super) const RESET_BY_WRITE: u8 = 4;
}

/// How the guest reset the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All of it, configuration space too.
    Function,
    /// By one of the device's reset writes.
    Write,
}

#[derive(Debug)]
pub(crate) struct Latch {
    phase: AtomicU8,
    /// Number of the item of the session that resets the device, if nothing was written since; 0: none.
    reset_write: AtomicU64,
    /// Why the device is being attached again.
    reason: Mutex<Option<Lost>>,
    /// The function is done with.
    ended: watch::Sender<bool>,
}

impl Default for Latch {
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(phase::LAST),
            reset_write: AtomicU64::new(0),
            reason: Mutex::default(),
            ended: watch::Sender::new(false),
        }
    }
}

impl Latch {
    fn phase(&self) -> u8 {
        self.phase.load(Ordering::Acquire)
    }

    fn set(&self, phase: u8) {
        self.phase.store(phase, Ordering::Release);
    }

    fn is_closed(&self) -> bool {
        self.phase() >= phase::FAILED
    }

    fn reason(&self) -> MutexGuard<'_, Option<Lost>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the device is not attached again yet; the first moment stays.
    pub(crate) fn explain(&self, reason: String) {
        if let Some(lost) = &mut *self.reason() {
            lost.reason = reason;
        }
    }

    /// True once nobody needs the function any more.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }
}

/// How a function is latched, for a process that hands it over to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SavedLatch {
    phase: u8,
    reset_write: u64,
    /// Why the device is being attached again, or was.
    reason: Option<String>,
}

impl Latch {
    pub(crate) fn save(&self) -> SavedLatch {
        SavedLatch {
            phase: self.phase(),
            reset_write: self.reset_write.load(Ordering::Relaxed),
            reason: self.reason().as_ref().map(|lost| lost.reason.clone()),
        }
    }

    pub(crate) fn restore(&self, saved: &SavedLatch, then: Instant) {
        // One that does not exist would be taken for a latched function.
        self.set(saved.phase.min(phase::RESET_BY_WRITE));
        self.reset_write.store(saved.reset_write, Ordering::Relaxed);
        *self.reason() = saved.reason.clone().map(|reason| Lost {
            reason,
            since: then,
        });
    }
}

impl FrontDevice {
    /// The loss of a session is not the end of the function.
    pub(crate) fn keep_after_loss(&self) {
        self.latch.set(phase::LIVE);
    }

    /// Nothing comes after the session that was lost.
    pub(crate) fn give_up(&self) {
        let _gate = self.dma.gate();
        self.latch.set(phase::LAST);
        *self.latch.reason() = None;
    }

    /// Ends the function's session on purpose, whichever it has, and the tries to get another one.
    pub fn close(&self, reason: &str) {
        self.latch.ended.send_replace(true);
        self.session().close(reason);
    }

    /// How it stands, when that is not as its session does.
    pub fn standing(&self) -> Standing {
        if !self.is_latched() {
            return Standing::Session;
        }
        let session = self.session();
        match self.latch.reason().clone() {
            None => Standing::Session,
            Some(lost) if session.is_live() => Standing::AwaitingReset(lost),
            Some(lost) => Standing::Reattaching(lost),
        }
    }

    /// The session that an access goes to; none while the function is latched.
    pub(crate) fn serving(&self) -> Option<Guard<Arc<Session>>> {
        let session = self.borrow_session();
        (!self.latch.is_closed()).then_some(session)
    }

    /// Failed, and the guest has not reset it; or there is no session yet.
    pub(crate) fn is_latched(&self) -> bool {
        self.latch.is_closed()
    }

    /// Latches the function if its session is lost and it is kept. Says whether it is latched.
    pub(crate) fn lose(&self) -> bool {
        let live = self.latch.phase() == phase::LIVE;
        if live && self.session().state() == FrontState::Contained {
            let _gate = self.dma.gate();
            self.latch_if_lost();
        }
        self.is_latched()
    }

    /// The same, under the gate's lock.
    pub(crate) fn latch_if_lost(&self) {
        let session = self.session();
        if self.latch.phase() != phase::LIVE || session.state() != FrontState::Contained {
            return;
        }
        // The guest's last word may have been a reset that the device has not confirmed: it need not say it again.
        let reset_write = self.latch.reset_write.swap(0, Ordering::Relaxed);
        let next = if session.is_resetting() {
            phase::RESET
        } else if session.has_pending(reset_write) {
            phase::RESET_BY_WRITE
        } else {
            phase::FAILED
        };
        *self.latch.reason() = session.lost();
        self.latch.set(next);
        self.forget_pending();
    }

    /// Another session takes the place of the lost one. The function stays latched until the guest resets it, which it may have done.
    pub(crate) fn install(&self, session: &Session) {
        let mut gate = self.dma.gate();
        session.inherit(&self.session());
        self.replace_session(session.clone());
        match self.latch.phase() {
            phase::RESET => {
                self.lower_intx();
                gate.floor = self.go_live(Way::Function);
            }
            phase::RESET_BY_WRITE => gate.floor = self.go_live(Way::Write),
            _ => {}
        }
        self.dma.set_generation(&gate);
        drop(gate);
        session.kick();
    }

    /// The guest resets the function; under the gate's lock. Gives the new DMA generation.
    pub(crate) fn reset_session(&self) -> u64 {
        if !self.is_latched() {
            return self.session().reset();
        }
        self.guest_resets(Way::Function)
    }

    /// A latched function was reset: it is live if there is a session, or will be. Under the gate's lock.
    fn guest_resets(&self, way: Way) -> u64 {
        if self.session().is_live() {
            return self.go_live(way);
        }
        let before = self.latch.phase();
        self.latch.set(match way {
            Way::Write if before != phase::RESET => phase::RESET_BY_WRITE,
            _ => phase::RESET,
        });
        self.session().revoke(Revocation::BusMasterOff)
    }

    /// The device behind the session is as after a reset. The host hears of the new generation before any access does.
    fn go_live(&self, way: Way) -> u64 {
        let session = self.session();
        let generation = match way {
            Way::Function => session.reset(),
            // Reads go on meanwhile: the guest may look for the end of its reset.
            Way::Write => session.revoke(Revocation::BusMasterOff),
        };
        self.latch
            .reset_write
            .store(session.last_sequence(), Ordering::Relaxed);
        self.latch.set(phase::LIVE);
        *self.latch.reason() = None;
        if way == Way::Write {
            self.show_intx();
        }
        tracing::info!("the guest has reset the function: it is live again");
        generation
    }

    fn reset_by_write(&self) {
        let mut gate = self.dma.gate();
        if !self.is_latched() {
            // By another thread meanwhile.
            return;
        }
        gate.floor = self.guest_resets(Way::Write);
        self.dma.set_generation(&gate);
        drop(gate);
        self.session().kick();
    }

    /// What a read without a result gives the guest.
    pub(crate) fn read_lost(&self, space: Space, offset: u64, out: &mut [u8]) {
        self.lose();
        match self.latch.phase() {
            phase::FAILED | phase::RESET_BY_WRITE => {
                self.descriptor().read_failed(space, offset, out);
            }
            _ => out.fill(0xff),
        }
    }

    /// Looks whether a write resets a function that is failed, or may be before the device has done it. `done`: it was taken.
    pub(crate) fn after_write(&self, space: Space, offset: u64, data: &[u8], done: bool) {
        if self.descriptor().reset_writes().is_empty() {
            return;
        }
        let resets = self.descriptor().resets(space, offset, data);
        if done {
            let number = match resets {
                true => self.session().last_sequence(),
                false => 0,
            };
            self.latch.reset_write.store(number, Ordering::Relaxed);
        }
        if resets && self.lose() {
            self.reset_by_write();
        }
    }
}
