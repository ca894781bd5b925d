//! The front device: a PCI function as the guest sees it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use potemkin_pci::{
    ConfigSpace, Descriptor, Space, Width, WritePolicy, decode_memory, decode_port,
};
use potemkin_session::{
    access::{Extent, Location, MAX_ACCESS_BYTES, Posting},
    front::Revocation,
};

use crate::{
    block_on::block_on,
    dma::Dma,
    lanes::{Piece, pieces},
    outcome::Outcome,
    session::Session,
};

/// A PCI function whose device is elsewhere.
///
/// Lock order: the DMA gate's, `config`, the session's; none is held across a wait.
#[derive(Debug)]
pub struct FrontDevice {
    descriptor: Descriptor,
    config: Mutex<ConfigSpace>,
    session: Session,
    counters: Counters,
    pub(crate) dma: Dma,
}

#[derive(Debug, Default)]
struct Counters {
    config_reads: AtomicU64,
    config_reads_remote: AtomicU64,
    config_writes: AtomicU64,
    config_writes_remote: AtomicU64,
    bar_reads: AtomicU64,
    bar_writes: AtomicU64,
    refused: AtomicU64,
}

/// What the guest did so far, and how much of it needed the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl FrontDevice {
    /// The function that `descriptor` describes, served by `session`.
    pub fn new(descriptor: Descriptor, session: Session) -> Self {
        Self {
            config: Mutex::new(ConfigSpace::new(&descriptor)),
            descriptor,
            session,
            counters: Counters::default(),
            dma: Dma::default(),
        }
    }

    /// What the guest sees.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The session behind it.
    pub fn session(&self) -> &Session {
        &self.session
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

    /// Writes configuration space: the local image first, then the host if it must hear of it.
    pub async fn config_write(&self, offset: u16, data: &[u8]) -> Outcome {
        let mut done = true;
        count(&self.counters.config_writes);
        let outcome = self.config().write(offset, data);
        if outcome.bus_master_cleared {
            self.close_gate(|| self.session.revoke(Revocation::BusMasterOff));
        }
        if outcome.command_changed || outcome.msi_changed || outcome.msix_changed {
            self.intx_may_be_allowed();
        }
        if outcome.forward {
            count(&self.counters.config_writes_remote);
            done = self.store(Space::Config, u64::from(offset), data).await;
        }
        if outcome.flr {
            self.reset();
        }
        Outcome::sent(done)
    }

    /// Reads a BAR or the expansion ROM. What is not there reads as all-ones: beyond its end, with decode off, without a live session.
    pub async fn region_read(&self, space: Space, offset: u64, out: &mut [u8]) -> Outcome {
        if let Space::Rom = space {
            return self.rom_read(offset, out);
        }
        count(&self.counters.bar_reads);
        let outcome = if self.reachable(space, offset, out.len()) {
            Outcome::sent(self.fetch(space, offset, out).await)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
            out.fill(0xff);
        }
        outcome
    }

    /// Writes a BAR. Returns at once where the register's policy posts writes; dropped where there is nothing.
    pub async fn region_write(&self, space: Space, offset: u64, data: &[u8]) -> Outcome {
        count(&self.counters.bar_writes);
        let outcome = if self.reachable(space, offset, data.len()) {
            Outcome::sent(self.store(space, offset, data).await)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
        }
        outcome
    }

    /// Decodes a guest-physical address by the base registers and reads there. Where this function does not answer `out` stays as it is.
    pub async fn memory_read(&self, address: u64, out: &mut [u8]) -> Outcome {
        match self.at_memory(address, out.len()) {
            Some((space, offset)) => self.region_read(space, offset, out).await,
            None => Outcome::NotDecoded,
        }
    }

    /// Decodes a guest-physical address and writes there.
    pub async fn memory_write(&self, address: u64, data: &[u8]) -> Outcome {
        match self.at_memory(address, data.len()) {
            Some((space, offset)) => self.region_write(space, offset, data).await,
            None => Outcome::NotDecoded,
        }
    }

    /// Decodes a port and reads there. Where this function does not answer `out` stays as it is.
    pub async fn port_read(&self, port: u16, out: &mut [u8]) -> Outcome {
        match self.at_port(port, out.len()) {
            Some((space, offset)) => self.region_read(space, offset, out).await,
            None => Outcome::NotDecoded,
        }
    }

    /// Decodes a port and writes there.
    pub async fn port_write(&self, port: u16, data: &[u8]) -> Outcome {
        match self.at_port(port, data.len()) {
            Some((space, offset)) => self.region_write(space, offset, data).await,
            None => Outcome::NotDecoded,
        }
    }

    /// Resets the function: the local image at once, the device in order with the accesses around it. Waits for nothing.
    pub fn reset(&self) {
        self.config().reset();
        self.close_gate(|| self.session.reset());
        self.lower_intx();
        self.session.kick();
    }

    /// [`FrontDevice::config_read`] for a vCPU thread; the session must be driven by another one.
    pub fn config_read_blocking(&self, offset: u16, out: &mut [u8]) -> Outcome {
        block_on(self.config_read(offset, out))
    }

    /// [`FrontDevice::config_write`] for a vCPU thread.
    pub fn config_write_blocking(&self, offset: u16, data: &[u8]) -> Outcome {
        block_on(self.config_write(offset, data))
    }

    /// [`FrontDevice::region_read`] for a vCPU thread.
    pub fn region_read_blocking(&self, space: Space, offset: u64, out: &mut [u8]) -> Outcome {
        block_on(self.region_read(space, offset, out))
    }

    /// [`FrontDevice::region_write`] for a vCPU thread.
    pub fn region_write_blocking(&self, space: Space, offset: u64, data: &[u8]) -> Outcome {
        block_on(self.region_write(space, offset, data))
    }

    /// Where a memory access goes by the base registers.
    fn at_memory(&self, address: u64, len: usize) -> Option<(Space, u64)> {
        decode_memory(&self.config(), address, len as u64)
    }

    /// Where a port access goes by the base registers.
    fn at_port(&self, port: u16, len: usize) -> Option<(Space, u64)> {
        decode_port(&self.config(), port, len as u64)
    }

    pub(crate) fn config(&self) -> MutexGuard<'_, ConfigSpace> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an access finds the BAR: it has these bytes, and its kind of decode is on.
    fn reachable(&self, space: Space, offset: u64, len: usize) -> bool {
        let Space::Bar(index) = space else {
            return false;
        };
        let Some(bar) = self.descriptor.bar(index) else {
            return false;
        };
        let inside = offset
            .checked_add(len as u64)
            .is_some_and(|end| end <= bar.size);
        let config = self.config();
        let decoded = if bar.kind.is_memory() {
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
        match start.checked_add(out.len()) {
            Some(end) if end <= rom.len() => Outcome::Done,
            _ => Outcome::NotDecoded,
        }
    }

    /// Asks the host; false when any part has no result.
    async fn fetch(&self, space: Space, offset: u64, out: &mut [u8]) -> bool {
        for piece in pieces(space, offset, out.len()) {
            let Ok(bytes) = self.session.read(piece.at, piece.extent).await else {
                return false;
            };
            out[piece.start..piece.start + piece.len()].copy_from_slice(&bytes);
        }
        true
    }

    /// Tells the host; false when any part was dropped.
    async fn store(&self, space: Space, offset: u64, data: &[u8]) -> bool {
        for piece in pieces(space, offset, data.len()) {
            let bytes = &data[piece.start..piece.start + piece.len()];
            let posting = self.posting(&piece);
            let written = self
                .session
                .write(piece.at, piece.extent, posting, bytes)
                .await;
            if written.is_err() {
                return false;
            }
            if self.descriptor.is_doorbell(space, piece.at.offset) {
                self.session.push();
            }
        }
        true
    }

    fn posting(&self, piece: &Piece) -> Posting {
        match self
            .descriptor
            .write_policy(piece.at.space, piece.at.offset)
        {
            WritePolicy::Posted => Posting::Posted,
            WritePolicy::NonPosted => Posting::NonPosted,
        }
    }

    /// Writes one port or FIFO register several times: a string instruction, as one access. `data` holds the elements.
    pub async fn string_write(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        data: &[u8],
    ) -> Outcome {
        count(&self.counters.bar_writes);
        let outcome = if self.reachable(space, offset, width.bytes()) {
            Outcome::sent(self.store_string(space, offset, width, data).await)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
        }
        outcome
    }

    /// Reads one port or FIFO register as often as `out` has elements: a string instruction, as one access.
    pub async fn string_read(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        out: &mut [u8],
    ) -> Outcome {
        count(&self.counters.bar_reads);
        let outcome = if self.reachable(space, offset, width.bytes()) {
            Outcome::sent(self.fetch_string(space, offset, width, out).await)
        } else {
            Outcome::NotDecoded
        };
        if outcome != Outcome::Done {
            count(&self.counters.refused);
            out.fill(0xff);
        }
        outcome
    }

    /// [`FrontDevice::string_write`] to where a port decodes.
    pub async fn port_string_write(&self, port: u16, width: Width, data: &[u8]) -> Outcome {
        match self.at_port(port, width.bytes()) {
            Some((space, offset)) => self.string_write(space, offset, width, data).await,
            None => Outcome::NotDecoded,
        }
    }

    /// [`FrontDevice::string_read`] from where a port decodes. Where this function does not answer `out` stays as it is.
    pub async fn port_string_read(&self, port: u16, width: Width, out: &mut [u8]) -> Outcome {
        match self.at_port(port, width.bytes()) {
            Some((space, offset)) => self.string_read(space, offset, width, out).await,
            None => Outcome::NotDecoded,
        }
    }

    async fn store_string(&self, space: Space, offset: u64, width: Width, data: &[u8]) -> bool {
        let (at, posting) = self.string_at(space, offset, width);
        for chunk in data.chunks(MAX_ACCESS_BYTES) {
            let Some(extent) = string_extent(width, chunk.len()) else {
                return false;
            };
            if self
                .session
                .write(at, extent, posting, chunk)
                .await
                .is_err()
            {
                return false;
            }
        }
        true
    }

    async fn fetch_string(&self, space: Space, offset: u64, width: Width, out: &mut [u8]) -> bool {
        let (at, _) = self.string_at(space, offset, width);
        for chunk in out.chunks_mut(MAX_ACCESS_BYTES) {
            let Some(extent) = string_extent(width, chunk.len()) else {
                return false;
            };
            match self.session.read(at, extent).await {
                Ok(bytes) => chunk.copy_from_slice(&bytes),
                Err(_) => return false,
            }
        }
        true
    }

    fn string_at(&self, space: Space, offset: u64, width: Width) -> (Location, Posting) {
        let at = Location {
            space,
            offset,
            width,
        };
        let posting = match self.descriptor.write_policy(space, offset) {
            WritePolicy::Posted => Posting::Posted,
            WritePolicy::NonPosted => Posting::NonPosted,
        };
        (at, posting)
    }
}

/// So many elements at one offset; `None` when the bytes are no whole elements.
fn string_extent(width: Width, bytes: usize) -> Option<Extent> {
    if bytes == 0 || !bytes.is_multiple_of(width.bytes()) {
        return None;
    }
    u16::try_from(bytes / width.bytes()).ok().map(Extent::Fixed)
}
