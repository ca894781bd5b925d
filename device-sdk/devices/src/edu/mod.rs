//! The educational device of QEMU's specification (`docs/specs/edu.rst` in QEMU's sources).
//!
//! A PCI function 1234:11e8 with 1 MiB of registers behind BAR 0, INTx on pin A and one MSI vector:
//!
//! | offset | | register |
//! | --- | --- | --- |
//! | 0x00 | RO | identification: 0x010000ed |
//! | 0x04 | RW | liveness: gives the complement of what was written |
//! | 0x08 | RW | factorial: gives the factorial, modulo 2^32, of what was written; a write while one is computed is ignored |
//! | 0x20 | RW | status: bit 0 (RO) while a factorial is computed; bit 7: set bit 0 of the interrupt status when it is there |
//! | 0x24 | RO | interrupt status |
//! | 0x60 | WO | interrupt raise: sets these bits of the interrupt status |
//! | 0x64 | WO | interrupt acknowledge: clears these bits of the interrupt status |
//! | 0x80 | RW | DMA source |
//! | 0x88 | RW | DMA destination |
//! | 0x90 | RW | DMA count, in bytes |
//! | 0x98 | RW | DMA command: bit 0 start, bit 1 direction, bit 2 interrupt when done |
//!
//! Below 0x80 only accesses of 4 bytes are taken, from there on of 4 and of 8; all others, and those of what is no register, read
//! as all-ones and write nothing. While a factorial is computed its register gives the operand.
//!
//! DMA is between guest memory and a buffer of 4,096 bytes at address 0x40000 of the device, one transfer at a time; the start bit reads as
//! 1 while it is under way, and bit 8 of the interrupt status says that it is done (see the notes in `dma.rs`). Guest addresses are cut
//! to 28 bits, unless [`Edu::dma_mask`] says otherwise: a driver has to say so to its system.
//!
//! INTx is high while the interrupt status is not 0, and each raise fires MSI vector 0. Which of the two the guest gets is its own
//! choice (see [`DeviceHandle`]). The vector cannot be masked, unless [`Edu::maskable_msi`] says otherwise.

mod dma;
mod factorial;
mod registers;

use potemkin_pci::{Bar, BuildError, Capability, Class, RegisterRange};
use potemkin_sdk::registers::{RegisterMap, RegisterMapError};
use potemkin_sdk::{
    AccessError, BarIndex, Descriptor, DescriptorBuilder, Device, DeviceHandle, DmaError, Register,
    ResetKind,
};

use dma::{Dma, Ended, Failure};
use factorial::Worker;
use registers::{
    BAR_BYTES, IDENTIFICATION, INTERRUPT_DMA, INTERRUPT_FACTORIAL, Reg, STATUS_COMPUTING,
    STATUS_INTERRUPT,
};

/// The device.
#[derive(Debug)]
pub struct Edu {
    descriptor: Descriptor,
    registers: RegisterMap<Reg>,
    state: State,
    /// Given by the host; the worker gets a copy when it is first needed.
    handle: Option<DeviceHandle>,
    worker: Option<Worker>,
    dma: Dma,
    /// A failed transfer was logged since the device had another guest.
    told_dma_failed: bool,
}

/// What a reset puts back, the engine apart.
#[derive(Debug, Default)]
struct State {
    liveness: u32,
    /// The operand while it is computed, then the result.
    factorial: u32,
    status: u32,
    interrupt_status: u32,
}

impl Edu {
    /// A device as at power-on.
    ///
    /// # Errors
    ///
    /// None in practice: the description is fixed.
    pub fn new() -> Result<Self, EduError> {
        Ok(Self {
            descriptor: descriptor(false)?,
            registers: registers::map()?,
            state: State::default(),
            handle: None,
            worker: None,
            dma: Dma::new(dma::DEFAULT_MASK),
            told_dma_failed: false,
        })
    }

    /// Which bits of a guest address the DMA engine can drive: others are 0. By default the lowest 28.
    #[must_use]
    pub fn dma_mask(mut self, mask: u64) -> Self {
        self.dma = Dma::new(mask);
        self
    }

    /// Gives the MSI vector a mask bit and a pending bit; QEMU's device has none.
    ///
    /// # Errors
    ///
    /// None in practice: the description is fixed.
    pub fn maskable_msi(mut self) -> Result<Self, EduError> {
        self.descriptor = descriptor(true)?;
        Ok(self)
    }

    fn start_factorial(&mut self, n: u32) -> Result<(), AccessError> {
        if self.state.status & STATUS_COMPUTING != 0 {
            return Ok(());
        }
        self.worker()?.ask(n);
        self.state.factorial = n;
        self.state.status |= STATUS_COMPUTING;
        Ok(())
    }

    fn worker(&mut self) -> Result<&Worker, AccessError> {
        if self.worker.is_none() {
            let handle = self.handle.clone();
            let handle = handle.ok_or(AccessError::Failed("not attached to a host"))?;
            let worker = Worker::start(handle)
                .map_err(|_| AccessError::Failed("no thread for the computation"))?;
            self.worker = Some(worker);
        }
        self.worker
            .as_ref()
            .ok_or(AccessError::Failed("no thread for the computation"))
    }

    fn finish_factorial(&mut self, result: u32) {
        self.state.factorial = result;
        self.state.status &= !STATUS_COMPUTING;
        if self.state.status & STATUS_INTERRUPT != 0 {
            self.raise(INTERRUPT_FACTORIAL);
        }
    }

    fn write_dma(&mut self, reg: Reg, value: u64) -> Result<(), AccessError> {
        let handle = self.handle.as_ref();
        let bus = || handle.map(DeviceHandle::bus_master);
        let ended = self.dma.write(reg, value, bus);
        self.transfer_ended(ended);
        match ended {
            // The driver is not told, so the host counts it.
            Some(Ended {
                outcome: Err(Failure::OutsideBuffer),
                ..
            }) => Err(AccessError::Failed("DMA outside of the device's buffer")),
            _ => Ok(()),
        }
    }

    fn transfer_ended(&mut self, ended: Option<Ended>) {
        let Some(Ended { interrupt, outcome }) = ended else {
            return;
        };
        if let Err(failure) = outcome {
            self.note_failure(&failure);
        }
        if interrupt {
            self.raise(INTERRUPT_DMA);
        }
    }

    /// Once for a guest: it may fail as often as it likes.
    fn note_failure(&mut self, why: &dyn std::fmt::Display) {
        if std::mem::replace(&mut self.told_dma_failed, true) {
            tracing::debug!(%why, "edu: a DMA transfer moved nothing");
        } else {
            tracing::warn!(%why, "edu: a DMA transfer moved nothing; more for this guest at level debug");
        }
    }

    /// The one place where interrupts come from, whatever their cause.
    fn raise(&mut self, bits: u32) {
        self.state.interrupt_status |= bits;
        if self.state.interrupt_status == 0 {
            return;
        }
        if let Some(handle) = &self.handle {
            handle.set_intx(true);
            // Without a guest there is nobody to interrupt.
            let _ = handle.bus_master().msi(0);
        }
    }

    /// The one place where they go.
    fn acknowledge(&mut self, bits: u32) {
        self.state.interrupt_status &= !bits;
        if let Some(handle) = &self.handle {
            handle.set_intx(self.state.interrupt_status != 0);
        }
    }
}

impl Device for Edu {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        let reg = self.registers.readable(at)?.key;
        let value = match reg {
            Reg::Identification => IDENTIFICATION,
            Reg::Liveness => self.state.liveness,
            Reg::Factorial => self.state.factorial,
            Reg::Status => self.state.status,
            Reg::InterruptStatus => self.state.interrupt_status,
            _ => {
                let value = self.dma.read(reg);
                return value.ok_or(AccessError::Direction(at));
            }
        };
        Ok(value.into())
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        let reg = self.registers.writable(at)?.key;
        // The registers below 0x80 take 4 bytes only, so for them nothing is cut off.
        let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        match reg {
            Reg::Liveness => self.state.liveness = !low,
            Reg::Factorial => self.start_factorial(low)?,
            Reg::Status => {
                let kept = self.state.status & !STATUS_INTERRUPT;
                self.state.status = kept | low & STATUS_INTERRUPT;
            }
            Reg::InterruptRaise => self.raise(low),
            Reg::InterruptAcknowledge => self.acknowledge(low),
            _ => self.write_dma(reg, value)?,
        }
        Ok(())
    }

    fn reset(&mut self, kind: ResetKind) {
        if let Some(worker) = &self.worker {
            worker.cancel();
        }
        self.state = State::default();
        self.dma.reset();
        if kind == ResetKind::Session {
            self.told_dma_failed = false;
        }
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.handle = Some(handle);
    }

    fn notified(&mut self) {
        if let Some(result) = self.worker.as_ref().and_then(Worker::take) {
            self.finish_factorial(result);
        }
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        let ended = self.dma.read_done(tag, outcome);
        self.transfer_ended(ended);
    }

    fn dma_write_failed(&mut self, error: DmaError) {
        self.note_failure(&error);
    }

    fn dma_ready(&mut self) {
        let ended = self.dma.ready();
        self.transfer_ended(ended);
    }
}

fn descriptor(maskable_msi: bool) -> Result<Descriptor, BuildError> {
    DescriptorBuilder::new(0x1234, 0x11e8)
        .revision(0x10)
        .class(Class {
            base: 0x00,
            sub: 0xff,
            interface: 0x00,
        })
        .bar(BarIndex::B0, Bar::memory32(BAR_BYTES))
        .intx_pin(1)
        .capability(Capability::msi(1, maskable_msi)?)
        // A write of the command register starts something; writes of the others are for later.
        .range(RegisterRange::new(BarIndex::B0, 0x98, 8).doorbell())
        .build()
}

/// Why the device could not be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EduError {
    /// The function.
    #[error("descriptor")]
    Descriptor(#[from] BuildError),
    /// Its registers.
    #[error("registers")]
    Registers(#[from] RegisterMapError),
}

#[cfg(test)]
mod tests;
