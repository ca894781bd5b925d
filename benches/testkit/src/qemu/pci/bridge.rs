//! The registers of a PCI-to-PCI bridge (PCI-to-PCI Bridge Architecture 1.2, section 3.2.5).

use super::{Address, BRIDGE_MEMORY_32, BRIDGE_MEMORY_64, BRIDGE_PORTS, Pci, Room};
use crate::Result;

/// Numbers the bus behind the bridge at `at` and routes `room` to it.
pub(super) fn open(pci: &mut Pci<'_>, at: Address, bus: u8, room: &Room) -> Result<()> {
    // Primary, secondary and subordinate bus number.
    pci.config_write_u8(at, 0x18, at.bus)?;
    pci.config_write_u8(at, 0x19, bus)?;
    pci.config_write_u8(at, 0x1a, bus)?;

    pci.config_write_u8(at, 0x1c, port_bits(room.port))?;
    pci.config_write_u8(at, 0x1d, port_bits(room.port + BRIDGE_PORTS - 1))?;
    pci.config_write_u16(at, 0x20, memory_bits(room.memory_32))?;
    pci.config_write_u16(at, 0x22, memory_bits(room.memory_32 + BRIDGE_MEMORY_32 - 1))?;

    let last = room.memory_64 + BRIDGE_MEMORY_64 - 1;
    pci.config_write_u16(at, 0x24, memory_bits(room.memory_64))?;
    pci.config_write_u16(at, 0x26, memory_bits(last))?;
    pci.config_write_u32(at, 0x28, upper_half(room.memory_64))?;
    pci.config_write_u32(at, 0x2c, upper_half(last))?;

    // I/O, memory, bus master.
    pci.config_write_u16(at, 4, 7)
}

/// Bits 15 to 12 of a port stand in bits 7 to 4.
fn port_bits(port: u64) -> u8 {
    u8::try_from(port >> 8 & 0xf0).unwrap_or(0)
}

/// Bits 31 to 20 of an address stand in bits 15 to 4.
fn memory_bits(address: u64) -> u16 {
    u16::try_from(address >> 16 & 0xfff0).unwrap_or(0)
}

fn upper_half(address: u64) -> u32 {
    u32::try_from(address >> 32).unwrap_or(0)
}
