//! What a device does to its guest: out of its outbox, into its session's core, and counted.

use potemkin_sdk::hosting::{Action, Generations, Outbox};
use potemkin_session::access::{DmaError, Vector};
use potemkin_session::host::Host;

/// What went between a device and its guest's memory and interrupts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Bytes for the guest's memory, as the device gave them.
    pub(crate) written_bytes: u64,
    /// Bytes of the guest's memory that the device got.
    pub(crate) read_bytes: u64,
    pub(crate) msi: u64,
    pub(crate) msix: u64,
    /// Changes of the level.
    pub(crate) intx: u64,
    /// Reports of transfers that failed, by their place in [`REASONS`].
    pub(crate) failed: [u64; REASONS.len()],
}

/// Why a transfer failed, and the name under which it is counted.
pub(crate) const REASONS: [(DmaError, &str); 4] = [
    (DmaError::Range, "range"),
    (DmaError::Direction, "direction"),
    (DmaError::Disabled, "disabled"),
    (DmaError::Failed, "failed"),
];

impl Traffic {
    pub(crate) fn failure(&mut self, error: DmaError) {
        let known = REASONS.iter().position(|(reason, _)| *reason == error);
        if let Some(index) = known {
            self.failed[index] += 1;
        }
    }

    /// Which reasons there were, and how often.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (DmaError, u64)> {
        let reasons = REASONS.iter().map(|(reason, _)| *reason);
        reasons.zip(self.failed).filter(|(_, count)| *count > 0)
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::DmaWrite { data, .. } => self.written_bytes += data.len() as u64,
            // Counted when the bytes are there.
            Action::DmaRead { .. } => {}
            Action::Interrupt { vector, .. } => match vector {
                potemkin_sdk::Vector::Msi(_) => self.msi += 1,
                potemkin_sdk::Vector::Msix(_) => self.msix += 1,
            },
            Action::Intx(_) => self.intx += 1,
        }
    }
}

/// Hands what the device has started to the core, behind all that it answered before.
pub(crate) fn pass_on(core: &mut Host, outbox: &mut Outbox, traffic: &mut Traffic) {
    let actions = outbox.take();
    if actions.is_empty() {
        return;
    }
    for action in actions {
        traffic.action(&action);
        start(core, action);
    }
    outbox.set_under_way(core.dma_backlog());
}

/// The core's generations, for the device's side.
pub(crate) fn generations(core: &Host) -> Generations {
    let generations = core.generations();
    Generations {
        newest: generations.newest,
        floor: generations.floor,
    }
}

/// The core's error, for the device.
pub(crate) fn told(error: DmaError) -> potemkin_sdk::DmaError {
    match error {
        DmaError::Range => potemkin_sdk::DmaError::Range,
        DmaError::Direction => potemkin_sdk::DmaError::Direction,
        DmaError::Disabled => potemkin_sdk::DmaError::Disabled,
        DmaError::Failed => potemkin_sdk::DmaError::Failed,
    }
}

fn start(core: &mut Host, action: Action) {
    match action {
        Action::DmaWrite {
            generation,
            address,
            data,
        } => core.dma_write(generation, address, data),
        Action::DmaRead {
            generation,
            address,
            length,
            tag,
        } => core.dma_read(generation, address, length, tag),
        Action::Interrupt { generation, vector } => core.raise(
            generation,
            match vector {
                potemkin_sdk::Vector::Msi(n) => Vector::Msi(n),
                potemkin_sdk::Vector::Msix(n) => Vector::Msix(n),
            },
        ),
        Action::Intx(level) => core.set_intx(level),
    }
}
