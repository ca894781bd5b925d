//! What goes to the agent, in one order: answers, DMA and interrupts, as far as the agent has room for them.
//!
//! Nothing overtakes: what has no room yet holds up all that was queued behind it, answers too, because a guest that was told
//! "done" must find the data, and acknowledgements, because they are answers to posted writes. How long that may take is bounded by what a
//! device may have waiting ([`Outbound::backlog`]).

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    ITEM_BYTES,
    crowd::{Crowds, Place},
};
use crate::{
    access::{MAX_DMA_BYTES, ReverseItem, Vector},
    credit::{Allowance, DMA_READ_WINDOW, MESSAGE_WINDOW, cost},
};

#[derive(Debug)]
pub(super) struct Outbound {
    waiting: VecDeque<Waiting>,
    /// Bytes of the DMA writes among them.
    waiting_bytes: usize,
    dma_write: Allowance,
    /// Cost of the DMA reads that are sent and not answered.
    reading: u64,
    /// Interrupts among `waiting`.
    waiting_interrupts: usize,
    /// Sequence numbers of the interrupts that the agent has not acknowledged.
    unacknowledged: VecDeque<u64>,
    crowds: Crowds,
    intx: Intx,
    /// Older DMA and interrupts are not sent.
    floor: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Forward items that were applied when it was queued: no more may be acknowledged before it.
    applied: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Item(ReverseItem),
    /// Interrupts for which there was no room, and the level of INTx if that changed.
    Crowd(Place),
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
            crowds: Crowds::default(),
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

    /// How many forward items may be acknowledged, of `applied`: what they caused goes before that.
    pub(super) fn acknowledgeable(&self, applied: u64) -> u64 {
        self.waiting
            .front()
            .map_or(applied, |oldest| oldest.applied)
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

    /// Queues an answer or a DMA read. `applied`: forward items done before; so for all that is queued.
    pub(super) fn push(&mut self, applied: u64, item: ReverseItem) {
        let what = What::Item(item);
        self.waiting.push_back(Waiting { applied, what });
    }

    /// Splits a DMA write into items.
    pub(super) fn dma_write(
        &mut self,
        applied: u64,
        generation: u64,
        mut address: u64,
        mut data: Bytes,
    ) {
        if generation < self.floor {
            return;
        }
        self.waiting_bytes += data.len();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DMA_BYTES));
            let next = address.wrapping_add(piece.len() as u64);
            let item = ReverseItem::DmaWrite {
                generation,
                address,
                data: piece,
            };
            self.push(applied, item);
            address = next;
        }
    }

    pub(super) fn raise(&mut self, applied: u64, generation: u64, vector: Vector) {
        if generation < self.floor {
            return;
        }
        if let Some(place) = self.crowded(applied) {
            return self.crowds.raise(place, vector, generation);
        }
        self.waiting_interrupts += 1;
        self.push(applied, ReverseItem::Msi { generation, vector });
    }

    pub(super) fn set_intx(&mut self, applied: u64, level: bool) {
        self.intx.level = level;
        if self.intx.queued == level || self.crowded(applied).is_some() {
            return;
        }
        self.intx.queued = level;
        self.waiting_interrupts += 1;
        self.push(applied, ReverseItem::Intx(level));
    }

    /// Where an interrupt waits with others, if there is no room for it by itself.
    fn crowded(&mut self, applied: u64) -> Option<Place> {
        if let Some(last) = self.waiting.back()
            && let What::Crowd(place) = last.what
        {
            return Some(place);
        }
        if self.waiting_interrupts + self.unacknowledged.len() < MESSAGE_WINDOW as usize {
            return None;
        }
        let place = self.crowds.place();
        let what = What::Crowd(place);
        self.waiting.push_back(Waiting { applied, what });
        Some(place)
    }

    /// Forgets what began in an older generation, and gives the ids of the reads among that.
    pub(super) fn raise_floor(&mut self, floor: u64) -> Vec<u64> {
        self.floor = floor;
        self.crowds.raise_floor(floor);
        let mut reads = Vec::new();
        let mut bytes = 0;
        let mut interrupts = 0;
        self.waiting.retain(|waiting| match &waiting.what {
            What::Item(ReverseItem::DmaWrite {
                generation, data, ..
            }) if *generation < floor => {
                bytes += data.len();
                false
            }
            What::Item(ReverseItem::DmaRead { generation, id, .. }) if *generation < floor => {
                reads.push(*id);
                false
            }
            What::Item(ReverseItem::Msi { generation, .. }) if *generation < floor => {
                interrupts += 1;
                false
            }
            _ => true,
        });
        self.waiting_bytes -= bytes;
        self.waiting_interrupts -= interrupts;
        reads
    }

    /// Whether an item may go, and how much data it holds: then it is to be taken by [`Outbound::take`].
    pub(super) fn ready(&mut self) -> Option<usize> {
        loop {
            let room = self.unacknowledged.len() < MESSAGE_WINDOW as usize;
            let item = match &self.waiting.front()?.what {
                What::Crowd(place) if self.is_over(*place) => {
                    self.waiting.pop_front();
                    continue;
                }
                What::Crowd(_) => return room.then_some(0),
                What::Item(item) => item,
            };
            let (may_go, data) = match item {
                ReverseItem::Completion { data, .. } => (true, data.len()),
                ReverseItem::DmaWrite { data, .. } => {
                    (self.dma_write.fits(cost(data.len())), data.len())
                }
                ReverseItem::DmaRead { length, .. } => {
                    (self.reading + cost(*length) <= DMA_READ_WINDOW, 0)
                }
                ReverseItem::Msi { .. } | ReverseItem::Intx(_) => (room, 0),
            };
            return may_go.then_some(data);
        }
    }

    /// All of a crowd has gone.
    fn is_over(&self, place: Place) -> bool {
        self.crowds.is_empty(place) && self.intx.queued == self.intx.level
    }

    /// The item that [`Outbound::ready`] spoke of, which gets this sequence number.
    pub(super) fn take(&mut self, sequence: u64) -> Option<ReverseItem> {
        let item = match &self.waiting.front()?.what {
            What::Crowd(place) => {
                let place = *place;
                self.take_crowded(place)
            }
            What::Item(_) => self.take_item()?,
        };
        if let ReverseItem::Msi { .. } | ReverseItem::Intx(_) = item {
            self.unacknowledged.push_back(sequence);
        }
        Some(item)
    }

    fn take_crowded(&mut self, place: Place) -> ReverseItem {
        match self.crowds.take(place) {
            Some((vector, generation)) => ReverseItem::Msi { generation, vector },
            None => {
                self.intx.queued = self.intx.level;
                ReverseItem::Intx(self.intx.level)
            }
        }
    }

    fn take_item(&mut self) -> Option<ReverseItem> {
        let What::Item(item) = self.waiting.pop_front()?.what else {
            return None;
        };
        match &item {
            ReverseItem::DmaWrite { data, .. } => {
                self.waiting_bytes -= data.len();
                let taken = self.dma_write.take(cost(data.len()));
                debug_assert!(taken, "it was ready");
            }
            ReverseItem::DmaRead { length, .. } => self.reading += cost(*length),
            ReverseItem::Msi { .. } | ReverseItem::Intx(_) => self.waiting_interrupts -= 1,
            ReverseItem::Completion { .. } => {}
        }
        Some(item)
    }
}
