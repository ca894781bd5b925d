//! What goes to the agent, in one order: answers, DMA and interrupts, as far as the agent has room for them.
//!
//! Nothing overtakes: what has no room yet holds up all that was queued behind it, answers too, because a guest that was told
//! "done" must find the data, and acknowledgements, because they are answers to posted writes. How long that may take is bounded by what a
//! device may have waiting ([`Outbound::backlog`]).
//!
//! Only DMA reads for which there is no room hold up nothing but later DMA reads: a read changes nothing that the guest could see too early
//! (PCI lets everything pass a non-posted request; PCI Express 4.0 section 2.4.1). They overtake nothing either.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    ITEM_BYTES,
    crowd::{Crowds, Place, Signal},
    reads::Piece,
};
use crate::{
    access::{MAX_DMA_BYTES, ReverseItem, Vector},
    credit::{Allowance, DMA_READ_WINDOW, MESSAGE_WINDOW, cost},
    planted::{self, Bug},
};

#[derive(Debug)]
pub(super) struct Outbound {
    waiting: VecDeque<Waiting>,
    /// How many have left `waiting` so far.
    left: u64,
    /// Bytes of the DMA writes among them.
    waiting_bytes: usize,
    /// DMA reads that are not sent.
    reads: VecDeque<WaitingRead>,
    dma_write: Allowance,
    /// Cost of the DMA reads that are sent and not answered.
    reading: u64,
    /// Interrupts among `waiting`.
    waiting_interrupts: usize,
    /// Sequence numbers of the interrupts that the agent has not acknowledged.
    unacknowledged: VecDeque<u64>,
    crowds: Crowds,
    /// The level of INTx after all that is queued.
    intx: bool,
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
struct WaitingRead {
    /// How many have to leave `waiting` before it: what was queued earlier.
    behind: u64,
    piece: Piece,
}

#[derive(Debug)]
enum What {
    Item(ReverseItem),
    /// Interrupts for which there was no room.
    Crowd(Place),
    /// It is void.
    Nothing,
}

impl What {
    fn is_completion(&self) -> bool {
        matches!(self, Self::Item(ReverseItem::Completion { .. }))
    }
}

impl Outbound {
    pub(super) fn new(dma_write_limit: u64) -> Self {
        let mut dma_write = Allowance::default();
        dma_write.raise(dma_write_limit);
        Self {
            waiting: VecDeque::new(),
            left: 0,
            waiting_bytes: 0,
            reads: VecDeque::new(),
            dma_write,
            reading: 0,
            waiting_interrupts: 0,
            unacknowledged: VecDeque::new(),
            crowds: Crowds::default(),
            intx: false,
            floor: 0,
        }
    }

    /// Nothing waits that an answer would have to wait for.
    pub(super) fn is_clear(&self) -> bool {
        self.waiting.is_empty() && !self.read_may_go()
    }

    /// What waits to be sent, in bytes: the data of DMA writes, and [`ITEM_BYTES`] for each item.
    pub(super) fn backlog(&self) -> usize {
        self.waiting_bytes + ITEM_BYTES * (self.waiting.len() + self.reads.len())
    }

    /// How many forward items may be acknowledged, of `applied`: what they caused goes before that.
    pub(super) fn acknowledgeable(&self, applied: u64) -> u64 {
        let holds_up = |waiting: &&Waiting| {
            !planted::is(Bug::AcknowledgeBeforeDma) || waiting.what.is_completion()
        };
        let oldest = self.waiting.iter().find(holds_up);
        oldest.map_or(applied, |oldest| oldest.applied)
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

    /// Queues an answer. `applied`: forward items done before; so for all that is queued.
    pub(super) fn push(&mut self, applied: u64, item: ReverseItem) {
        let what = What::Item(item);
        self.waiting.push_back(Waiting { applied, what });
    }

    /// Planted: queues an item before all others.
    fn push_first(&mut self, applied: u64, item: ReverseItem) {
        let applied = self.acknowledgeable(applied);
        let what = What::Item(item);
        self.waiting.push_front(Waiting { applied, what });
    }

    /// Planted: a level that is not sent.
    pub(super) fn note_intx(&mut self, level: bool) {
        self.intx = level;
    }

    /// Queues a piece of a DMA read.
    pub(super) fn dma_read(&mut self, piece: Piece) {
        let behind = self.left + self.waiting.len() as u64;
        self.reads.push_back(WaitingRead { behind, piece });
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
        let item = ReverseItem::Msi { generation, vector };
        if planted::is(Bug::InterruptBeforeDma) {
            return self.push_first(applied, item);
        }
        self.push(applied, item);
    }

    pub(super) fn set_intx(&mut self, applied: u64, level: bool) {
        if self.intx == level {
            return;
        }
        self.intx = level;
        if let Some(place) = self.crowded(applied) {
            return self.crowds.set_intx(place, level);
        }
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
        let mut bytes = 0;
        let mut interrupts = 0;
        // None leaves its place, so that what counts the places stays right.
        for waiting in &mut self.waiting {
            match &waiting.what {
                What::Item(ReverseItem::DmaWrite {
                    generation, data, ..
                }) if *generation < floor => bytes += data.len(),
                What::Item(ReverseItem::Msi { generation, .. }) if *generation < floor => {
                    interrupts += 1;
                }
                _ => continue,
            }
            waiting.what = What::Nothing;
        }
        self.waiting_bytes -= bytes;
        self.waiting_interrupts -= interrupts;
        let void = |read: &WaitingRead| read.piece.generation < floor;
        let ids = self.reads.iter().filter(|read| void(read));
        let ids = ids.map(|read| read.piece.id).collect();
        self.reads.retain(|read| !void(read));
        ids
    }

    /// Whether an item may go, and how much data it holds: then it is to be taken by [`Outbound::take`].
    pub(super) fn ready(&mut self) -> Option<usize> {
        self.skip_void();
        if self.read_may_go() {
            return Some(0);
        }
        let room = self.unacknowledged.len() < MESSAGE_WINDOW as usize;
        let (may_go, data) = match &self.waiting.front()?.what {
            What::Item(ReverseItem::Completion { data, .. }) => (true, data.len()),
            What::Item(ReverseItem::DmaWrite { data, .. }) => {
                (self.dma_write.fits(cost(data.len())), data.len())
            }
            What::Crowd(_) | What::Item(_) => (room, 0),
            What::Nothing => (false, 0),
        };
        may_go.then_some(data)
    }

    /// Whether the oldest DMA read may go: all that was queued before has gone, and there is room for the answer.
    fn read_may_go(&self) -> bool {
        self.reads.front().is_some_and(|read| {
            let first = read.behind <= self.left || planted::is(Bug::DmaReadBeforeWrites);
            first && self.reading + cost(read.piece.length) <= DMA_READ_WINDOW
        })
    }

    fn skip_void(&mut self) {
        while let Some(oldest) = self.waiting.front() {
            let over = match oldest.what {
                What::Crowd(place) => self.crowds.is_empty(place),
                What::Nothing => true,
                What::Item(_) => false,
            };
            if !over {
                return;
            }
            self.leave();
        }
    }

    fn leave(&mut self) -> Option<What> {
        self.left += 1;
        Some(self.waiting.pop_front()?.what)
    }

    /// The item that [`Outbound::ready`] spoke of, which gets this sequence number.
    pub(super) fn take(&mut self, sequence: u64) -> Option<ReverseItem> {
        if self.read_may_go() {
            let read = self.reads.pop_front()?;
            self.reading += cost(read.piece.length);
            return Some(read.piece.into());
        }
        let item = match &self.waiting.front()?.what {
            What::Crowd(place) => match self.crowds.take(*place)? {
                Signal::Vector { vector, generation } => ReverseItem::Msi { generation, vector },
                Signal::Intx(level) => ReverseItem::Intx(level),
            },
            _ => self.take_item()?,
        };
        if let ReverseItem::Msi { .. } | ReverseItem::Intx(_) = item {
            self.unacknowledged.push_back(sequence);
        }
        Some(item)
    }

    fn take_item(&mut self) -> Option<ReverseItem> {
        let What::Item(item) = self.leave()? else {
            return None;
        };
        match &item {
            ReverseItem::DmaWrite { data, .. } => {
                self.waiting_bytes -= data.len();
                let taken = self.dma_write.take(cost(data.len()));
                debug_assert!(taken, "it was ready");
            }
            ReverseItem::Msi { .. } | ReverseItem::Intx(_) => self.waiting_interrupts -= 1,
            ReverseItem::DmaRead { .. } | ReverseItem::Completion { .. } => {}
        }
        Some(item)
    }
}
