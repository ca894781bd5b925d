//! Asking about the device, accessing it, and giving it memory and interrupts.

use std::os::fd::BorrowedFd;

use super::Client;
use super::error::ClientError;
use crate::Command;
use crate::message::{
    DeviceInfo, DmaMap, DmaUnmap, IrqIndex, IrqInfo, Protection, RegionAccess, RegionInfo, SetIrqs,
    WriteMulti, WriteOne,
};

impl Client {
    /// Number of regions and interrupt types.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn device_info(&mut self) -> Result<DeviceInfo, ClientError> {
        let reply =
            self.connection
                .call(Command::DeviceGetInfo, &[], DeviceInfo::encode_request)?;
        Ok(DeviceInfo::decode(reply)?)
    }

    /// Size and rights of the region with this index: 0 to 5 BARs, 6 ROM, 7 configuration space.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused when there is no such region.
    pub fn region_info(&mut self, index: u32) -> Result<RegionInfo, ClientError> {
        let command = Command::DeviceGetRegionInfo;
        let reply = self
            .connection
            .call(command, &[], |out| RegionInfo::encode_request(index, out))?;
        Ok(RegionInfo::decode(reply)?)
    }

    /// Number and kind of one type's interrupts.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn irq_info(&mut self, index: IrqIndex) -> Result<IrqInfo, ClientError> {
        let command = Command::DeviceGetIrqInfo;
        let reply = self
            .connection
            .call(command, &[], |out| IrqInfo::encode_request(index, out))?;
        Ok(IrqInfo::decode(reply)?)
    }

    /// Reads `out.len()` bytes of a region at `offset`.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused when the range is not inside the region.
    pub fn region_read(
        &mut self,
        region: u32,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), ClientError> {
        let access = self.access(region, offset, out.len())?;
        let limit = self.max_data_xfer;
        let command = Command::RegionRead;
        let reply = self
            .connection
            .call(command, &[], |request| access.encode(request))?;
        let (answer, data) = RegionAccess::decode_with_data(command.name(), reply, limit)?;
        check_answer(command, answer, access)?;
        out.copy_from_slice(data);
        Ok(())
    }

    /// Writes `data` to a region at `offset`: posted without a reply, so without an error, or with one.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused, if not posted, when the range is not inside the region.
    pub fn region_write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
        posted: bool,
    ) -> Result<(), ClientError> {
        let access = self.access(region, offset, data.len())?;
        let limit = self.max_data_xfer;
        let command = Command::RegionWrite;
        let encode = |request: &mut Vec<u8>| {
            access.encode(request);
            request.extend_from_slice(data);
        };
        if posted {
            self.connection.begin(command, true, encode);
            return self.connection.send_output(&[]);
        }
        let reply = self.connection.call(command, &[], encode)?;
        check_answer(
            command,
            RegionAccess::decode(command.name(), reply, limit)?,
            access,
        )
    }

    /// Several writes of up to 8 bytes each in one message; returns how many the server did.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused when one of them is not possible, and then none before it is undone.
    pub fn region_write_multi(&mut self, writes: &[WriteOne<'_>]) -> Result<u64, ClientError> {
        let command = Command::RegionWriteMulti;
        let reply = self
            .connection
            .call(command, &[], |out| WriteMulti::encode(writes, out))?;
        Ok(WriteMulti::decode_reply(reply)?)
    }

    /// Announces guest memory: with the descriptor of the file it is, beginning at `offset` in it, or without one, for
    /// [`GuestMemory`](super::GuestMemory) to serve.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused when it overlaps a window, or the file is shorter than it should be.
    pub fn dma_map(
        &mut self,
        address: u64,
        size: u64,
        protection: Protection,
        file: Option<(BorrowedFd<'_>, u64)>,
    ) -> Result<(), ClientError> {
        let offset = file.map_or(0, |(_, offset)| offset);
        let map = DmaMap {
            protection,
            offset,
            address,
            size,
        };
        let fd = file.map(|(fd, _)| fd);
        self.connection
            .call(Command::DmaMap, fd.as_slice(), |out| map.encode(out))?;
        Ok(())
    }

    /// Withdraws guest memory.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused when there is no such window.
    pub fn dma_unmap(&mut self, unmap: DmaUnmap) -> Result<(), ClientError> {
        self.connection
            .call(Command::DmaUnmap, &[], |out| unmap.encode(out))?;
        Ok(())
    }

    /// Connects, masks, unmasks or triggers interrupts. With [`IrqData::Eventfd`](crate::message::IrqData::Eventfd)
    /// `fds` has one descriptor for each interrupt of the range, or none to disconnect them.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; refused when there are no such interrupts or a descriptor is not an eventfd.
    pub fn set_irqs(
        &mut self,
        set: &SetIrqs<'_>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let limit = self.max_msg_fds();
        if fds.len() > limit {
            return Err(ClientError::Descriptors {
                count: fds.len(),
                limit,
            });
        }
        self.connection
            .call(Command::DeviceSetIrqs, fds, |out| set.encode(out))?;
        Ok(())
    }

    /// Resets the device.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn reset(&mut self) -> Result<(), ClientError> {
        self.connection.call(Command::DeviceReset, &[], |_| ())?;
        Ok(())
    }

    pub(super) fn access(
        &self,
        region: u32,
        offset: u64,
        count: usize,
    ) -> Result<RegionAccess, ClientError> {
        let limit = self.max_data_xfer;
        match u32::try_from(count) {
            Ok(count) if (1..=limit).contains(&count) => Ok(RegionAccess {
                offset,
                region,
                count,
            }),
            _ => Err(ClientError::Count { count, limit }),
        }
    }
}

fn check_answer(
    command: Command,
    found: RegionAccess,
    expected: RegionAccess,
) -> Result<(), ClientError> {
    if found == expected {
        return Ok(());
    }
    Err(ClientError::Answer {
        command: command.name(),
        found: found.count,
        expected: expected.count,
    })
}
