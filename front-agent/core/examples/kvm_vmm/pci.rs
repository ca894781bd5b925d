//! A host bridge with one function behind it: configuration mechanism #1 (PCI 3.0 section 3.2.2.3.2), ports 0xcf8 to 0xcff.

use std::sync::Arc;

use potemkin_front_core::FrontDevice;

const ADDRESS: u16 = 0xcf8;
const DATA: std::ops::RangeInclusive<u16> = 0xcfc..=0xcff;
/// Bus 0, device 3, function 0, as bits 8 to 23 of the address register have it.
const SLOT: u32 = 3 << 11;
const ENABLE: u32 = 1 << 31;

/// The bridge's address register, and the function that it may select.
pub(crate) struct HostBridge {
    address: u32,
    device: Arc<FrontDevice>,
}

impl HostBridge {
    pub(crate) fn new(device: Arc<FrontDevice>) -> Self {
        Self { address: 0, device }
    }

    /// False: not a port of the bridge.
    pub(crate) fn read(&self, port: u16, out: &mut [u8]) -> bool {
        if port == ADDRESS && out.len() == 4 {
            out.copy_from_slice(&self.address.to_le_bytes());
            return true;
        }
        if !DATA.contains(&port) {
            return false;
        }
        match self.selected(port) {
            Some(offset) => {
                self.device.config_read_blocking(offset, out);
            }
            None => out.fill(0xff),
        }
        true
    }

    /// False: not a port of the bridge.
    pub(crate) fn write(&mut self, port: u16, data: &[u8]) -> bool {
        if let (ADDRESS, Ok(bytes)) = (port, data.try_into()) {
            self.address = u32::from_le_bytes(bytes);
            return true;
        }
        if !DATA.contains(&port) {
            return false;
        }
        if let Some(offset) = self.selected(port) {
            self.device.config_write_blocking(offset, data);
        }
        true
    }

    /// The offset in our function's configuration space, if the address register selects it.
    fn selected(&self, port: u16) -> Option<u16> {
        let ours = self.address & ENABLE != 0 && self.address & 0x00ff_ff00 == SLOT;
        let register = u16::try_from(self.address & 0xfc).ok()?;
        ours.then_some(register + (port - DATA.start()))
    }
}
