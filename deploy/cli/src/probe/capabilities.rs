//! Walking the capability lists.

use potemkin_pci::registers::{CAPABILITIES_POINTER, STATUS, STATUS_CAPABILITIES};
use potemkin_vfio_user::ClientError;
use serde::Serialize;

use super::bars::at;
use super::function::Guest;

/// As many as fit behind the header, four bytes each: a list that is longer runs in a circle.
const CAPABILITIES_MAX: usize = 48;
/// As many as fit into extended configuration space, eight bytes each.
const EXTENDED_MAX: usize = 480;
/// Where capabilities may begin.
const FIRST: u8 = 0x40;
/// Where the extended list begins.
const EXTENDED_FIRST: u16 = 0x100;

/// A capability that the function has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Capability {
    pub(crate) offset: u16,
    pub(crate) id: u16,
    pub(crate) extended: bool,
    pub(crate) name: &'static str,
    /// What the capability's registers say, for those that the probe knows.
    pub(crate) details: String,
}

/// Walks the list of conventional configuration space, if there is one.
pub(crate) fn walk(guest: &mut Guest<'_>) -> Result<Vec<Capability>, ClientError> {
    let mut found = Vec::new();
    if guest.config_u16(at(STATUS))? & STATUS_CAPABILITIES == 0 {
        return Ok(found);
    }
    let mut next = guest.config_u8(at(CAPABILITIES_POINTER))? & !0x3;
    while next >= FIRST && found.len() < CAPABILITIES_MAX {
        let offset = u16::from(next);
        let [id, after] = guest.config_u16(offset)?.to_le_bytes();
        if id == 0xff {
            break;
        }
        found.push(Capability {
            offset,
            id: id.into(),
            extended: false,
            name: name(id),
            details: details(guest, offset, id)?,
        });
        next = after & !0x3;
    }
    Ok(found)
}

/// Walks the extended list (PCIe 4.0 section 7.6), if configuration space is that large.
pub(crate) fn walk_extended(guest: &mut Guest<'_>) -> Result<Vec<Capability>, ClientError> {
    let mut found = Vec::new();
    let mut next = EXTENDED_FIRST;
    while next >= EXTENDED_FIRST && found.len() < EXTENDED_MAX {
        let header = guest.config_u32(next)?;
        if header == 0 || header == u32::MAX {
            break;
        }
        let id = (header & 0xffff) as u16;
        found.push(Capability {
            offset: next,
            id,
            extended: true,
            name: extended_name(id),
            details: String::new(),
        });
        next = (header >> 20) as u16 & !0x3;
    }
    Ok(found)
}

fn name(id: u8) -> &'static str {
    match id {
        0x01 => "power management",
        0x05 => "MSI",
        0x09 => "vendor specific",
        0x10 => "PCI Express",
        0x11 => "MSI-X",
        0x12 => "SATA",
        0x13 => "advanced features",
        _ => "other",
    }
}

fn extended_name(id: u16) -> &'static str {
    match id {
        0x01 => "advanced error reporting",
        0x03 => "device serial number",
        0x0b => "vendor specific",
        0x0d => "access control services",
        0x0e => "alternative routing-ID",
        0x10 => "single root I/O virtualisation",
        0x15 => "resizable BAR",
        0x19 => "secondary PCI Express",
        _ => "other",
    }
}

fn details(guest: &mut Guest<'_>, offset: u16, id: u8) -> Result<String, ClientError> {
    Ok(match id {
        0x01 => format!("version {}", guest.config_u16(offset + 2)? & 0x7),
        0x05 => {
            let control = guest.config_u16(offset + 2)?;
            let vectors = 1 << (control >> 1 & 0x7);
            let wide = if control & 1 << 7 != 0 {
                ", 64-bit"
            } else {
                ""
            };
            format!("{vectors} vectors{wide}")
        }
        0x10 => {
            let capabilities = guest.config_u32(offset + 4)?;
            let reset = if capabilities & 1 << 28 != 0 {
                "function-level reset"
            } else {
                ""
            };
            reset.to_owned()
        }
        0x11 => {
            let vectors = (guest.config_u16(offset + 2)? & 0x7ff) + 1;
            let table = guest.config_u32(offset + 4)?;
            format!("{vectors} vectors, table in BAR {}", table & 0x7)
        }
        _ => String::new(),
    })
}
