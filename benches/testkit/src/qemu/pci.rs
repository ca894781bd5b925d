//! PCI by hand on top of qtest, as firmware does it: configuration mechanism #1 (ports 0xcf8 and 0xcfc), BAR
//! sizing and placing (PCI Local Bus 3.0, sections 3.2.2.3.2 and 6.2.5.1). Nothing here is shared with the
//! code under test.

mod bar;
mod bridge;
mod function;

use std::fmt;

use super::Qtest;
use crate::{Error, Result};

pub use bar::{Bar, BarKind};
pub use function::Function;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// Where a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

impl Address {
    /// What goes into the address port for the dword of a register.
    fn word(self, register: u8) -> u32 {
        0x8000_0000
            | u32::from(self.bus) << 16
            | u32::from(self.device & 31) << 11
            | u32::from(self.function & 7) << 8
            | u32::from(register & 0xfc)
    }
}

/// Where the next BAR of a bus goes.
#[derive(Debug)]
struct Room {
    /// Below 4 GiB.
    memory_32: u64,
    /// Above 4 GiB.
    memory_64: u64,
    port: u64,
}

/// What is routed to the bus behind a bridge.
const BRIDGE_MEMORY_32: u64 = 16 << 20;
const BRIDGE_MEMORY_64: u64 = 1 << 30;
const BRIDGE_PORTS: u64 = 0x1000;

/// The PCI buses of a qtest machine.
#[derive(Debug)]
pub struct Pci<'a> {
    qtest: &'a mut Qtest,
    /// By bus number; the numbers are given without gaps.
    rooms: Vec<Room>,
}

impl<'a> Pci<'a> {
    /// Takes over a machine whose PCI buses nobody has set up (no firmware runs under qtest).
    pub fn new(qtest: &'a mut Qtest) -> Self {
        // What q35 routes to PCI: above guest memory and memory-mapped configuration space, below the
        // interrupt controllers; above all guest memory; above the legacy ports.
        let root = Room {
            memory_32: 0xc000_0000,
            memory_64: 0x20_0000_0000,
            port: 0x8000,
        };
        Self {
            qtest,
            rooms: vec![root],
        }
    }

    /// The qtest connection below.
    pub fn qtest(&mut self) -> &mut Qtest {
        self.qtest
    }

    /// Reads a byte of configuration space.
    pub fn config_read_u8(&mut self, at: Address, register: u8) -> Result<u8> {
        self.select(at, register)?;
        self.qtest.inb(CONFIG_DATA + u16::from(register & 3))
    }

    /// Reads two bytes of configuration space; `register` is a multiple of 2.
    pub fn config_read_u16(&mut self, at: Address, register: u8) -> Result<u16> {
        self.select(at, register)?;
        self.qtest.inw(CONFIG_DATA + u16::from(register & 2))
    }

    /// Reads four bytes of configuration space; `register` is a multiple of 4.
    pub fn config_read_u32(&mut self, at: Address, register: u8) -> Result<u32> {
        self.select(at, register)?;
        self.qtest.inl(CONFIG_DATA)
    }

    /// Writes a byte of configuration space.
    pub fn config_write_u8(&mut self, at: Address, register: u8, value: u8) -> Result<()> {
        self.select(at, register)?;
        self.qtest
            .outb(CONFIG_DATA + u16::from(register & 3), value)
    }

    /// Writes two bytes of configuration space; `register` is a multiple of 2.
    pub fn config_write_u16(&mut self, at: Address, register: u8, value: u16) -> Result<()> {
        self.select(at, register)?;
        self.qtest
            .outw(CONFIG_DATA + u16::from(register & 2), value)
    }

    /// Writes four bytes of configuration space; `register` is a multiple of 4.
    pub fn config_write_u32(&mut self, at: Address, register: u8, value: u32) -> Result<()> {
        self.select(at, register)?;
        self.qtest.outl(CONFIG_DATA, value)
    }

    /// Every function of a bus, in order.
    pub fn functions(&mut self, bus: u8) -> Result<Vec<Address>> {
        let mut found = Vec::new();
        for device in 0..32 {
            for function in 0..8 {
                let at = Address {
                    bus,
                    device,
                    function,
                };
                if self.config_read_u16(at, 0)? != 0xffff {
                    found.push(at);
                } else if function == 0 {
                    // A device must have function 0.
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The first function of a bus with these ids.
    ///
    /// # Errors
    /// With the ids of what is there, when it is not.
    pub fn find(&mut self, bus: u8, vendor: u16, device: u16) -> Result<Address> {
        let wanted = u32::from(device) << 16 | u32::from(vendor);
        let mut others = Vec::new();
        for at in self.functions(bus)? {
            let ids = self.config_read_u32(at, 0)?;
            if ids == wanted {
                return Ok(at);
            }
            others.push(format!("{at} {:04x}:{:04x}", ids & 0xffff, ids >> 16));
        }
        let message = format!(
            "no function {vendor:04x}:{device:04x} on bus {bus}, only {}",
            others.join(", ")
        );
        Err(Error::peer("PCI", message))
    }

    /// Sizes the BARs of a function, places them and switches decoding and bus mastering on.
    pub fn enable(&mut self, at: Address) -> Result<Function> {
        function::enable(self, at)
    }

    /// Sizes one BAR (0 to 5) or the expansion ROM (6) and leaves it as it was. `None` if there is none.
    pub fn size_bar(&mut self, at: Address, bar: u8) -> Result<Option<Bar>> {
        bar::size(self, at, bar)
    }

    /// Gives the bus behind a root port of bus 0 a number, and returns it. 16 MiB of memory below 4 GiB, 1 GiB
    /// above it and 4 KiB of ports are routed to it.
    pub fn open_bridge(&mut self, at: Address) -> Result<u8> {
        let bus =
            u8::try_from(self.rooms.len()).map_err(|_| Error::Usage("256 buses".to_owned()))?;
        let root = &mut self.rooms[0];
        let room = Room {
            memory_32: take(&mut root.memory_32, BRIDGE_MEMORY_32)?,
            memory_64: take(&mut root.memory_64, BRIDGE_MEMORY_64)?,
            port: take(&mut root.port, BRIDGE_PORTS)?,
        };
        bridge::open(self, at, bus, &room)?;
        self.rooms.push(room);
        Ok(bus)
    }

    /// Where the BARs of a bus go.
    fn room(&mut self, bus: u8) -> Result<&mut Room> {
        let room = self.rooms.get_mut(usize::from(bus));
        room.ok_or_else(|| Error::Usage(format!("bus {bus} was not opened")))
    }

    fn select(&mut self, at: Address, register: u8) -> Result<()> {
        self.qtest.outl(CONFIG_ADDRESS, at.word(register))
    }
}

/// Takes `size` bytes (a power of two), aligned to their size, from the room that begins at `next`.
fn take(next: &mut u64, size: u64) -> Result<u64> {
    let base = next
        .checked_next_multiple_of(size)
        .ok_or_else(|| Error::Usage(format!("no room for {size:#x} bytes")))?;
    *next = base + size;
    Ok(base)
}
