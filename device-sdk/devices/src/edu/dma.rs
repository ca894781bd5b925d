//! The DMA engine: one transfer at a time between guest memory and a buffer of 4,096 bytes, which lies at address 0x40000 of the device
//! and nowhere in its BAR.
//!
//! A transfer to memory is done when it was handed to the bus master; one from memory when the bytes have come. One that fails is done too,
//! having moved nothing: the start bit is cleared, and the interrupt raised if it was asked for, so that no driver waits for ever.
//! One that does not lie in the buffer is refused in the same way (QEMU logs it and goes on, or aborts, by its version).
//!
//! As in QEMU, a guest address is cut to the DMA mask, and what is written to the engine's registers during a transfer is ignored.

use potemkin_sdk::{BusError, BusMaster, DmaError};

use super::registers::Reg;

/// Command: start the transfer; reads as 1 while it is under way.
const COMMAND_START: u64 = 0x1;
/// Command: from the device to memory, not the other way.
const COMMAND_TO_MEMORY: u64 = 0x2;
/// Command: raise an interrupt when the transfer is done.
const COMMAND_INTERRUPT: u64 = 0x4;
const COMMAND_DEFINED: u64 = COMMAND_START | COMMAND_TO_MEMORY | COMMAND_INTERRUPT;

/// Where the buffer is for the engine.
const BUFFER_START: u64 = 0x40000;
const BUFFER_BYTES: usize = 4096;

/// 28 bits, as the specification has it.
pub(super) const DEFAULT_MASK: u64 = (1 << 28) - 1;

#[derive(Debug)]
pub(super) struct Dma {
    /// Bits of a guest address that the engine can drive.
    mask: u64,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    buffer: Box<[u8; BUFFER_BYTES]>,
    transfer: Option<Transfer>,
    /// Of the newest read: an answer to an older one is recognised.
    last_tag: u64,
}

/// The transfer that is under way, checked.
#[derive(Clone, Debug)]
struct Transfer {
    bus: BusMaster,
    /// Guest memory.
    address: u64,
    /// In the buffer.
    offset: usize,
    length: usize,
    /// The bus master has taken it; otherwise it waits for room.
    taken: bool,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) interrupt: bool,
    pub(super) outcome: Result<(), Failure>,
}

/// Why a transfer moved nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("it does not lie in the device's buffer")]
    OutsideBuffer,
    #[error(transparent)]
    Bus(BusError),
    #[error(transparent)]
    Dma(DmaError),
}

impl Dma {
    /// As at power-on.
    pub(super) fn new(mask: u64) -> Self {
        Self {
            mask,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            buffer: Box::new([0; BUFFER_BYTES]),
            transfer: None,
            last_tag: 0,
        }
    }

    /// Back to power-on: whatever was under way is forgotten.
    pub(super) fn reset(&mut self) {
        *self = Self {
            last_tag: self.last_tag,
            ..Self::new(self.mask)
        };
    }

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

    /// A write of 4 bytes is one of the whole register, with an upper half of 0. Other registers than the engine's are left alone. `bus`
    /// gives the right to act on the guest, for a transfer that begins now.
    pub(super) fn write(
        &mut self,
        reg: Reg,
        value: u64,
        bus: impl FnOnce() -> Option<BusMaster>,
    ) -> Option<Ended> {
        if self.command & COMMAND_START != 0 {
            return None;
        }
        match reg {
            Reg::DmaSource => self.source = value,
            Reg::DmaDestination => self.destination = value,
            Reg::DmaCount => self.count = value,
            // Without a start it says nothing, as in QEMU.
            Reg::DmaCommand if value & COMMAND_START != 0 => {
                self.command = value & COMMAND_DEFINED;
                return self.start(bus());
            }
            _ => {}
        }
        None
    }

    /// There is room for a transfer that had to wait.
    pub(super) fn ready(&mut self) -> Option<Ended> {
        let waits = |transfer: &Transfer| !transfer.taken;
        if self.transfer.as_ref().is_some_and(waits) {
            return self.go();
        }
        None
    }

    /// The bytes of a read have come, or will not.
    pub(super) fn read_done(
        &mut self,
        tag: u64,
        outcome: Result<&[u8], DmaError>,
    ) -> Option<Ended> {
        let transfer = self.transfer.as_ref()?;
        if tag != self.last_tag || !transfer.taken {
            return None;
        }
        let (offset, length) = (transfer.offset, transfer.length);
        let into = self.buffer.get_mut(offset..offset + length)?;
        let outcome = match outcome {
            Ok(data) if data.len() == length => {
                into.copy_from_slice(data);
                Ok(())
            }
            Ok(_) => Err(Failure::Dma(DmaError::Failed)),
            Err(error) => Err(Failure::Dma(error)),
        };
        Some(self.end(outcome))
    }

    fn to_memory(&self) -> bool {
        self.command & COMMAND_TO_MEMORY != 0
    }

    fn start(&mut self, bus: Option<BusMaster>) -> Option<Ended> {
        let (ours, theirs) = if self.to_memory() {
            (self.source, self.destination)
        } else {
            (self.destination, self.source)
        };
        let Some((offset, length)) = in_buffer(ours, self.count) else {
            return Some(self.end(Err(Failure::OutsideBuffer)));
        };
        if length == 0 {
            return Some(self.end(Ok(())));
        }
        let Some(bus) = bus else {
            return Some(self.end(Err(Failure::Bus(BusError::Revoked))));
        };
        self.transfer = Some(Transfer {
            bus,
            address: theirs & self.mask,
            offset,
            length,
            taken: false,
        });
        self.go()
    }

    /// Hands the transfer to the bus master.
    fn go(&mut self) -> Option<Ended> {
        let to_memory = self.to_memory();
        let transfer = self.transfer.as_mut()?;
        let result = if to_memory {
            let data = &self.buffer[transfer.offset..transfer.offset + transfer.length];
            transfer.bus.write(transfer.address, data.to_vec())
        } else {
            self.last_tag += 1;
            let (address, length) = (transfer.address, transfer.length);
            transfer.bus.read(address, length, self.last_tag)
        };
        match result {
            // The start bit stays until there is room.
            Err(BusError::Full) => None,
            Err(error) => Some(self.end(Err(Failure::Bus(error)))),
            Ok(()) if to_memory => Some(self.end(Ok(()))),
            Ok(()) => {
                transfer.taken = true;
                None
            }
        }
    }

    fn end(&mut self, outcome: Result<(), Failure>) -> Ended {
        self.transfer = None;
        self.command &= !COMMAND_START;
        Ended {
            interrupt: self.command & COMMAND_INTERRUPT != 0,
            outcome,
        }
    }
}

/// Offset and length of a transfer that lies in the buffer.
fn in_buffer(address: u64, count: u64) -> Option<(usize, usize)> {
    let offset = usize::try_from(address.checked_sub(BUFFER_START)?).ok()?;
    let length = usize::try_from(count).ok()?;
    let fits = offset.checked_add(length)? <= BUFFER_BYTES;
    fits.then_some((offset, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_lies_in_the_buffer_or_not() {
        let start = BUFFER_START;
        assert_eq!(in_buffer(start, 4096), Some((0, 4096)));
        assert_eq!(in_buffer(start + 4095, 1), Some((4095, 1)));
        assert_eq!(in_buffer(start + 4096, 0), Some((4096, 0)));
        for (address, count) in [
            (start - 1, 1),
            (start - 1, 2),
            (start, 4097),
            (start + 4095, 2),
            (start + 4097, 0),
            (start + 1, u64::MAX),
            (start + 1, u64::MAX - start),
            (0, u64::MAX),
            (u64::MAX, 1),
        ] {
            assert_eq!(in_buffer(address, count), None, "{address:#x} {count:#x}");
        }
    }
}
