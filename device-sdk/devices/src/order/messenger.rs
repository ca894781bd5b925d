//! The messenger: writes a block to guest memory, then fires a vector, round after round, as far ahead of the guest as its ring has slots.

use potemkin_sdk::{BusError, BusMaster};

use super::registers::MessengerReg;

const SLOTS_MAX: u32 = 4096;
const BLOCK_BYTES_MAX: u32 = 4096;

const COMMAND_START: u64 = 1;
const STATE_RUNNING: u64 = 1;
const STATE_FAILED: u64 = 2;

#[derive(Debug, Default)]
pub(super) struct Messenger {
    base: u64,
    stride: u32,
    slots: u32,
    block_bytes: u32,
    vectors: u32,
    rounds: u64,
    /// Taken by the guest.
    taken: u64,
    done: u64,
    /// While it runs.
    bus: Option<BusMaster>,
    failed: bool,
    /// It ended and nobody was told.
    ended: bool,
}

impl Messenger {
    pub(super) fn read(&self, reg: MessengerReg) -> u64 {
        match reg {
            MessengerReg::Base => self.base,
            MessengerReg::Stride => self.stride.into(),
            MessengerReg::Slots => self.slots.into(),
            MessengerReg::BlockBytes => self.block_bytes.into(),
            MessengerReg::Vectors => self.vectors.into(),
            MessengerReg::Rounds => self.rounds,
            MessengerReg::Taken => self.taken,
            MessengerReg::Done => self.done,
            MessengerReg::Command => {
                let running = if self.bus.is_some() { STATE_RUNNING } else { 0 };
                running | if self.failed { STATE_FAILED } else { 0 }
            }
        }
    }

    /// While it runs, only what the guest has taken and the command are changed. `bus` gives the right to act on the guest, for a run that
    /// begins now.
    pub(super) fn write(
        &mut self,
        reg: MessengerReg,
        value: u64,
        bus: impl FnOnce() -> Option<BusMaster>,
    ) {
        match reg {
            MessengerReg::Taken => {
                self.taken = value;
                self.go_on();
            }
            MessengerReg::Command if value & COMMAND_START == 0 => self.bus = None,
            _ if self.bus.is_some() => {}
            MessengerReg::Command => self.start(bus()),
            MessengerReg::Base => self.base = value,
            MessengerReg::Rounds => self.rounds = value,
            MessengerReg::Done => {}
            _ => self.set_small(reg, u32::try_from(value).unwrap_or(u32::MAX)),
        }
    }

    /// As many rounds as the guest and the bus have room for. One call is bounded by the ring.
    pub(super) fn go_on(&mut self) {
        let Some(bus) = self.bus.clone() else { return };
        for _ in 0..self.slots {
            if self.done == self.rounds || self.done.wrapping_sub(self.taken) >= self.slots.into() {
                break;
            }
            match self.round(&bus) {
                Ok(()) => self.done += 1,
                // It is called again when there is room.
                Err(BusError::Full) => return,
                Err(_) => return self.fail(),
            }
        }
        if self.done == self.rounds {
            self.bus = None;
            self.ended = true;
        }
    }

    /// Ends a run that cannot go on.
    pub(super) fn fail(&mut self) {
        if self.bus.take().is_some() {
            self.failed = true;
            self.ended = true;
        }
    }

    /// Whether it ended since this was asked before.
    pub(super) fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    fn set_small(&mut self, reg: MessengerReg, value: u32) {
        match reg {
            MessengerReg::Stride => self.stride = value,
            MessengerReg::Slots => self.slots = value,
            MessengerReg::BlockBytes => self.block_bytes = value,
            MessengerReg::Vectors => self.vectors = value,
            _ => {}
        }
    }

    fn start(&mut self, bus: Option<BusMaster>) {
        (self.done, self.taken, self.failed) = (0, 0, false);
        let block = self.block_bytes;
        let sound = (1..=SLOTS_MAX).contains(&self.slots)
            && (8..=BLOCK_BYTES_MAX).contains(&block)
            && block.is_multiple_of(8)
            && (1..=u32::from(u16::MAX) + 1).contains(&self.vectors);
        self.bus = bus.filter(|_| sound);
        if self.bus.is_none() {
            (self.failed, self.ended) = (true, true);
        }
        self.go_on();
    }

    fn round(&self, bus: &BusMaster) -> Result<(), BusError> {
        let slot = self.done % u64::from(self.slots);
        let address = self.base.wrapping_add(slot * u64::from(self.stride));
        let vector = u16::try_from(self.done % u64::from(self.vectors));
        let vector = vector.map_err(|_| BusError::Vector)?;
        bus.write(address, block(self.done, self.block_bytes))?;
        bus.msix(vector)
    }
}

fn block(round: u64, bytes: u32) -> Vec<u8> {
    let words = (0..u64::from(bytes / 8)).map(|k| round.wrapping_add(k << 48));
    words.flat_map(u64::to_le_bytes).collect()
}
