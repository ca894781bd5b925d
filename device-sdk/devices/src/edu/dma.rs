//! The DMA engine's registers.
//!
//! The engine is not connected to guest memory yet, so a transfer ends as soon as it is started, having moved nothing: the start
//! bit always reads as 0, and the interrupt for a finished transfer is not raised. A driver that polls the start bit goes
//! on; one that waits for the interrupt is not told of a transfer that never was.

use super::registers::Reg;

/// Command: start the transfer.
const COMMAND_START: u64 = 0x1;
/// Command: from the device to memory, not the other way.
const COMMAND_TO_MEMORY: u64 = 0x2;
/// Command: raise an interrupt when the transfer is done.
const COMMAND_INTERRUPT: u64 = 0x4;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dma {
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
}

impl Dma {
    /// `None` when `reg` is none of the engine's.
    pub(super) fn read(&self, reg: Reg) -> Option<u64> {
        match reg {
            Reg::DmaSource => Some(self.source),
            Reg::DmaDestination => Some(self.destination),
            Reg::DmaCount => Some(self.count),
            Reg::DmaCommand => Some(self.command),
            _ => None,
        }
    }

    /// A write of 4 bytes is one of the whole register, with an upper half of 0. Other registers than the engine's are left alone.
    pub(super) fn write(&mut self, reg: Reg, value: u64) {
        match reg {
            Reg::DmaSource => self.source = value,
            Reg::DmaDestination => self.destination = value,
            Reg::DmaCount => self.count = value,
            Reg::DmaCommand => self.command(value),
            _ => {}
        }
    }

    fn command(&mut self, value: u64) {
        let defined = COMMAND_START | COMMAND_TO_MEMORY | COMMAND_INTERRUPT;
        self.command = value & defined & !COMMAND_START;
    }
}
