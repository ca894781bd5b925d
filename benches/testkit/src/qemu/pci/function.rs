//! A function whose BARs have been placed.

use super::{Address, Bar, BarKind, Pci, Qtest, take};
use crate::{Error, Result};

/// A function with decoding on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Its BARs with the guest physical address or port each was placed at. The ROM is placed and not enabled.
    pub bars: Vec<(Bar, u64)>,
}

impl Function {
    /// A BAR and where it is.
    ///
    /// # Errors
    /// When the function has no such BAR.
    pub fn bar(&self, index: u8) -> Result<(Bar, u64)> {
        let found = self.bars.iter().find(|(bar, _)| bar.index == index);
        found
            .copied()
            .ok_or_else(|| Error::Usage(format!("{} has no BAR {index}", self.address)))
    }

    /// Reads 1, 2, 4 or 8 bytes of a BAR with one access.
    pub fn read(&self, qtest: &mut Qtest, bar: u8, offset: u64, width: u8) -> Result<u64> {
        let (bar, base) = self.bar(bar)?;
        if bar.kind == BarKind::Io {
            let port = port(base, offset)?;
            return match width {
                1 => qtest.inb(port).map(u64::from),
                2 => qtest.inw(port).map(u64::from),
                4 => qtest.inl(port).map(u64::from),
                _ => Err(no_width(width)),
            };
        }
        let address = base + offset;
        match width {
            1 => qtest.readb(address).map(u64::from),
            2 => qtest.readw(address).map(u64::from),
            4 => qtest.readl(address).map(u64::from),
            8 => qtest.readq(address),
            _ => Err(no_width(width)),
        }
    }

    /// Writes 1, 2, 4 or 8 bytes of a BAR with one access; the value's upper bytes are dropped.
    pub fn write(
        &self,
        qtest: &mut Qtest,
        bar: u8,
        offset: u64,
        width: u8,
        value: u64,
    ) -> Result<()> {
        let (bar, base) = self.bar(bar)?;
        let [b0, b1, b2, b3, ..] = value.to_le_bytes();
        let word = u16::from_le_bytes([b0, b1]);
        let dword = u32::from_le_bytes([b0, b1, b2, b3]);
        if bar.kind == BarKind::Io {
            let port = port(base, offset)?;
            return match width {
                1 => qtest.outb(port, b0),
                2 => qtest.outw(port, word),
                4 => qtest.outl(port, dword),
                _ => Err(no_width(width)),
            };
        }
        let address = base + offset;
        match width {
            1 => qtest.writeb(address, b0),
            2 => qtest.writew(address, word),
            4 => qtest.writel(address, dword),
            8 => qtest.writeq(address, value),
            _ => Err(no_width(width)),
        }
    }
}

pub(super) fn enable(pci: &mut Pci<'_>, at: Address) -> Result<Function> {
    let mut bars = Vec::new();
    let mut index = 0;
    while index <= 6 {
        let bar = pci.size_bar(at, index)?;
        if let Some(bar) = bar {
            bars.push((bar, place(pci, at, bar)?));
        }
        let is_wide = matches!(bar.map(|b| b.kind), Some(BarKind::Memory64 { .. }));
        index += if is_wide { 2 } else { 1 };
    }
    // I/O, memory, bus master.
    let command = pci.config_read_u16(at, 4)?;
    pci.config_write_u16(at, 4, command | 7)?;
    Ok(Function { address: at, bars })
}

fn place(pci: &mut Pci<'_>, at: Address, bar: Bar) -> Result<u64> {
    let room = pci.room(at.bus)?;
    let next = match bar.kind {
        BarKind::Io => &mut room.port,
        BarKind::Memory32 { .. } | BarKind::Rom => &mut room.memory_32,
        BarKind::Memory64 { .. } => &mut room.memory_64,
    };
    let base = take(next, bar.size)?;
    let half = |address: u64| u32::try_from(address & 0xffff_ffff).unwrap_or(0);
    pci.config_write_u32(at, bar.register(), half(base))?;
    if matches!(bar.kind, BarKind::Memory64 { .. }) {
        pci.config_write_u32(at, bar.register() + 4, half(base >> 32))?;
    }
    Ok(base)
}

fn port(base: u64, offset: u64) -> Result<u16> {
    u16::try_from(base + offset).map_err(|_| Error::Usage(format!("no port {:#x}", base + offset)))
}

fn no_width(width: u8) -> Error {
    Error::Usage(format!("no access of {width} bytes"))
}
