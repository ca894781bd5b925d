//! What the front half keeps of DMA and interrupts: what is owed to the host, and the bounds on what the device starts.

use crate::{
    access::{DmaError, ReverseItem},
    credit::{DMA_READ_WINDOW, DMA_WRITE_LENT_MAX, DMA_WRITE_WINDOW, Grant, MESSAGE_WINDOW, cost},
    violation::Violation,
};

/// What has to go before the next access, as soon as there is credit. Several of a kind are one.
#[derive(Debug, Default, Clone)]
pub(super) struct Due {
    pub(super) reset: bool,
    pub(super) bus_master_off: bool,
    pub(super) unmapped: bool,
    /// The first DMA write that failed, of those not reported.
    pub(super) failed_write: Option<(u64, DmaError)>,
}

impl Due {
    /// What the host must hear of soon, whether or not an access follows.
    pub(super) fn is_urgent(&self) -> bool {
        self.reset || self.bus_master_off || self.failed_write.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_urgent() && !self.unmapped
    }
}

/// What the device started itself.
#[derive(Debug, Clone)]
pub(super) struct Dma {
    pub(super) generation: u64,
    /// What began in an older generation is void everywhere, and its failure no news.
    pub(super) floor: u64,
    pub(super) writes: Grant,
    pub(super) told_limit: u64,
    /// Reads that are not answered.
    pub(super) reads: Grant,
    /// Interrupts since the last acknowledgement was sent.
    pub(super) interrupts: u32,
    /// Something came that the host keeps until it is acknowledged.
    pub(super) acknowledge: bool,
}

impl Dma {
    pub(super) fn new() -> Self {
        Self {
            generation: 0,
            floor: 0,
            writes: Grant::new(DMA_WRITE_WINDOW),
            told_limit: DMA_WRITE_WINDOW,
            reads: Grant::new(DMA_READ_WINDOW),
            interrupts: 0,
            acknowledge: false,
        }
    }

    /// Something waits to be acknowledged, which must not wait behind DMA writes that have no room here.
    pub(super) fn lend(&mut self) {
        self.writes.lend(DMA_WRITE_LENT_MAX);
    }

    /// The host may wait for an acknowledgement, or for credit.
    pub(super) fn has_news(&self) -> bool {
        self.acknowledge || self.writes.limit() - self.told_limit >= DMA_WRITE_WINDOW / 4
    }

    /// All news goes with a header.
    pub(super) fn told(&mut self) {
        self.told_limit = self.writes.limit();
        self.interrupts = 0;
        self.acknowledge = false;
    }

    /// Checks what came against its bounds.
    pub(super) fn receive(&mut self, item: &ReverseItem) -> Result<(), Violation> {
        if let Some(found) = item.generation().filter(|found| *found > self.generation) {
            let newest = self.generation;
            return Err(Violation::Generation { found, newest });
        }
        let (class, grant, cost) = match item {
            ReverseItem::Completion { .. } => return Ok(()),
            ReverseItem::DmaWrite { data, .. } => ("dma_write", &mut self.writes, cost(data.len())),
            ReverseItem::DmaRead { length, .. } => ("dma_read", &mut self.reads, cost(*length)),
            ReverseItem::Msi { .. } | ReverseItem::Intx(_) => return self.interrupt(),
        };
        let limit = grant.limit();
        grant
            .receive(cost)
            .map_err(|used| Violation::Credit { class, used, limit })?;
        self.acknowledge = true;
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), Violation> {
        self.acknowledge = true;
        self.interrupts += 1;
        if self.interrupts > MESSAGE_WINDOW {
            return Err(Violation::Credit {
                class: "interrupts",
                used: self.interrupts.into(),
                limit: MESSAGE_WINDOW.into(),
            });
        }
        Ok(())
    }
}
