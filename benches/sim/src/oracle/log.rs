//! What is known of one session: issued by its agent, applied and started by its device.

use std::collections::VecDeque;

use potemkin_session::{access::Vector, ids::SessionId};

use super::op::Op;
use crate::clock::Micros;

/// Vectors that the simulated device raises.
pub(crate) const VECTORS: u16 = 4;

/// An answer of the device that the guest has not seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) index: usize,
    pub(super) result: u64,
    /// DMA writes that the device had begun.
    pub(super) written: u64,
}

/// A DMA write that has not arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) generation: u64,
    pub(super) address: u64,
    pub(super) hash: u64,
}

/// An interrupt that has not arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raised {
    pub(super) at: Micros,
    pub(super) generation: u64,
    /// DMA writes that the device had begun.
    pub(super) written: u64,
}

/// How a session ended at its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Contained then.
    Contained(Micros),
    /// Its agent was killed then: there is no guest any more.
    Killed(Micros),
}

/// Why a session ended at its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A newer epoch.
    Fenced,
    /// It was without a path for too long, or its host is gone.
    Lost,
    /// Something that came on its path.
    Closed,
}

#[derive(Debug)]
pub(super) struct Log {
    pub(super) id: SessionId,
    pub(super) epoch: u64,
    /// The newest dial that the host has taken.
    pub(super) newest: u32,
    pub(super) device: usize,
    pub(super) issued: Vec<Op>,
    /// Of `issued`, how many the device has done.
    pub(super) applied: usize,
    pub(super) answers: VecDeque<Answer>,
    pub(super) ending: Option<Ending>,
    /// The host has ended it.
    pub(super) over: Option<Over>,
    /// It began after the faults.
    pub(super) in_calm: bool,

    /// What the device was told since its last access.
    pub(super) floor: u64,
    pub(super) told_floor: u64,
    pub(super) reset_since: bool,

    /// DMA writes: begun by the device; arrived or void; those in between.
    pub(super) begun: u64,
    pub(super) arrived: u64,
    pub(super) writes: VecDeque<Written>,
    pub(super) raised: [VecDeque<Raised>; VECTORS as usize],
    /// Accesses that made DMA, by sequence number, and the writes begun then.
    pub(super) effects: VecDeque<(u64, u64)>,
    pub(super) intx: bool,
    /// When it became that.
    pub(super) intx_since: Micros,
    pub(super) last_nonce: u64,
    /// For each vector the newest that was raised, and how many DMA writes had arrived when it came last.
    pub(super) last_raised: [Option<Raised>; VECTORS as usize],
    pub(super) last_came: [u64; VECTORS as usize],
    /// DMA reads that have not come to the agent: as a write would be, with the writes begun before in place of the hash.
    pub(super) asked: VecDeque<Written>,
    /// What posted writes cost: those that were issued, and those that were applied.
    pub(super) posted_issued: u64,
    pub(super) posted_applied: u64,
    /// Its agent was set back in time.
    pub(super) set_back: bool,
}

impl Log {
    pub(super) fn new(id: SessionId, epoch: u64, device: usize) -> Self {
        Self {
            id,
            epoch,
            newest: 0,
            device,
            issued: Vec::with_capacity(1024),
            applied: 0,
            answers: VecDeque::new(),
            ending: None,
            over: None,
            in_calm: false,
            floor: 0,
            told_floor: 0,
            reset_since: false,
            begun: 0,
            arrived: 0,
            writes: VecDeque::new(),
            raised: Default::default(),
            effects: VecDeque::new(),
            intx: false,
            intx_since: 0,
            last_nonce: 0,
            last_raised: Default::default(),
            last_came: Default::default(),
            asked: VecDeque::new(),
            posted_issued: 0,
            posted_applied: 0,
            set_back: false,
        }
    }

    /// DMA writes that have arrived, or need not; those may still come.
    pub(super) fn arrived_or_void(&self) -> u64 {
        let void = self
            .writes
            .iter()
            .take_while(|next| next.generation < self.floor);
        self.arrived + void.count() as u64
    }

    /// DMA writes up to this one that are void need not have come: counts them as arrived.
    pub(super) fn arrived_up_to(&mut self, written: u64) -> u64 {
        while self.arrived < written
            && self
                .writes
                .front()
                .is_some_and(|next| next.generation < self.floor)
        {
            self.writes.pop_front();
            self.arrived += 1;
        }
        self.arrived
    }
}

/// The number of a vector that the simulated device has.
pub(super) fn number(vector: Vector) -> Option<usize> {
    match vector {
        Vector::Msi(n) if n < VECTORS => Some(usize::from(n)),
        _ => None,
    }
}
