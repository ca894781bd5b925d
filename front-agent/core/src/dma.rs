//! What the device started itself, carried out on the guest under all checks.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use potemkin_pci::ConfigSpace;
use potemkin_session::{
    access::{DmaError, Vector},
    front::{DmaRead, DmaWrite, Revocation},
};

use serde::{Deserialize, Serialize};

use crate::{
    bus::Bus,
    device::FrontDevice,
    gate::{Direction, Gate, MapError, Way, read_parts, write_parts},
    memory::Window,
    session::Session,
};

mod saved;

pub use saved::{SavedSide, SavedTransfer};

/// What the device started itself, in the host's order.
#[derive(Debug)]
pub(crate) enum Upstream {
    Write(DmaWrite),
    Read(DmaRead),
    Interrupt { generation: u64, vector: Vector },
    Intx(bool),
}

/// The device's side of the guest.
#[derive(Debug, Default)]
pub(crate) struct Dma {
    gate: Mutex<Gate>,
    /// The newest DMA generation: of what is mapped now.
    generation: AtomicU64,
    /// DMA that the bus has and has not finished. Later DMA goes the same way, for the order's sake.
    with_bus: AtomicU64,
    intx: Intx,
    /// The guest did something that may let MSI vectors through that are pending.
    msi_stale: AtomicBool,
    counters: Counters,
    /// One refusal was logged for people already.
    logged: AtomicBool,
}

#[derive(Debug, Default)]
struct Intx {
    /// As the device has it.
    raised: AtomicBool,
    /// As the bus was told.
    shown: AtomicBool,
    /// The guest did something that may change what it is shown.
    stale: AtomicBool,
    /// It rises no earlier than when the device has done this item: the guest may have written before what lowers it.
    after: AtomicU64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    read: AtomicU64,
    refused: AtomicU64,
    interrupts: AtomicU64,
    interrupts_dropped: AtomicU64,
}

/// What the device did to the guest so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct DmaCounters {
    /// Bytes written to guest memory.
    pub bytes_written: u64,
    /// Bytes read from guest memory.
    pub bytes_read: u64,
    /// DMA items that moved nothing.
    pub refused: u64,
    /// MSI and MSI-X vectors fired, and rises of INTx.
    pub interrupts: u64,
    /// MSI and MSI-X vectors that the guest has not turned on, or of an older generation.
    pub interrupts_dropped: u64,
}

impl Dma {
    pub(crate) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is mapped from here on is of the gate's floor.
    pub(crate) fn set_generation(&self, gate: &Gate) {
        let generation = self.generation.load(Ordering::Relaxed).max(gate.floor);
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The next guest's first refusal is for people, too.
    pub(crate) fn log_again(&self) {
        self.logged.store(false, Ordering::Relaxed);
    }

    /// Has the driver look at INTx again.
    fn intx_may_have_changed(&self) {
        self.intx.stale.store(true, Ordering::Release);
    }

    /// The interrupt pin is low. Under the lock of configuration space, which shows it.
    pub(crate) fn lower(&self, config: &mut ConfigSpace) {
        self.intx.raised.store(false, Ordering::Relaxed);
        config.set_interrupt_status(false);
        self.intx_may_have_changed();
    }

    fn refuse(&self, what: &str, address: u64, length: usize, error: DmaError) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
        if self.logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(what, address = format_args!("{address:#x}"), length, %error, "DMA refused");
        } else {
            tracing::warn!(
                what, address = format_args!("{address:#x}"), length, %error,
                "DMA refused; further ones are counted, and logged at debug"
            );
        }
    }
}

impl FrontDevice {
    /// The VMM lets the device use a window of guest memory.
    ///
    /// # Errors
    /// It overlaps another, is none, or there are too many.
    pub fn map_window(&self, window: Window) -> Result<(), MapError> {
        let mut gate = self.dma.gate();
        gate.map(window, self.dma.generation.load(Ordering::Relaxed))
    }

    /// The VMM withdraws a window: when this returns nothing touches it any more. Waits for a copy that is going on, not for the
    /// network. Says whether there was such a window.
    pub fn unmap_window(&self, address: u64, size: u64) -> bool {
        let mut gate = self.dma.gate();
        let found = gate.unmap(address, size);
        if found {
            let generation = self.session().revoke(Revocation::Unmapped);
            self.dma.generation.store(generation, Ordering::Relaxed);
        }
        found
    }

    /// What the device did to the guest so far.
    pub fn dma_counters(&self) -> DmaCounters {
        let counters = &self.dma.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DmaCounters {
            bytes_written: load(&counters.written),
            bytes_read: load(&counters.read),
            refused: load(&counters.refused),
            interrupts: load(&counters.interrupts),
            interrupts_dropped: load(&counters.interrupts_dropped),
        }
    }

    /// From here on nothing that began before reaches the guest. `raise` gives the new generation.
    pub(crate) fn close_gate(&self, raise: impl FnOnce() -> u64) {
        let mut gate = self.dma.gate();
        gate.floor = raise();
        self.dma.generation.store(gate.floor, Ordering::Relaxed);
    }

    /// The guest may have unmasked MSI vectors.
    pub(crate) fn msi_may_be_due(&self) {
        self.dma.msi_stale.store(true, Ordering::Release);
        self.session().kick();
    }

    /// Gives the VMM the MSI vectors that were masked and are not any more. (A VMM without tables of its own has got the messages already.)
    pub(crate) fn settle_msi(&self, bus: &impl Bus) {
        if self.local.is_some()
            || self.is_latched()
            || !self.dma.msi_stale.swap(false, Ordering::Acquire)
        {
            return;
        }
        // As for a vector that fires now.
        let _gate = self.dma.gate();
        loop {
            let due = self.config().next_due_msi_vector();
            let Some(vector) = due else { break };
            self.dma.counters.interrupts.fetch_add(1, Ordering::Relaxed);
            bus.msi(vector);
        }
    }

    /// The guest may have turned INTx on or off. On, it is shown a level that the device has after all that the guest wrote before.
    pub(crate) fn intx_may_be_allowed(&self) {
        if self.dma.intx.raised.load(Ordering::Relaxed) {
            let last = self.session().pushed();
            self.dma.intx.after.store(last, Ordering::Relaxed);
        }
        self.dma.intx_may_have_changed();
        self.session().kick();
    }

    /// The guest has ended an INTx interrupt (EOI), and the VMM has lowered the line by itself. If the device still raises INTx once it has done
    /// what the guest wrote before, the VMM is told the level again. Not for a VMM whose line stays up until it is told otherwise.
    pub fn intx_ended(&self) {
        if self.dma.intx.shown.swap(false, Ordering::Relaxed) {
            self.intx_may_be_allowed();
        }
    }

    /// The function was reset, or is gone: its interrupt pin is low.
    pub(crate) fn lower_intx(&self) {
        self.dma.lower(&mut self.config());
    }

    /// The device's level. One from before a reset that is not confirmed is not taken: the session tells the level once it is. A function
    /// without a pin has none.
    fn take_intx(&self, level: bool) {
        // Looked at under the lock that a reset takes to lower it, or a level might slip in behind that.
        let mut config = self.config();
        let pin = self.descriptor().interrupts().intx_pin != 0;
        if level && (!pin || self.session().is_resetting()) {
            return;
        }
        self.dma.intx.raised.store(level, Ordering::Relaxed);
        config.set_interrupt_status(level && !self.is_latched());
    }

    /// What the device raised while the function was latched.
    pub(crate) fn show_intx(&self) {
        let raised = self.dma.intx.raised.load(Ordering::Relaxed);
        self.config().set_interrupt_status(raised);
        self.dma.intx_may_have_changed();
    }

    /// No interrupt that the guest has held back is pending any more. Under the gate's lock.
    pub(crate) fn forget_pending(&self) {
        if let Some(local) = &self.local {
            local.forget_pending();
        }
        self.config().forget_msi();
    }

    pub(crate) fn carry_out(
        self: &Arc<Self>,
        session: &Session,
        upstream: Upstream,
        bus: &impl Bus,
    ) {
        let dma = |kind| MessageDma::new(self, session, kind);
        match upstream {
            Upstream::Write(write) => self.start(dma(Kind::Write(write)), bus),
            Upstream::Read(read) => self.start(dma(Kind::Read(read)), bus),
            Upstream::Interrupt { generation, vector } => self.interrupt(generation, vector, bus),
            Upstream::Intx(level) => {
                self.take_intx(level);
                self.dma.intx.after.store(0, Ordering::Relaxed);
                self.dma.intx_may_have_changed();
                self.settle_intx(bus);
            }
        }
    }

    /// Shows the guest the level of INTx that its configuration asks for.
    pub(crate) fn settle_intx(&self, bus: &impl Bus) {
        let intx = &self.dma.intx;
        if !intx.stale.swap(false, Ordering::Acquire) {
            return;
        }
        let raised = intx.raised.load(Ordering::Relaxed) && !self.is_latched();
        let level = raised && self.config().intx_allowed();
        if level
            && !self
                .session()
                .has_settled(intx.after.load(Ordering::Relaxed))
        {
            // The driver comes back with each frame.
            return self.dma.intx_may_have_changed();
        }
        if intx.shown.swap(level, Ordering::Relaxed) != level {
            if level {
                self.dma.counters.interrupts.fetch_add(1, Ordering::Relaxed);
            }
            bus.set_intx(level);
        }
    }

    fn start(&self, dma: MessageDma, bus: &impl Bus) {
        let must_wait = self.dma.with_bus.load(Ordering::Relaxed) > 0;
        let left = if must_wait { Some(dma) } else { dma.attempt() };
        if let Some(mut dma) = left {
            dma.with_bus = true;
            self.dma.with_bus.fetch_add(1, Ordering::Relaxed);
            bus.dma_by_message(dma);
        }
    }

    /// Under the gate's lock, as DMA is: once a reset, or bus mastering turned off, has returned, no message of before comes.
    fn interrupt(&self, generation: u64, vector: Vector, bus: &impl Bus) {
        let gate = self.dma.gate();
        let delivered = self.may_interrupt(&gate, generation, vector);
        let counters = &self.dma.counters;
        match delivered {
            Some(Vector::Msi(vector)) => bus.msi(vector),
            Some(Vector::Msix(vector)) => bus.msix(vector),
            None => {
                counters.interrupts_dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        counters.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    /// The vector that the guest gets. Of an MSI vector beyond those that the guest has allocated it gets the low bits, as the message's
    /// data has them (PCI 3.0 section 6.8.1.6).
    fn may_interrupt(&self, gate: &Gate, generation: u64, vector: Vector) -> Option<Vector> {
        if generation < gate.floor || self.is_latched() {
            return None;
        }
        let own = self.descriptor().interrupts();
        let mut config = self.config();
        if !config.bus_master_enabled() {
            return None;
        }
        match vector {
            Vector::Msi(vector) if vector < own.msi_vectors.into() => {
                let allocated = config.msi_vectors();
                let vector = vector.checked_rem(allocated)?;
                // The mask bits stand in configuration space, whoever delivers.
                let goes = self.local.is_some() || config.signal_msi(vector).is_some();
                goes.then_some(Vector::Msi(vector))
            }
            Vector::Msix(index) if index < own.msix_vectors => {
                config.msix_enabled().then_some(vector)
            }
            Vector::Msi(_) | Vector::Msix(_) => None,
        }
    }
}

/// DMA that waits to be carried out. One that is dropped fails.
#[derive(Debug)]
pub struct MessageDma {
    device: Arc<FrontDevice>,
    /// That it is of, and that hears of its end.
    session: Session,
    /// Taken out when it is over.
    kind: Option<Kind>,
    with_bus: bool,
}

#[derive(Debug)]
enum Kind {
    Write(DmaWrite),
    Read(DmaRead),
}

impl MessageDma {
    fn new(device: &Arc<FrontDevice>, session: &Session, kind: Kind) -> Self {
        Self {
            device: Arc::clone(device),
            session: session.clone(),
            kind: Some(kind),
            with_bus: false,
        }
    }

    /// Where in the guest's memory, in bytes.
    pub fn address(&self) -> u64 {
        match &self.kind {
            Some(Kind::Write(write)) => write.address,
            Some(Kind::Read(read)) => read.address,
            None => 0,
        }
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        match &self.kind {
            Some(Kind::Write(write)) => write.data.len(),
            Some(Kind::Read(read)) => read.length,
            None => 0,
        }
    }

    /// What the device writes; none when it reads.
    pub fn data(&self) -> Option<Bytes> {
        match &self.kind {
            Some(Kind::Write(write)) => Some(write.data.clone()),
            _ => None,
        }
    }

    /// Carries it out if that can be done here, and refuses it if it may not be done. Gives it back when only the VMM can do it:
    /// ask once more just before the VMM is asked, for what is allowed may have changed.
    #[must_use]
    pub fn attempt(mut self) -> Option<Self> {
        let outcome = match &self.kind {
            Some(Kind::Write(write)) => {
                self.device.try_write(write).map(|done| done.map(|()| None))
            }
            Some(Kind::Read(read)) => self.device.try_read(read).map(|done| done.map(Some)),
            None => return None,
        };
        match outcome {
            Some(outcome) => {
                self.finish(outcome);
                None
            }
            None => Some(self),
        }
    }

    /// Whether the VMM may still do it: to be asked right before it is.
    pub fn is_allowed(&self) -> bool {
        let (generation, direction) = match &self.kind {
            Some(Kind::Write(write)) => (write.generation, Direction::ToGuest),
            Some(Kind::Read(read)) => (read.generation, Direction::FromGuest),
            None => return false,
        };
        let device = &self.device;
        let gate = device.dma.gate();
        let way = device.pass(&gate, generation, self.address(), self.length(), direction);
        matches!(way, Ok(Way::Message))
    }

    /// The VMM has done it; `data` is what it read.
    pub fn done(mut self, data: Option<Bytes>) {
        self.finish(Ok(data));
    }

    /// The VMM could not do it.
    pub fn fail(self) {
        drop(self);
    }

    fn finish(&mut self, outcome: Result<Option<Bytes>, DmaError>) {
        let Some(kind) = self.kind.take() else { return };
        let device = &self.device;
        if self.with_bus {
            device.dma.with_bus.fetch_sub(1, Ordering::Relaxed);
        }
        let counters = &device.dma.counters;
        match kind {
            Kind::Write(write) => {
                let length = write.data.len();
                match outcome {
                    Ok(_) => {
                        counters.written.fetch_add(length as u64, Ordering::Relaxed);
                    }
                    Err(error) => device.dma.refuse("write", write.address, length, error),
                }
                self.session.dma_written(&write, outcome.map(drop));
            }
            Kind::Read(read) => {
                let outcome = outcome.and_then(|data| {
                    data.filter(|data| data.len() == read.length)
                        .ok_or(DmaError::Failed)
                });
                match &outcome {
                    Ok(_) => {
                        counters
                            .read
                            .fetch_add(read.length as u64, Ordering::Relaxed);
                    }
                    Err(error) => device.dma.refuse("read", read.address, read.length, *error),
                }
                self.session.answer_dma_read(&read, outcome);
            }
        }
    }
}

impl Drop for MessageDma {
    fn drop(&mut self) {
        self.finish(Err(DmaError::Failed));
    }
}

impl FrontDevice {
    /// None: only the VMM can.
    fn try_write(&self, write: &DmaWrite) -> Option<Result<(), DmaError>> {
        let gate = self.dma.gate();
        let (generation, address) = (write.generation, write.address);
        let way = self.pass(
            &gate,
            generation,
            address,
            write.data.len(),
            Direction::ToGuest,
        );
        match way {
            Ok(Way::Local(parts)) => Some(write_parts(&parts, &write.data)),
            Ok(Way::Message) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// None: only the VMM can.
    fn try_read(&self, read: &DmaRead) -> Option<Result<Bytes, DmaError>> {
        let gate = self.dma.gate();
        let (generation, address) = (read.generation, read.address);
        let way = self.pass(
            &gate,
            generation,
            address,
            read.length,
            Direction::FromGuest,
        );
        match way {
            Ok(Way::Local(parts)) => {
                let mut data = BytesMut::zeroed(read.length);
                Some(read_parts(&parts, &mut data).map(|()| data.freeze()))
            }
            Ok(Way::Message) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// To be called, and the copy made, under the gate's lock.
    fn pass(
        &self,
        gate: &Gate,
        generation: u64,
        address: u64,
        length: usize,
        direction: Direction,
    ) -> Result<Way, DmaError> {
        if self.is_latched() || !self.config().bus_master_enabled() {
            return Err(DmaError::Disabled);
        }
        gate.pass(generation, address, length, direction)
    }
}

#[cfg(test)]
#[path = "dma_tests.rs"]
mod tests;
