//! What the device starts: DMA, interrupts, the level of INTx.

use potemkin_session::access::{MAX_DMA_BYTES, Vector};

use super::{
    Clause, LogId, Oracle,
    log::{Raised, Written, number},
};
use crate::{clock::Micros, rng::hash};

/// DMA writes that may be under way: the window, lent room and the device's own bound.
const WRITES_MAX: usize = 600_000;

impl Oracle {
    /// The device writes the guest's memory.
    pub(crate) fn dma_begun(&mut self, id: LogId, generation: u64, address: u64, data: &[u8]) {
        let log = &mut self.logs[id.0];
        // A long one travels in pieces.
        let addresses = (address..).step_by(MAX_DMA_BYTES);
        for (piece, address) in data.chunks(MAX_DMA_BYTES).zip(addresses) {
            log.begun += 1;
            let hash = hash(piece);
            log.writes.push_back(Written {
                generation,
                address,
                hash,
            });
        }
        let waiting = log.writes.len();
        if waiting > WRITES_MAX {
            self.fail(Clause::Bounded, || {
                format!("{waiting} DMA writes are under way")
            });
        }
    }

    /// A DMA write came to the agent.
    pub(crate) fn dma_arrived(&mut self, id: LogId, generation: u64, address: u64, data: &[u8]) {
        let log = &mut self.logs[id.0];
        let floor = log.floor;
        let hash = hash(data);
        loop {
            log.arrived += 1;
            match log.writes.pop_front() {
                Some(next)
                    if (next.generation, next.address, next.hash)
                        == (generation, address, hash) =>
                {
                    return;
                }
                // Void: the host need not send it.
                Some(next) if next.generation < floor => {}
                other => {
                    return self.fail(Clause::DmaAsWritten, || {
                        format!("a DMA write of generation {generation} to {address:#x} came, the device's next is {other:x?}")
                    });
                }
            }
        }
    }

    /// The device raises an interrupt.
    pub(crate) fn raised(&mut self, id: LogId, generation: u64, vector: Vector) {
        let at = self.now;
        let log = &mut self.logs[id.0];
        let written = log.begun;
        if let Some(number) = number(vector) {
            let raised = Raised {
                at,
                generation,
                written,
            };
            log.raised[number].push_back(raised);
            log.last_raised[number] = Some(raised);
        }
    }

    /// An interrupt came to the agent.
    pub(crate) fn interrupted(&mut self, id: LogId, generation: u64, vector: Vector) {
        let storms = self.storms;
        let log = &mut self.logs[id.0];
        let floor = log.floor;
        if let Some(number) = number(vector) {
            log.last_came[number] = log.arrived_or_void();
        }
        let waiting = number(vector).map(|number| &mut log.raised[number]);
        let Some(raised) = waiting.and_then(|waiting| {
            while waiting
                .front()
                .is_some_and(|next| next.generation < floor && next.generation != generation)
            {
                waiting.pop_front();
            }
            waiting.pop_front()
        }) else {
            return self.fail(Clause::InterruptAfterDma, || {
                format!("{vector:?} came and was not raised")
            });
        };
        if raised.generation != generation && !storms {
            self.fail(Clause::InterruptAfterDma, || {
                format!(
                    "{vector:?} came with generation {generation}, and was raised in {}",
                    raised.generation
                )
            });
        }
        let arrived = self.logs[id.0].arrived_up_to(raised.written);
        if arrived < raised.written {
            self.fail(Clause::InterruptAfterDma, || {
                format!(
                    "{vector:?} came after {arrived} DMA writes, and was raised after {}",
                    raised.written
                )
            });
        }
    }

    /// The agent let DMA or an interrupt of this generation through.
    pub(crate) fn accepted(&mut self, generation: u64, floor: u64) {
        if generation < floor {
            self.fail(Clause::OldGenerationRefused, || {
                format!("generation {generation} was accepted, the oldest is {floor}")
            });
        }
    }

    /// The device sets the level of INTx.
    pub(crate) fn intx_set(&mut self, id: LogId, level: bool) {
        let now = self.now;
        let log = &mut self.logs[id.0];
        if log.intx != level {
            (log.intx, log.intx_since) = (level, now);
        }
    }

    /// Nothing is wrong since then: what the device signalled before has arrived. `intx`: as the guest sees it.
    pub(crate) fn check_signals(&mut self, id: LogId, intx: bool, before: Micros) {
        let log = &self.logs[id.0];
        let raised = log.raised.iter().filter_map(|waiting| waiting.front());
        let late = raised.filter(|raised| raised.generation >= log.floor && raised.at < before);
        let late = late.count();
        let level = log.intx != intx && log.intx_since < before;
        if late > 0 && !self.storms {
            self.fail(Clause::InterruptArrives, || {
                format!("interrupts of {late} vectors do not arrive, and there is a path")
            });
        }
        if level {
            self.fail(Clause::IntxLevel, || {
                format!("the guest sees INTx {intx}, the device drives another level, and there is a path")
            });
        }
    }

    /// The device asks for bytes of the guest's memory.
    pub(crate) fn dma_asked(&mut self, id: LogId, generation: u64, address: u64) {
        let log = &mut self.logs[id.0];
        let hash = log.begun;
        log.asked.push_back(Written {
            generation,
            address,
            hash,
        });
    }

    /// A DMA read came to the agent.
    pub(crate) fn dma_read_came(&mut self, id: LogId, generation: u64, address: u64) {
        let log = &mut self.logs[id.0];
        // Those that are void need not come.
        while let Some(asked) = log.asked.pop_front() {
            if (asked.generation, asked.address) != (generation, address) {
                continue;
            }
            let arrived = log.arrived_up_to(asked.hash);
            if arrived < asked.hash {
                self.fail(Clause::DmaReadAfterWrites, || {
                    format!("a DMA read of {address:#x} came after {arrived} DMA writes, and was asked for after {}", asked.hash)
                });
            }
            return;
        }
    }

    /// The guest is shown a level of INTx.
    pub(crate) fn intx_shown(&mut self, resetting: bool) {
        if resetting {
            self.fail(Clause::IntxOfNow, || {
                "a level of INTx is shown while a reset is not confirmed".to_owned()
            });
        }
    }

    /// The device has bytes of the guest's memory: the how-manyeth that the agent gave.
    pub(crate) fn dma_read(&mut self, id: LogId, nonce: u64, right: bool) {
        let last = std::mem::replace(&mut self.logs[id.0].last_nonce, nonce);
        if nonce <= last || !right {
            self.fail(Clause::DmaReadOnce, || {
                format!("a DMA read gave answer {nonce} after answer {last}, with the right bytes: {right}")
            });
        }
    }

    /// At rest: what the device started has arrived.
    pub(crate) fn check_arrived(&mut self, id: LogId, intx: bool) {
        let storms = self.storms;
        let log = &self.logs[id.0];
        let floor = log.floor;
        let writes = log
            .writes
            .iter()
            .filter(|write| write.generation >= floor)
            .count();
        let vectors = log
            .raised
            .iter()
            .flatten()
            .filter(|raised| raised.generation >= floor)
            .count();
        let level = log.intx;
        let early = (0..log.last_came.len()).find(|n| {
            log.last_raised[*n]
                .is_some_and(|last| last.generation >= floor && log.last_came[*n] < last.written)
        });
        if let Some(number) = early {
            self.fail(Clause::InterruptAfterDma, || {
                format!("vector {number} did not come again after the DMA writes before it was raised last")
            });
        }
        if writes > 0 {
            self.fail(Clause::Settles, || {
                format!("at rest {writes} DMA writes have not arrived")
            });
        }
        if vectors > 0 && !storms {
            self.fail(Clause::InterruptArrives, || {
                format!("at rest {vectors} interrupts have not arrived")
            });
        }
        if level != intx {
            self.fail(Clause::IntxLevel, || {
                format!("at rest the guest sees INTx {intx}, the device drives {level}")
            });
        }
    }
}
