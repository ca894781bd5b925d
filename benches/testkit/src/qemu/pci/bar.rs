//! What a base address register says about itself.

use super::{Address, Pci};
use crate::Result;

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// Ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no effects, writes may be combined.
        prefetchable: bool,
    },
    /// Memory anywhere; takes the next register as well.
    Memory64 {
        /// Reads have no effects, writes may be combined.
        prefetchable: bool,
    },
    /// The expansion ROM.
    Rom,
}

/// A BAR that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// 0 to 5, or 6 for the expansion ROM.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// How much, bytes; a power of two.
    pub size: u64,
}

impl Bar {
    /// Its (first) register in configuration space of a type 0 header.
    #[must_use]
    pub fn register(self) -> u8 {
        register(self.index)
    }
}

fn register(index: u8) -> u8 {
    match index {
        6 => 0x30,
        _ => 0x10 + 4 * index,
    }
}

/// Sizes a BAR with decoding off and puts everything back.
pub(super) fn size(pci: &mut Pci<'_>, at: Address, index: u8) -> Result<Option<Bar>> {
    let command = pci.config_read_u16(at, 4)?;
    pci.config_write_u16(at, 4, command & !3)?;
    let found = size_undecoded(pci, at, index);
    pci.config_write_u16(at, 4, command)?;
    found
}

fn size_undecoded(pci: &mut Pci<'_>, at: Address, index: u8) -> Result<Option<Bar>> {
    let low_register = register(index);
    let ones = if index == 6 { 0xffff_f800 } else { u32::MAX };
    let low = answer_to(pci, at, low_register, ones)?;
    let Some(kind) = kind_of(index, low) else {
        return Ok(None);
    };
    let mask = match kind {
        // A function may leave the upper half out (section 6.2.5.1).
        BarKind::Io => u64::from(low & !3) | 0xffff_ffff_ffff_0000,
        BarKind::Memory32 { .. } => u64::from(low & !0xf) | 0xffff_ffff_0000_0000,
        BarKind::Rom => u64::from(low & 0xffff_f800) | 0xffff_ffff_0000_0000,
        BarKind::Memory64 { .. } => {
            let high = answer_to(pci, at, low_register + 4, u32::MAX)?;
            u64::from(high) << 32 | u64::from(low & !0xf)
        }
    };
    Ok(Some(Bar {
        index,
        kind,
        size: mask.wrapping_neg(),
    }))
}

/// What a register reads after `ones` were written to it; its old value is put back.
fn answer_to(pci: &mut Pci<'_>, at: Address, register: u8, ones: u32) -> Result<u32> {
    let old = pci.config_read_u32(at, register)?;
    pci.config_write_u32(at, register, ones)?;
    let answer = pci.config_read_u32(at, register)?;
    pci.config_write_u32(at, register, old)?;
    Ok(answer)
}

fn kind_of(index: u8, answer: u32) -> Option<BarKind> {
    let prefetchable = answer & 8 != 0;
    match (index, answer) {
        (_, 0) => None,
        (6, _) => Some(BarKind::Rom),
        (_, bits) if bits & 1 == 1 => Some(BarKind::Io),
        (_, bits) if bits & 6 == 4 => Some(BarKind::Memory64 { prefetchable }),
        _ => Some(BarKind::Memory32 { prefetchable }),
    }
}
