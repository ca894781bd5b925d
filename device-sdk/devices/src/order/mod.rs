//! What `edu` lacks: a function with every kind of BAR, many MSI-X vectors and registers whose accesses count.
//!
//! A PCI Express endpoint 1234:0d3e with INTx on pin A and as many MSI-X vectors as asked for. It checks that what a guest writes comes once
//! and in order (the order checker), and lets a guest check the same of what the device writes (the messenger).
//!
//! | BAR | | |
//! | --- | --- | --- |
//! | 0 | memory, 32-bit, 4 KiB | registers |
//! | 1 | I/O ports, 16 bytes | registers |
//! | 2, 3 | memory, 64-bit, prefetchable | as many bytes of memory as asked for; writes may be combined |
//! | 4 | memory, 32-bit | the MSI-X table at 0, the pending bit array at the page behind it; no access of either comes to the device |
//! | 5 | memory, below 1 MiB, 4 KiB | memory; firmware and Linux place it as any 32-bit BAR |
//! | ROM | 2 KiB | a PC-AT image whose initialisation returns at once |
//!
//! RO: read-only, WO: write-only, RC: a read clears it, W1C: a write of 1 clears the bit. Widths are in bytes. Everything else reads as
//! all-ones and writes nothing.
//!
//! # BAR 0
//!
//! | offset | widths | | register |
//! | --- | --- | --- | --- |
//! | 0x000 | 4 | RO | identification: "ORDR" in ASCII |
//! | 0x004 | 4 | RO | number of MSI-X vectors |
//! | 0x008 | 8 | RO | bytes of BAR 2 |
//! | 0x010 | 1, 2, 4, 8 | RW | scratch: 8 bytes, each of its own |
//! | 0x018 | 4 | RO | ticket: each read gives one more than the one before, from 1 on |
//! | 0x020 | 4 | RC | status: bit 0 the FIFO had no room, bit 1 the FIFO had not enough, bit 2 the order was broken, bit 3 a DMA write failed; bit 31 alone: the function has failed; the others as set |
//! | 0x024 | 4 | WO | sets these bits of the status |
//! | 0x028 | 8 | RC | events since the last read |
//! | 0x030 | 1, 2, 4, 8 | WO | counts one event, whatever is written |
//! | 0x040 | 4 | W1C | interrupt status: bit 0 the messenger is done, bit 1 the fetcher is done; the others as raised |
//! | 0x044 | 4 | RW | interrupt enable: INTx is high while a bit is set here and in the status |
//! | 0x048 | 4 | WO | interrupt raise: sets these bits of the interrupt status |
//! | 0x04c | 4 | WO | vector raise: fires the MSI-X vector of this number |
//! | 0x050 | 1, 2, 4, 8 | RW | FIFO of 4,096 bytes: a write pushes as many bytes as it is wide, a read pops as many; one that does not fit does nothing |
//! | 0x058 | 4 | RO | bytes in the FIFO |
//! | 0x05c | 4 | WO | empties the FIFO |
//! | 0x060 | 1, 2, 4, 8 | WO | order: see below |
//! | 0x068 | 8 | RW | order, last value; a write sets it and puts the three counters to 0 |
//! | 0x070 | 8 | RO | order, accesses |
//! | 0x078 | 8 | RO | order, gaps |
//! | 0x080 | 8 | RO | order, repeats |
//! | 0x090 | 8 | RO | value of the last write of configuration space that came to the device |
//! | 0x098 | 4 | RO | its offset (bits 15 to 0) and width (bits 23 to 16) |
//! | 0x09c | 4 | RO | how many came |
//! | 0x0a0 | 4 | WO | reset: 1 resets the device, not its configuration space |
//! | 0x100 | 8 | RW | messenger: address of the ring in guest memory |
//! | 0x108 | 4 | RW | messenger: bytes from one slot to the next |
//! | 0x10c | 4 | RW | messenger: slots of the ring, 1 to 4,096 |
//! | 0x110 | 4 | RW | messenger: bytes of a block, a multiple of 8 from 8 to 4,096 |
//! | 0x114 | 4 | RW | messenger: vectors used, from vector 0 on |
//! | 0x118 | 8 | RW | messenger: rounds |
//! | 0x120 | 8 | RW | messenger: rounds that the guest has taken; a doorbell |
//! | 0x128 | 8 | RO | messenger: rounds that were done |
//! | 0x130 | 4 | RW | messenger: write 1 starts, 0 stops; reads bit 0 running, bit 1 failed; a doorbell |
//! | 0x180 | 8 | RW | fetcher: address of the list in guest memory |
//! | 0x188 | 4 | RW | fetcher: entries of the list, 1 to 256 |
//! | 0x18c | 4 | RW | fetcher: vector |
//! | 0x190 | 8 | RW | fetcher: where the sum goes in guest memory |
//! | 0x198 | 8 | RO | fetcher: the sum |
//! | 0x1a0 | 4 | RW | fetcher: write 1 starts; reads bit 0 running, bit 1 failed; a doorbell |
//!
//! # BAR 1
//!
//! | offset | widths | | register |
//! | --- | --- | --- | --- |
//! | 0x0 | 1, 2, 4 | RW | the FIFO of BAR 0 |
//! | 0x4 | 1, 2, 4 | WO | the order checker of BAR 0 |
//! | 0x8 | 4 | RO | the ticket of BAR 0 |
//! | 0xc | 4 | RC | the status of BAR 0 |
//!
//! # Order
//!
//! The guest counts up and writes each number; the checker compares it with the successor of the last one, both cut to the width of the write.
//! The successor is taken; the last one again is a repeat; anything else is a gap, and the checker goes on from there.
//!
//! # Messenger
//!
//! In round *n*, from 0 on, it writes a block to the slot *n* modulo slots, and then fires vector *n* modulo vectors. The *k*-th 8 bytes
//! of the block are *n* + *k*·2^48, little-endian. A round is done when fewer rounds than there are slots were done and not taken. So with no
//! more slots than vectors a guest that sees a vector knows which round it stands for, and must find that round's block.
//!
//! # Fetcher
//!
//! It reads a list of 16-byte entries (address, 8 bytes; length, 4 bytes, 1 to 65,536; 4 bytes unused), then what each points to, writes the
//! sum of all those bytes as 8 bytes, and fires its vector. A failure ends it in the same way, without a sum.
//!
//! # Failure
//!
//! When the device is lost to its guest for a while, and its agent is told to keep the function, it reads as the identification, a status of 0x8000_0000
//! and all-ones, and starts nothing, until the guest resets it: by a function-level reset, or by the reset register.
//!
//! # Configuration space
//!
//! Power management, MSI-X, PCI Express with function-level reset; a vendor-specific capability at 0xc0 (0xc4, 4 bytes, volatile: how many
//! writes came to the device; 0xc8, 4 bytes, writable: writes go to the device too); and as extended capabilities a device serial number and a
//! vendor-specific one with 4 writable bytes at its offset 8.

mod checker;
mod error;
mod fetcher;
mod fifo;
mod function;
mod messenger;
mod registers;

use potemkin_sdk::registers::RegisterMap;
use potemkin_sdk::{
    AccessError, BarIndex, Descriptor, Device, DeviceHandle, DmaError, Register, ResetKind, Space,
};

use checker::Checker;
use fetcher::Fetcher;
use fifo::Fifo;
use function::{LEGACY_BYTES, Written};
use messenger::Messenger;
use registers::{
    IDENTIFICATION, INTERRUPT_FETCHED, INTERRUPT_MESSAGES, RESET_NOW, Reg, STATUS_DMA_FAILED,
    STATUS_FIFO_OVERRUN, STATUS_FIFO_UNDERRUN, STATUS_ORDER,
};

pub use error::OrderError;

/// The device.
#[derive(Debug)]
pub struct Order {
    descriptor: Descriptor,
    registers: RegisterMap<Reg>,
    ports: RegisterMap<Reg>,
    handle: Option<DeviceHandle>,
    memory: Vec<u8>,
    legacy: Vec<u8>,
    state: State,
}

/// What a reset puts back, memory apart.
#[derive(Debug, Default)]
struct State {
    scratch: [u8; 8],
    ticket: u32,
    status: u32,
    events: u64,
    interrupt_status: u32,
    interrupt_enable: u32,
    fifo: Fifo,
    checker: Checker,
    config: Written,
    messenger: Messenger,
    fetcher: Fetcher,
}

impl Order {
    /// Vectors when nothing else is asked for.
    pub const DEFAULT_VECTORS: u64 = 64;
    /// Bytes of BAR 2 when nothing else is asked for.
    pub const DEFAULT_MEMORY: u64 = 1 << 20;
    /// Largest BAR 2, in bytes: the memory behind it is the host's.
    pub const MEMORY_MAX: u64 = 64 << 20;

    /// A device with 1 to 2,048 MSI-X vectors, and a power of two from 4 KiB to 64 MiB of memory behind BAR 2.
    ///
    /// # Errors
    ///
    /// Another number of vectors, or another size.
    pub fn new(vectors: u64, memory_bytes: u64) -> Result<Self, OrderError> {
        let vectors = u16::try_from(vectors).map_err(|_| OrderError::Vectors { vectors })?;
        if !(4096..=Self::MEMORY_MAX).contains(&memory_bytes) {
            return Err(OrderError::Memory { memory_bytes });
        }
        let descriptor = function::descriptor(vectors, memory_bytes)?;
        let length =
            usize::try_from(memory_bytes).map_err(|_| OrderError::Memory { memory_bytes })?;
        Ok(Self {
            descriptor,
            registers: registers::map()?,
            ports: registers::ports()?,
            handle: None,
            memory: vec![0; length],
            legacy: vec![0; LEGACY_BYTES],
            state: State::default(),
        })
    }

    fn find(&self, at: Register) -> Option<&RegisterMap<Reg>> {
        match at.space {
            Space::Bar(BarIndex::B0) => Some(&self.registers),
            Space::Bar(BarIndex::B1) => Some(&self.ports),
            _ => None,
        }
    }

    /// The bytes of memory that an access is about, if it is about memory.
    fn memory(&mut self, at: Register) -> Result<&mut [u8], AccessError> {
        let memory = match at.space {
            Space::Bar(BarIndex::B2) => &mut self.memory,
            Space::Bar(BarIndex::B5) => &mut self.legacy,
            _ => return Err(AccessError::NoRegister(at)),
        };
        cell(memory, at, 0)
    }

    fn read_register(&mut self, reg: Reg, within: u64, at: Register) -> Result<u64, AccessError> {
        let vectors = self.descriptor.interrupts().msix_vectors;
        let state = &mut self.state;
        Ok(match reg {
            Reg::Identification => IDENTIFICATION.into(),
            Reg::Vectors => vectors.into(),
            Reg::MemoryBytes => self.memory.len() as u64,
            Reg::Scratch => little_endian(cell(&mut state.scratch, at, at.offset - within)?),
            Reg::Ticket => {
                state.ticket = state.ticket.wrapping_add(1);
                state.ticket.into()
            }
            Reg::Status => std::mem::take(&mut state.status).into(),
            Reg::Events => std::mem::take(&mut state.events),
            Reg::InterruptStatus => state.interrupt_status.into(),
            Reg::InterruptEnable => state.interrupt_enable.into(),
            Reg::Fifo => match state.fifo.pop(at.bytes()) {
                Some(value) => value,
                None => {
                    state.status |= STATUS_FIFO_UNDERRUN;
                    return Err(AccessError::Failed("the FIFO has not so many bytes"));
                }
            },
            Reg::FifoLevel => state.fifo.level(),
            Reg::OrderLast => state.checker.last,
            Reg::OrderAccesses => state.checker.accesses,
            Reg::OrderGaps => state.checker.gaps,
            Reg::OrderRepeats => state.checker.repeats,
            Reg::ConfigValue => state.config.value,
            Reg::ConfigPlace => state.config.place.into(),
            Reg::ConfigCount => state.config.count.into(),
            Reg::Messenger(reg) => state.messenger.read(reg),
            Reg::Fetcher(reg) => state.fetcher.read(reg),
            Reg::StatusSet
            | Reg::Event
            | Reg::InterruptRaise
            | Reg::VectorRaise
            | Reg::FifoClear
            | Reg::Order
            | Reg::Reset => return Err(AccessError::Direction(at)),
        })
    }

    fn write_register(
        &mut self,
        reg: Reg,
        within: u64,
        at: Register,
        value: u64,
    ) -> Result<(), AccessError> {
        let state = &mut self.state;
        // For the registers of 4 bytes nothing is cut off.
        let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        match reg {
            Reg::Scratch => put(cell(&mut state.scratch, at, at.offset - within)?, value),
            Reg::StatusSet => state.status |= low,
            Reg::Event => state.events = state.events.wrapping_add(1),
            Reg::InterruptStatus => self.settle_interrupts(|state| state.interrupt_status &= !low),
            Reg::InterruptEnable => self.settle_interrupts(|state| state.interrupt_enable = low),
            Reg::InterruptRaise => self.settle_interrupts(|state| state.interrupt_status |= low),
            Reg::VectorRaise => return self.raise_vector(low),
            Reg::Fifo => {
                if !state.fifo.push(value, at.bytes()) {
                    state.status |= STATUS_FIFO_OVERRUN;
                    return Err(AccessError::Failed("the FIFO has no room"));
                }
            }
            Reg::FifoClear => state.fifo = Fifo::default(),
            Reg::Order => {
                if !state.checker.take(value, at.width) {
                    state.status |= STATUS_ORDER;
                }
            }
            Reg::OrderLast => state.checker = Checker::from(value),
            Reg::Reset if low == RESET_NOW => {
                self.reset(ResetKind::Function);
                self.settle_interrupts(|_| {});
            }
            Reg::Reset => {}
            Reg::Messenger(reg) => {
                let handle = self.handle.as_ref();
                state
                    .messenger
                    .write(reg, value, || handle.map(DeviceHandle::bus_master));
                self.settle_messenger();
            }
            Reg::Fetcher(reg) => {
                let handle = self.handle.as_ref();
                state
                    .fetcher
                    .write(reg, value, || handle.map(DeviceHandle::bus_master));
                self.settle_fetcher();
            }
            _ => return Err(AccessError::Direction(at)),
        }
        Ok(())
    }

    fn raise_vector(&self, vector: u32) -> Result<(), AccessError> {
        let no_such = AccessError::Failed("there is no such vector");
        let vector = u16::try_from(vector).map_err(|_| no_such)?;
        let handle = self.handle.as_ref();
        let bus = handle.ok_or(AccessError::Failed("not attached to a host"))?;
        bus.bus_master().msix(vector).map_err(|_| no_such)
    }

    /// The one place where INTx changes.
    fn settle_interrupts(&mut self, change: impl FnOnce(&mut State)) {
        change(&mut self.state);
        if let Some(handle) = &self.handle {
            let level = self.state.interrupt_status & self.state.interrupt_enable != 0;
            handle.set_intx(level);
        }
    }

    fn settle_messenger(&mut self) {
        if self.state.messenger.take_ended() {
            self.settle_interrupts(|state| state.interrupt_status |= INTERRUPT_MESSAGES);
        }
    }

    fn settle_fetcher(&mut self) {
        if self.state.fetcher.take_ended() {
            self.settle_interrupts(|state| state.interrupt_status |= INTERRUPT_FETCHED);
        }
    }
}

impl Device for Order {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        if at.space == Space::Config {
            return self.state.config.read(at);
        }
        match self.find(at) {
            Some(map) => {
                let hit = map.readable(at)?;
                self.read_register(hit.key, hit.within, at)
            }
            None => self.memory(at).map(|bytes| little_endian(bytes)),
        }
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        if at.space == Space::Config {
            self.state.config.write(at, value);
            return Ok(());
        }
        match self.find(at) {
            Some(map) => {
                let hit = map.writable(at)?;
                self.write_register(hit.key, hit.within, at, value)
            }
            None => self.memory(at).map(|bytes| put(bytes, value)),
        }
    }

    fn reset(&mut self, _: ResetKind) {
        self.state = State {
            fetcher: self.state.fetcher.after_reset(),
            ..State::default()
        };
        self.memory.fill(0);
        self.legacy.fill(0);
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.handle = Some(handle);
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        self.state.fetcher.read_done(tag, outcome);
        self.settle_fetcher();
    }

    /// Which write it was is not told, so it is taken for the messenger's.
    fn dma_write_failed(&mut self, error: DmaError) {
        tracing::debug!(%error, "order: a DMA write moved nothing");
        self.state.status |= STATUS_DMA_FAILED;
        self.state.messenger.fail();
        self.settle_messenger();
    }

    fn bus_master_off(&mut self) {
        self.state.messenger.fail();
        self.settle_messenger();
    }

    fn dma_ready(&mut self) {
        self.state.messenger.go_on();
        self.settle_messenger();
        self.state.fetcher.go_on();
        self.settle_fetcher();
    }
}

/// The bytes of `memory`, which begins at offset `start`, that an access is about.
fn cell(memory: &mut [u8], at: Register, start: u64) -> Result<&mut [u8], AccessError> {
    let from = at.offset.checked_sub(start);
    let from = from.and_then(|from| usize::try_from(from).ok());
    let to = from.and_then(|from| from.checked_add(at.bytes()));
    let range = from.zip(to).map(|(from, to)| from..to);
    range
        .and_then(|range| memory.get_mut(range))
        .ok_or(AccessError::NoRegister(at))
}

fn little_endian(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    value[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(value)
}

fn put(bytes: &mut [u8], value: u64) {
    let length = bytes.len();
    bytes.copy_from_slice(&value.to_le_bytes()[..length]);
}

#[cfg(test)]
mod tests;
