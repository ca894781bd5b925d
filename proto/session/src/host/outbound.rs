//! What goes to the agent, in one order: answers, DMA and interrupts, as far as the agent has room for them.
//!
//! Nothing overtakes: what has no credit yet holds up all that was queued behind it, answers too, because a guest that was told
//! "done" must find the data. How long that may take is bounded by what a device may have waiting ([`Outbound::backlog`]).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::ITEM_BYTES;
use crate::{
    access::{MAX_DMA_BYTES, ReverseItem, Vector},
    credit::{Allowance, DMA_READ_WINDOW, MESSAGE_WINDOW, cost},
};

#[derive(Debug)]
pub(super) struct Outbound {
    waiting: VecDeque<ReverseItem>,
    /// Bytes of the DMA writes among them.
    waiting_bytes: usize,
    dma_write: Allowance,
    /// Cost of the DMA reads that are sent and not answered.
    reading: u64,
    /// Interrupts among `waiting`.
    waiting_interrupts: u32,
    /// Sequence numbers of the interrupts that the agent has not acknowledged.
    unacknowledged: VecDeque<u64>,
    /// Interrupts for which there was no room, each with the newest generation in which it was raised: raised once when there is.
    coalesced: BTreeMap<Vector, u64>,
    intx: Intx,
    /// Older DMA and interrupts are not sent.
    floor: u64,
}

#[derive(Debug, Default)]
struct Intx {
    /// As the device has it.
    level: bool,
    /// As it is after all that is queued.
    queued: bool,
}

impl Outbound {
    pub(super) fn new(dma_write_limit: u64) -> Self {
        let mut dma_write = Allowance::default();
        dma_write.raise(dma_write_limit);
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            dma_write,
            reading: 0,
            waiting_interrupts: 0,
            unacknowledged: VecDeque::new(),
            coalesced: BTreeMap::new(),
            intx: Intx::default(),
            floor: 0,
        }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What waits to be sent, in bytes: the data of DMA writes, and [`ITEM_BYTES`] for each item.
    pub(super) fn backlog(&self) -> usize {
        self.waiting_bytes + ITEM_BYTES * self.waiting.len()
    }

    pub(super) fn raise_dma_write_limit(&mut self, limit: u64) {
        self.dma_write.raise(limit);
    }

    /// The agent has taken everything up to this sequence number.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        while self
            .unacknowledged
            .front()
            .is_some_and(|oldest| *oldest <= sequence)
        {
            self.unacknowledged.pop_front();
        }
    }

    /// A DMA read of this many bytes was answered.
    pub(super) fn answered(&mut self, length: usize) {
        self.reading -= cost(length);
    }

    pub(super) fn completion(&mut self, item: ReverseItem) {
        self.waiting.push_back(item);
    }

    /// Splits a DMA write into items.
    pub(super) fn dma_write(&mut self, generation: u64, mut address: u64, mut data: Bytes) {
        if generation < self.floor {
            return;
        }
        self.waiting_bytes += data.len();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DMA_BYTES));
            let next = address.wrapping_add(piece.len() as u64);
            self.waiting.push_back(ReverseItem::DmaWrite {
                generation,
                address,
                data: piece,
            });
            address = next;
        }
    }

    pub(super) fn dma_read(&mut self, item: ReverseItem) {
        self.waiting.push_back(item);
    }

    pub(super) fn raise(&mut self, generation: u64, vector: Vector) {
        if generation < self.floor {
            return;
        }
        if self.is_crowded() {
            let newest = self.coalesced.entry(vector).or_default();
            *newest = generation.max(*newest);
            return;
        }
        self.waiting_interrupts += 1;
        self.waiting
            .push_back(ReverseItem::Msi { generation, vector });
    }

    pub(super) fn set_intx(&mut self, level: bool) {
        self.intx.level = level;
        if !self.is_crowded() {
            self.queue_intx();
        }
    }

    fn queue_intx(&mut self) {
        if self.intx.queued != self.intx.level {
            self.intx.queued = self.intx.level;
            self.waiting_interrupts += 1;
            self.waiting.push_back(ReverseItem::Intx(self.intx.level));
        }
    }

    /// No room for another interrupt, or some wait for room already.
    fn is_crowded(&self) -> bool {
        let unacknowledged = u32::try_from(self.unacknowledged.len()).unwrap_or(u32::MAX);
        !self.coalesced.is_empty()
            || self.waiting_interrupts.saturating_add(unacknowledged) >= MESSAGE_WINDOW
    }

    /// Forgets what began in an older generation, and gives the ids of the reads among that.
    pub(super) fn raise_floor(&mut self, floor: u64) -> Vec<u64> {
        self.floor = floor;
        self.coalesced.retain(|_, generation| *generation >= floor);
        let mut reads = Vec::new();
        let mut bytes = 0;
        let mut interrupts = 0;
        self.waiting.retain(|item| match item {
            ReverseItem::DmaWrite {
                generation, data, ..
            } if *generation < floor => {
                bytes += data.len();
                false
            }
            ReverseItem::DmaRead { generation, id, .. } if *generation < floor => {
                reads.push(*id);
                false
            }
            ReverseItem::Msi { generation, .. } if *generation < floor => {
                interrupts += 1;
                false
            }
            _ => true,
        });
        self.waiting_bytes -= bytes;
        self.waiting_interrupts -= interrupts;
        reads
    }

    /// The next item that may go, with the sequence number that it gets.
    pub(super) fn next(&mut self, sequence: u64) -> Option<ReverseItem> {
        if self.waiting.is_empty() {
            self.relieve();
        }
        let may_go = match self.waiting.front()? {
            ReverseItem::DmaWrite { data, .. } => self.dma_write.take(cost(data.len())),
            ReverseItem::DmaRead { length, .. } => self.take_read(cost(*length)),
            _ => true,
        };
        if !may_go {
            return None;
        }
        let item = self.waiting.pop_front()?;
        match &item {
            ReverseItem::DmaWrite { data, .. } => self.waiting_bytes -= data.len(),
            ReverseItem::Msi { .. } | ReverseItem::Intx(_) => {
                self.waiting_interrupts -= 1;
                self.unacknowledged.push_back(sequence);
            }
            _ => {}
        }
        Some(item)
    }

    fn take_read(&mut self, cost: u64) -> bool {
        let fits = self.reading + cost <= DMA_READ_WINDOW;
        if fits {
            self.reading += cost;
        }
        fits
    }

    /// Nothing waits before the coalesced interrupts any more.
    fn relieve(&mut self) {
        let room = u32::try_from(self.unacknowledged.len()).unwrap_or(u32::MAX) < MESSAGE_WINDOW;
        if !room {
            return;
        }
        if let Some((vector, generation)) = self.coalesced.pop_first() {
            self.waiting_interrupts += 1;
            self.waiting
                .push_back(ReverseItem::Msi { generation, vector });
        } else {
            self.queue_intx();
        }
    }
}
