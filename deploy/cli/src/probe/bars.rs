//! Finding the BARs of a function, and giving them addresses (PCI 3.0 section 6.2.5.1).

use potemkin_pci::registers::{
    BAR_IO, BAR_PREFETCHABLE, BAR_TYPE_64, BAR_TYPE_BELOW_1M, BAR0, COMMAND, COMMAND_IO,
    COMMAND_MEMORY, ROM,
};
use potemkin_vfio_user::ClientError;
use serde::Serialize;

use super::function::Guest;

/// The registers 0 to 5.
const REGISTERS: u8 = 6;
/// The memory type field of a BAR.
const TYPE_MASK: u32 = 0b11 << 1;
/// Everything of the ROM register but the enable bit and what is reserved.
const ROM_ADDRESS: u32 = 0xffff_f800;

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Io,
    #[serde(rename = "memory_32")]
    Memory32,
    #[serde(rename = "memory_64")]
    Memory64,
    #[serde(rename = "memory_below_1m")]
    MemoryBelow1M,
}

/// A BAR that the function has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SizedBar {
    pub(crate) index: u8,
    pub(crate) kind: Kind,
    pub(crate) prefetchable: bool,
    /// Bytes; 0 if the register's bits make no size.
    pub(crate) size: u64,
    /// Given by the probe; none: it fits nowhere.
    pub(crate) address: Option<u64>,
    /// What the register held, its type bits included.
    #[serde(skip)]
    pub(crate) original: u64,
}

/// Sizes all BARs and the ROM as kernels do: decoding off, all ones in, what comes back, the old value restored. Gives the
/// size of the ROM too, 0 if there is none.
pub(crate) fn size_all(guest: &mut Guest<'_>) -> Result<(Vec<SizedBar>, u64), ClientError> {
    let command = guest.config_u16(at(COMMAND))?;
    guest.set_config_u16(at(COMMAND), command & !(COMMAND_IO | COMMAND_MEMORY))?;
    let mut bars = Vec::new();
    let mut index = 0;
    while index < REGISTERS {
        let found = size_one(guest, index)?;
        index += match &found {
            Some(bar) if bar.kind == Kind::Memory64 => 2,
            _ => 1,
        };
        bars.extend(found);
    }
    let (_, mask) = probe_register(guest, at(ROM), ROM_ADDRESS)?;
    let rom_size = (mask & ROM_ADDRESS).wrapping_neg().into();
    guest.set_config_u16(at(COMMAND), command)?;
    Ok((bars, rom_size))
}

fn size_one(guest: &mut Guest<'_>, index: u8) -> Result<Option<SizedBar>, ClientError> {
    let (original, mask) = probe_register(guest, register(index), u32::MAX)?;
    if mask == 0 {
        return Ok(None);
    }
    let (kind, size, original) = if mask & BAR_IO != 0 {
        (Kind::Io, io_size(mask), original.into())
    } else if mask & TYPE_MASK == BAR_TYPE_64 && index + 1 < REGISTERS {
        let (high, high_mask) = probe_register(guest, register(index + 1), u32::MAX)?;
        let mask = join(mask & !0xf, high_mask);
        (Kind::Memory64, mask.wrapping_neg(), join(original, high))
    } else {
        let kind = match mask & TYPE_MASK {
            BAR_TYPE_BELOW_1M => Kind::MemoryBelow1M,
            _ => Kind::Memory32,
        };
        (kind, (mask & !0xf).wrapping_neg().into(), original.into())
    };
    Ok(Some(SizedBar {
        index,
        kind,
        prefetchable: kind != Kind::Io && mask & BAR_PREFETCHABLE != 0,
        size: if size.is_power_of_two() { size } else { 0 },
        address: None,
        original,
    }))
}

/// What a register holds, and what it holds after `ones` was written; it has its old value again.
fn probe_register(
    guest: &mut Guest<'_>,
    register: u16,
    ones: u32,
) -> Result<(u32, u32), ClientError> {
    let original = guest.config_u32(register)?;
    guest.set_config_u32(register, ones)?;
    let mask = guest.config_u32(register)?;
    guest.set_config_u32(register, original)?;
    Ok((original, mask))
}

/// An I/O BAR may leave its upper 16 bits hardwired to 0.
fn io_size(mask: u32) -> u64 {
    let mask = mask & !0x3;
    let mask = if mask >> 16 == 0 {
        mask | 0xffff_0000
    } else {
        mask
    };
    mask.wrapping_neg().into()
}

/// Picks an address for each BAR, largest first so that alignment wastes nothing, where firmware could put it.
pub(crate) fn choose_addresses(bars: &mut [SizedBar]) {
    let mut io = Window::new(0x1000, 0x1_0000);
    let mut low = Window::new(0x8_0000, 0x10_0000);
    let mut memory = Window::new(0x8000_0000, 0xfec0_0000);
    let mut high = Window::new(1 << 40, 1 << 45);
    let mut order: Vec<_> = bars.iter_mut().collect();
    order.sort_by_key(|bar| std::cmp::Reverse(bar.size));
    for bar in order {
        let window = match bar.kind {
            Kind::Io => &mut io,
            Kind::MemoryBelow1M => &mut low,
            Kind::Memory32 => &mut memory,
            Kind::Memory64 => &mut high,
        };
        bar.address = window.take(bar.size);
    }
}

struct Window {
    next: u64,
    end: u64,
}

impl Window {
    fn new(next: u64, end: u64) -> Self {
        Self { next, end }
    }

    fn take(&mut self, size: u64) -> Option<u64> {
        if size == 0 {
            return None;
        }
        let address = self.next.checked_next_multiple_of(size)?;
        let next = address.checked_add(size).filter(|next| *next <= self.end)?;
        self.next = next;
        Some(address)
    }
}

/// Writes an address to a BAR; its type bits do not mind. Gives what the register holds then, without them.
pub(crate) fn assign(
    guest: &mut Guest<'_>,
    bar: &SizedBar,
    address: u64,
) -> Result<u64, ClientError> {
    let (low, high) = split(address);
    let register = register(bar.index);
    guest.set_config_u32(register, low)?;
    let low = guest.config_u32(register)?;
    match bar.kind {
        Kind::Memory64 => {
            guest.set_config_u32(register + 4, high)?;
            Ok(join(low & !0xf, guest.config_u32(register + 4)?))
        }
        Kind::Io => Ok((low & !0x3).into()),
        Kind::Memory32 | Kind::MemoryBelow1M => Ok((low & !0xf).into()),
    }
}

fn register(index: u8) -> u16 {
    at(BAR0) + 4 * u16::from(index)
}

/// A register's offset as an address in configuration space.
pub(crate) fn at(register: usize) -> u16 {
    u16::try_from(register).expect("registers lie in the 4,096 bytes of configuration space")
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[allow(clippy::cast_possible_truncation)] // Halves, on purpose.
fn split(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
