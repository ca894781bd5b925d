//! One session in the place of another of the same function.

use potemkin_proto::v1::CloseCode;

use super::{Front, FrontCounters};

/// What a session leaves to the one that takes its place.
#[derive(Debug, Clone, Copy)]
pub struct Legacy {
    generation: u64,
    counters: FrontCounters,
}

impl Front {
    /// What the session that takes the place of this one goes on from.
    pub fn legacy(&self) -> Legacy {
        Legacy {
            generation: self.dma.generation,
            counters: self.counters,
        }
    }

    /// This session takes the place of another one of the same function. Its DMA generations follow those of the other, so that what began before
    /// stays void; until the next reset or revocation the host knows none of them, and all that it starts is of an older one. Counters go on.
    pub fn inherit(&mut self, legacy: Legacy) {
        let Legacy {
            generation,
            counters,
        } = legacy;
        self.dma.generation = self.dma.generation.max(generation);
        self.dma.floor = self.dma.generation;
        let own = &mut self.counters;
        own.frames_sent += counters.frames_sent;
        own.frames_received += counters.frames_received;
        own.round_trips += counters.round_trips;
        own.bytes_sent += counters.bytes_sent;
        own.bytes_received += counters.bytes_received;
    }

    /// The reason that the other side gave when it closed the session, if it did.
    pub fn closed_by(&self) -> Option<CloseCode> {
        self.closed_by
    }
}
