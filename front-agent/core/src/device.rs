//! The front device: a function as the guest sees it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use potemkin_pci::{ConfigSpace, Descriptor, MsixPlace, Space, WritePolicy};
use potemkin_session::{access::Posting, front::Revocation};
use serde::{Deserialize, Serialize};

use crate::{
    dma::Dma,
    lanes::pieces,
    latch::Latch,
    messages::{Interrupts, LocalInterrupts},
    outcome::{ConfigWrite, Outcome},
    rehook::Hooks,
    session::Session,
};

/// A function whose device is elsewhere: a PCI function, or a platform function at fixed addresses.
///
/// Lock order: that of `hooks`, the DMA gate's, that of `local`, `config`, the session's. None is held across a wait; while the VMM is called, that
/// of `hooks` (for a mapping), that of `local` (for a message), or the gate's (for a vector, and for a message that the device sends).
#[derive(Debug)]
pub struct FrontDevice {
    descriptor: Descriptor,
    config: Mutex<ConfigSpace>,
    /// Replaced under the gate's lock.
    session: ArcSwap<Session>,
    pub(crate) latch: Latch,
    pub(crate) counters: Counters,
    pub(crate) dma: Dma,
    pub(crate) hooks: Hooks,
    /// None: the VMM has the MSI-X table and MSI's mask bits.
    pub(crate) local: Option<LocalInterrupts>,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) config_reads: AtomicU64,
    pub(crate) config_reads_remote: AtomicU64,
    pub(crate) config_writes: AtomicU64,
    pub(crate) config_writes_remote: AtomicU64,
    pub(crate) bar_reads: AtomicU64,
    pub(crate) bar_writes: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// What the guest did so far, and how much of it needed the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct DeviceCounters {
    /// Reads of configuration space.
    pub config_reads: u64,
    /// Of these, those that asked the host for volatile bits.
    pub config_reads_remote: u64,
    /// Writes to configuration space.
    pub config_writes: u64,
    /// Of these, those that were forwarded to the host.
    pub config_writes_remote: u64,
    /// Reads of BARs.
    pub bar_reads: u64,
    /// Writes to BARs.
    pub bar_writes: u64,
    /// Accesses that found nothing: decode off, outside the BAR, or the session not live.
    pub refused: u64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl FrontDevice {
    /// The function that `descriptor` describes, served by `session`, for a VMM that keeps the MSI-X table and masks by itself, as one does
    /// behind vfio-user: which vectors fire goes to its [`Bus`](crate::Bus), and accesses of the table go to the device.
    pub fn new(descriptor: Descriptor, session: Session) -> Self {
        Self {
            config: Mutex::new(ConfigSpace::new(&descriptor)),
            descriptor,
            session: ArcSwap::from_pointee(session),
            latch: Latch::default(),
            counters: Counters::default(),
            dma: Dma::default(),
            hooks: Hooks::default(),
            local: None,
        }
    }

    /// The same for a VMM that knows messages only: the MSI-X table, the pending bits and the masks of MSI are kept here, accesses of them are
    /// local, and what comes out are the messages that the guest programmed. To be driven with [`crate::MessageInterrupts`].
    pub fn embedded(descriptor: Descriptor, session: Session, vmm: Arc<dyn Interrupts>) -> Self {
        let local = Some(LocalInterrupts::new(&descriptor, vmm));
        Self {
            local,
            ..Self::new(descriptor, session)
        }
    }

    /// What the guest sees.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The session behind it. After the loss of one it may be another ([`AfterLoss::Reset`](crate::AfterLoss::Reset)).
    pub fn session(&self) -> Session {
        Session::clone(&self.session.load())
    }

    /// The same for the way of an access: nothing is counted.
    pub(crate) fn borrow_session(&self) -> Guard<Arc<Session>> {
        self.session.load()
    }

    pub(crate) fn replace_session(&self, session: Session) {
        self.session.store(Arc::new(session));
    }

    /// What the guest did so far.
    pub fn counters(&self) -> DeviceCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeviceCounters {
            config_reads: load(&self.counters.config_reads),
            config_reads_remote: load(&self.counters.config_reads_remote),
            config_writes: load(&self.counters.config_writes),
            config_writes_remote: load(&self.counters.config_writes_remote),
            bar_reads: load(&self.counters.bar_reads),
            bar_writes: load(&self.counters.bar_writes),
            refused: load(&self.counters.refused),
        }
    }

    /// Looks at the live configuration space: base addresses, decode bits.
    pub fn with_config<R>(&self, look: impl FnOnce(&ConfigSpace) -> R) -> R {
        look(&self.config())
    }

    /// Reads configuration space. Local, but for volatile bits; without the host those read as the image has them.
    pub async fn config_read(&self, offset: u16, out: &mut [u8]) -> Outcome {
        count(&self.counters.config_reads);
        let volatile = self.config().read(offset, out);
        if volatile.is_empty() {
            return Outcome::Done;
        }
        count(&self.counters.config_reads_remote);
        let range = volatile.range();
        let mut fresh = out.to_vec();
        let at = u64::from(offset) + range.start as u64;
        let fetched = self.fetch(Space::Config, at, &mut fresh[range]).await;
        if fetched {
            self.config().merge_volatile(offset, out, &fresh);
        }
        Outcome::sent(fetched)
    }

    /// Writes configuration space: the local image first, then the host if it must hear of it. What is past its end is dropped.
    pub async fn config_write(&self, offset: u16, data: &[u8]) -> ConfigWrite {
        self.write_config(offset, data, false).await
    }

    /// The same for a guest that goes on already: what the host must hear of is posted.
    pub async fn config_write_posted(&self, offset: u16, data: &[u8]) -> ConfigWrite {
        self.write_config(offset, data, true).await
    }

    async fn write_config(&self, offset: u16, data: &[u8], posted: bool) -> ConfigWrite {
        let mut done = true;
        count(&self.counters.config_writes);
        let room = self.descriptor.config_image().len();
        let data = &data[..data.len().min(room.saturating_sub(offset.into()))];
        let outcome = self.config().write(offset, data);
        if outcome.bus_master_cleared {
            self.close_gate(|| self.session().revoke(Revocation::BusMasterOff));
        }
        if outcome.flr {
            // At once, whatever else the write does: nothing of before comes any more, and nothing is mapped for a moment.
            self.reset_by(ConfigSpace::function_level_reset);
        } else if outcome.command_changed || outcome.msi_changed || outcome.msix_changed {
            self.intx_may_be_allowed();
            self.msi_may_be_due();
            self.send_due();
        }
        if outcome.moves_mappings() && !outcome.flr {
            self.rehook();
        }
        if outcome.forward {
            count(&self.counters.config_writes_remote);
            done = self
                .store(Space::Config, u64::from(offset), data, posted)
                .await;
            self.after_write(Space::Config, offset.into(), data, done);
        }
        ConfigWrite {
            outcome: Outcome::sent(done),
            reset: outcome.flr,
            bus_master_off: outcome.bus_master_cleared,
        }
    }

    /// Reads a BAR or the expansion ROM. What is not there reads as all-ones: beyond its end, with decode off, without a live session.
    pub async fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) -> Outcome {
        if let Space::Rom = space {
            return self.rom_read(offset, out);
        }
        count(&self.counters.bar_reads);
        let outcome = if self.reachable(space, offset, out.len()) {
            Outcome::sent(self.read_places(space, offset, out).await)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
        }
        match outcome {
            Outcome::Done => {}
            Outcome::NotDecoded => out.fill(0xff),
            Outcome::Failed => self.read_lost(space, offset, out),
        }
        outcome
    }

    /// Writes a BAR. Returns at once where the register's policy posts writes; dropped where there is nothing, and by the expansion ROM.
    pub async fn region_write(&self, space: Space, offset: u64, data: &[u8]) -> Outcome {
        self.write_region(space, offset, data, false).await
    }

    /// The same for a guest that goes on already, whatever the policy says: nobody waits for it.
    pub async fn region_write_posted(&self, space: Space, offset: u64, data: &[u8]) -> Outcome {
        self.write_region(space, offset, data, true).await
    }

    async fn write_region(&self, space: Space, offset: u64, data: &[u8], posted: bool) -> Outcome {
        if let Space::Rom = space {
            return self.rom_holds(offset, data.len());
        }
        count(&self.counters.bar_writes);
        let outcome = if self.reachable(space, offset, data.len()) {
            let done = self.write_places(space, offset, data, posted).await;
            self.after_write(space, offset, data, done);
            Outcome::sent(done)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
        }
        outcome
    }

    /// The guest is gone, and the next may be another: its memory is not for what the device does now. Bus mastering is off as if the guest
    /// had turned it off.
    pub fn stop_bus_mastering(&self) {
        self.close_gate(|| {
            self.config().clear_bus_master();
            self.session().revoke(Revocation::BusMasterOff)
        });
        self.dma.log_again();
    }

    /// Resets the function: the local image at once, the device in order with the accesses around it. Waits for nothing.
    pub fn reset(&self) {
        self.reset_by(ConfigSpace::reset);
    }

    fn reset_by(&self, reset: fn(&mut ConfigSpace)) {
        // First, so that nothing of before is pending in what is reset next.
        self.close_gate(|| {
            self.latch_if_lost();
            // As one: nothing of after the reset finds the registers of before, nor is it undone here.
            let mut config = self.config();
            reset(&mut config);
            self.dma.lower(&mut config);
            self.reset_session()
        });
        if let Some(local) = &self.local {
            local.reset();
        }
        self.rehook();
        self.session().kick();
    }

    pub(crate) fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an access finds the BAR: it has these bytes, and its kind of decode is on.
    pub(crate) fn reachable(&self, space: Space, offset: u64, len: usize) -> bool {
        let Space::Bar(index) = space else {
            return false;
        };
        let Some(region) = self.descriptor.region(index) else {
            return false;
        };
        let inside = offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= region.size);
        let config = self.config();
        let decoded = if region.memory {
            config.memory_enabled()
        } else {
            config.io_enabled()
        };
        inside && decoded
    }

    /// The ROM is here already. Its enable bit is the decoder's business: a VMM may read the image without it.
    fn rom_read(&self, offset: u64, out: &mut [u8]) -> Outcome {
        let rom = self.descriptor.rom().unwrap_or(&[]);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, byte) in out.iter_mut().enumerate() {
            let at = start.checked_add(index);
            *byte = at.and_then(|at| rom.get(at)).copied().unwrap_or(0xff);
        }
        self.rom_holds(offset, out.len())
    }

    /// Whether an access lies in the ROM: all of it is answered then, and a write changes nothing.
    fn rom_holds(&self, offset: u64, length: usize) -> Outcome {
        let end = offset.checked_add(length as u64);
        if end.is_some_and(|end| end <= self.descriptor.space_size(Space::Rom)) {
            Outcome::Done
        } else {
            Outcome::NotDecoded
        }
    }

    /// Reads what is here and asks the host for the rest; false when any part has no result.
    async fn read_places(&self, space: Space, offset: u64, out: &mut [u8]) -> bool {
        let mut start = 0;
        while start < out.len() {
            let at = offset + start as u64;
            let (place, length) = self.place(space, at, out.len() - start);
            let part = &mut out[start..start + length];
            match place {
                MsixPlace::Elsewhere if !self.fetch(space, at, part).await => return false,
                MsixPlace::Elsewhere => {}
                place => self.read_local(place, part),
            }
            start += length;
        }
        true
    }

    /// Writes what is here and tells the host the rest; false when any part was dropped.
    async fn write_places(&self, space: Space, offset: u64, data: &[u8], posted: bool) -> bool {
        let mut start = 0;
        while start < data.len() {
            let at = offset + start as u64;
            let (place, length) = self.place(space, at, data.len() - start);
            let part = &data[start..start + length];
            match place {
                MsixPlace::Elsewhere if !self.store(space, at, part, posted).await => return false,
                MsixPlace::Elsewhere => {}
                place => self.write_local(place, part),
            }
            start += length;
        }
        true
    }

    /// Asks the host; false when any part has no result. The parts of a long block are under way together.
    async fn fetch(&self, space: Space, offset: u64, out: &mut [u8]) -> bool {
        let Some(session) = self.serving() else {
            return false;
        };
        let mut asked = Vec::new();
        for piece in pieces(space, offset, out.len()) {
            let Ok(ticket) = session.ask(piece.at, piece.extent).await else {
                return false;
            };
            // A register: nothing is allocated for it.
            if piece.len() == out.len() {
                let answer = ticket.answer().await;
                return answer.is_ok_and(|bytes| {
                    out.copy_from_slice(&bytes);
                    true
                });
            }
            asked.push((piece, ticket));
        }
        for (piece, ticket) in asked {
            let Ok(bytes) = ticket.answer().await else {
                return false;
            };
            out[piece.start..piece.start + piece.len()].copy_from_slice(&bytes);
        }
        true
    }

    /// Tells the host; false when any part was dropped. The parts of a long block are under way together. `posted`: whatever the policy.
    async fn store(&self, space: Space, offset: u64, data: &[u8], posted: bool) -> bool {
        let Some(session) = self.serving() else {
            return false;
        };
        let mut told = Vec::new();
        for piece in pieces(space, offset, data.len()) {
            let bytes = &data[piece.start..piece.start + piece.len()];
            let posting = if posted {
                Posting::Posted
            } else {
                self.posting(space, piece.at.offset, piece.len())
            };
            let sent = session.tell(piece.at, piece.extent, posting, bytes);
            match sent.await {
                Ok(ticket) => told.extend(ticket),
                Err(_) => return false,
            }
            if self.is_doorbell(space, piece.at.offset, piece.len()) {
                session.push();
            }
        }
        for ticket in told {
            if ticket.answer().await.is_err() {
                return false;
            }
        }
        true
    }

    pub(crate) fn posting(&self, space: Space, offset: u64, length: usize) -> Posting {
        match self.descriptor.write_policy(space, offset, length as u64) {
            WritePolicy::Posted => Posting::Posted,
            WritePolicy::NonPosted => Posting::NonPosted,
        }
    }

    pub(crate) fn is_doorbell(&self, space: Space, offset: u64, length: usize) -> bool {
        self.descriptor.is_doorbell(space, offset, length as u64)
    }
}
