//! Which addresses are the function's, for a VMM that hooks them.

use std::ptr;

use potemkin_front_core::{Rehook, RehookError};

use crate::{boundary::callback, callbacks::Callbacks};

/// Which of the guest's two kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AddressKind {
    /// Guest-physical memory.
    Memory = 0,
    /// I/O ports.
    Port = 1,
}

/// A range of addresses that stands for all of a BAR (of a platform function: of a region), or for the expansion ROM. Offset 0 is its first
/// address: an access to it is one of `potemkin_bar_read` and its likes at its address less `address`. Valid during the callback only.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Mapping {
    /// Bytes of this structure, as the library has it.
    pub size: usize,
    /// First address.
    pub address: u64,
    /// Bytes, or ports.
    pub bytes: u64,
    /// Memory or ports.
    pub kind: AddressKind,
    /// BAR or region 0 to 5, or `POTEMKIN_ROM`.
    pub bar: u32,
}

impl From<potemkin_pci::Mapping> for Mapping {
    fn from(mapping: potemkin_pci::Mapping) -> Self {
        Self {
            size: size_of::<Self>(),
            address: mapping.address,
            bytes: mapping.size,
            kind: match mapping.kind {
                potemkin_pci::AddressKind::Memory => AddressKind::Memory,
                potemkin_pci::AddressKind::Port => AddressKind::Port,
            },
            // The ROM's code is `POTEMKIN_ROM`; configuration space is never mapped.
            bar: mapping.space.to_code().into(),
        }
    }
}

impl Rehook for Callbacks {
    fn map(&self, mapping: potemkin_pci::Mapping) -> Result<(), RehookError> {
        let Some(map) = self.map else { return Ok(()) };
        let mapping = Mapping::from(mapping);
        match callback(|| map(self.user, ptr::from_ref(&mapping))) {
            0 => Ok(()),
            code => Err(RehookError::new(format!("the VMM's callback gave {code}"))),
        }
    }

    fn unmap(&self, mapping: potemkin_pci::Mapping) {
        let Some(unmap) = self.unmap else { return };
        let mapping = Mapping::from(mapping);
        callback(|| unmap(self.user, ptr::from_ref(&mapping)));
    }
}
