//! The device's side of the guest as a value, for a process that hands the function over to another.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use potemkin_session::{
    access::MAX_DMA_BYTES,
    front::{DmaRead, DmaWrite},
};
use serde::{Deserialize, Serialize};

use super::{DmaCounters, Kind, MessageDma};
use crate::device::FrontDevice;

/// What concerns DMA and interrupts, but for the windows themselves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs)] // The fields of `Dma`.
pub struct SavedSide {
    pub generation: u64,
    pub floor: u64,
    /// Since which generation the window at an address has been mapped.
    pub since: Vec<(u64, u64)>,
    pub raised: bool,
    pub shown: bool,
    pub stale: bool,
    pub after: u64,
    pub msi_stale: bool,
    #[serde(default)]
    pub logged: bool,
    #[serde(default)]
    pub counters: DmaCounters,
}

/// DMA that waits to be carried out by the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SavedTransfer {
    /// The device writes guest memory.
    Write(DmaWrite),
    /// The device reads guest memory.
    Read(DmaRead),
}

impl FrontDevice {
    /// As it is now: the session stands still.
    pub(crate) fn save_side(&self) -> SavedSide {
        let (gate, intx) = (self.dma.gate(), &self.dma.intx);
        SavedSide {
            generation: self.dma.generation.load(Ordering::Relaxed),
            floor: gate.floor,
            since: gate.since().collect(),
            raised: intx.raised.load(Ordering::Relaxed),
            shown: intx.shown.load(Ordering::Relaxed),
            stale: intx.stale.load(Ordering::Acquire),
            after: intx.after.load(Ordering::Relaxed),
            msi_stale: self.dma.msi_stale.load(Ordering::Acquire),
            logged: self.dma.logged.load(Ordering::Relaxed),
            counters: self.dma_counters(),
        }
    }

    /// As it was saved, without windows.
    pub(crate) fn restore_side(&self, saved: &SavedSide) {
        self.dma.gate().floor = saved.floor;
        let (dma, intx) = (&self.dma, &self.dma.intx);
        dma.generation.store(saved.generation, Ordering::Relaxed);
        intx.raised.store(saved.raised, Ordering::Relaxed);
        intx.shown.store(saved.shown, Ordering::Relaxed);
        intx.stale.store(saved.stale, Ordering::Release);
        intx.after.store(saved.after, Ordering::Relaxed);
        dma.msi_stale.store(saved.msi_stale, Ordering::Release);
        dma.logged.store(saved.logged, Ordering::Relaxed);
        let put = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        let (counters, was) = (&dma.counters, saved.counters);
        put(&counters.written, was.bytes_written);
        put(&counters.read, was.bytes_read);
        put(&counters.refused, was.refused);
        put(&counters.interrupts, was.interrupts);
        put(&counters.interrupts_dropped, was.interrupts_dropped);
    }

    /// Once the windows are mapped again: since when they were, so that transfers that began before are taken for what they are.
    pub fn restore_windows(&self, saved: &SavedSide) {
        let mut gate = self.dma.gate();
        for &(address, since) in &saved.since {
            // No window can be younger than the generation.
            if !gate.set_since(address, since.min(saved.generation)) {
                tracing::warn!(
                    address = format_args!("{address:#x}"),
                    "a window of guest memory was not handed over"
                );
            }
        }
    }

    /// A transfer that another process had not carried out; none when it is too long to be one.
    pub fn restore_transfer(self: &Arc<Self>, saved: SavedTransfer) -> Option<MessageDma> {
        let kind = match saved {
            SavedTransfer::Write(write) => Kind::Write(write),
            SavedTransfer::Read(read) => Kind::Read(read),
        };
        let length = match &kind {
            Kind::Write(write) => write.data.len(),
            Kind::Read(read) => read.length,
        };
        if !(1..=MAX_DMA_BYTES).contains(&length) {
            return None;
        }
        let mut dma = MessageDma::new(self, &self.session(), kind);
        dma.with_bus = true;
        self.dma.with_bus.fetch_add(1, Ordering::Relaxed);
        Some(dma)
    }
}

impl MessageDma {
    /// What is left to do, for another process; none if the session that it came on is over.
    pub fn save(&self) -> Option<SavedTransfer> {
        if self.session.path().session != self.device.session().path().session {
            return None;
        }
        Some(match self.kind.as_ref()? {
            Kind::Write(write) => SavedTransfer::Write(write.clone()),
            Kind::Read(read) => SavedTransfer::Read(*read),
        })
    }
}
