//! Any command that a client may send.

use super::device::{DeviceInfo, IrqIndex, IrqInfo, RegionInfo, check_argsz};
use super::{DmaMap, DmaUnmap, INDEX_COUNT, RegionAccess, SetIrqs, Version, WriteMulti};
use crate::error::{DecodeError, Reason};
use crate::wire::Fields;
use crate::{Command, Header};

/// A command from a client to a server, decoded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Agree on a version and limits.
    Version(Version),
    /// Announce guest memory.
    DmaMap(DmaMap),
    /// Withdraw guest memory.
    DmaUnmap(DmaUnmap),
    /// Number of regions and interrupt types.
    DeviceGetInfo,
    /// About the region with this index.
    DeviceGetRegionInfo(u32),
    /// Signalling descriptors for the region with this index.
    DeviceGetRegionIoFds(u32),
    /// About an interrupt type.
    DeviceGetIrqInfo(IrqIndex),
    /// Connect, mask, unmask or trigger interrupts.
    DeviceSetIrqs(SetIrqs<'a>),
    /// Read from a region.
    RegionRead(RegionAccess),
    /// Write this data to a region.
    RegionWrite(RegionAccess, &'a [u8]),
    /// Several small region writes.
    RegionWriteMulti(WriteMulti<'a>),
    /// Reset the device.
    DeviceReset,
}

impl<'a> Request<'a> {
    /// Reads the payload that `header` announces. `limit` bounds the bytes of one region access.
    ///
    /// # Errors
    ///
    /// When the command is unknown or not a client's to send ([`DecodeError::errno`] is `ENOTSUP` then), or a field of
    /// it is wrong.
    pub fn decode(header: &Header, payload: &'a [u8], limit: u32) -> Result<Self, DecodeError> {
        let Some(command) = header.known_command() else {
            return Err(DecodeError::new(
                "header",
                "command",
                Reason::Unsupported(header.command.into()),
            ));
        };
        Ok(match command {
            Command::RegionRead => {
                Self::RegionRead(RegionAccess::decode(command.name(), payload, limit)?)
            }
            Command::RegionWrite => {
                let (access, data) =
                    RegionAccess::decode_with_data(command.name(), payload, limit)?;
                Self::RegionWrite(access, data)
            }
            Command::RegionWriteMulti => Self::RegionWriteMulti(WriteMulti::decode(payload)?),
            Command::Version => Self::Version(Version::decode(payload)?),
            Command::DmaMap => Self::DmaMap(DmaMap::decode(payload)?),
            Command::DmaUnmap => Self::DmaUnmap(DmaUnmap::decode(payload)?),
            Command::DeviceGetInfo => {
                DeviceInfo::decode_request(payload)?;
                Self::DeviceGetInfo
            }
            Command::DeviceGetRegionInfo => {
                Self::DeviceGetRegionInfo(RegionInfo::decode_request(payload)?)
            }
            Command::DeviceGetRegionIoFds => Self::DeviceGetRegionIoFds(region_io_fds(payload)?),
            Command::DeviceGetIrqInfo => Self::DeviceGetIrqInfo(IrqInfo::decode_request(payload)?),
            Command::DeviceSetIrqs => Self::DeviceSetIrqs(SetIrqs::decode(payload)?),
            Command::DeviceReset => {
                Fields::new(command.name(), payload).end()?;
                Self::DeviceReset
            }
            Command::DmaRead | Command::DmaWrite => {
                return Err(DecodeError::new(
                    command.name(),
                    "command",
                    Reason::Unsupported(header.command.into()),
                ));
            }
        })
    }
}

/// Reads the index out of the payload of `DEVICE_GET_REGION_IO_FDS`.
fn region_io_fds(payload: &[u8]) -> Result<u32, DecodeError> {
    const LEN: u32 = 16;
    let mut fields = Fields::new(Command::DeviceGetRegionIoFds.name(), payload);
    check_argsz(&mut fields, LEN)?;
    fields.u32("flags")?;
    let index = fields.u32("index")?;
    fields.u32("count")?;
    if index >= INDEX_COUNT {
        let most = u64::from(INDEX_COUNT - 1);
        return Err(fields.fail(
            "index",
            Reason::TooLarge {
                found: index.into(),
                most,
            },
        ));
    }
    fields.end()?;
    Ok(index)
}
