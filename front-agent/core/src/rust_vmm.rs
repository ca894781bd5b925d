//! For VMMs made of rust-vmm's crates: the function on their buses, their guest memory as windows.

use std::fmt;

use vm_device::{
    DeviceMmio, DevicePio,
    bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset},
};
use vm_memory::{
    Address as _, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _, bitmap::Bitmap,
};

use crate::{
    block_on::block_on, device::FrontDevice, gate::MapError, memory::Window, outcome::Outcome,
};

/// For the vCPU's thread: the session must be driven by another ([`crate::BackgroundFunction`] does).
///
/// `base + offset` is taken as the guest-physical address and decoded by the function's own base registers. So the range that is
/// registered may be one BAR's, moved with it, or all that a host bridge gives to its functions. What the function does not decode reads as
/// all-ones.
///
/// (It is these traits, not the `Mut` ones: those stand behind a lock, and one vCPU's access would wait for another's.)
impl DeviceMmio for FrontDevice {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let found = match base.0.checked_add(offset) {
            Some(address) => block_on(self.memory_read(address, data)),
            None => Outcome::NotDecoded,
        };
        if found == Outcome::NotDecoded {
            data.fill(0xff);
        }
    }

    fn mmio_write(&self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let Some(address) = base.0.checked_add(offset) {
            block_on(self.memory_write(address, data));
        }
    }
}

/// As for memory: `base + offset` is the port.
impl DevicePio for FrontDevice {
    fn pio_read(&self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        let found = match base.0.checked_add(offset) {
            Some(port) => block_on(self.port_read(port, data)),
            None => Outcome::NotDecoded,
        };
        if found == Outcome::NotDecoded {
            data.fill(0xff);
        }
    }

    fn pio_write(&self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if let Some(port) = base.0.checked_add(offset) {
            block_on(self.port_write(port, data));
        }
    }
}

impl FrontDevice {
    /// Lets the device use all regions of a guest's memory, both ways: a window each. What the device writes is marked in the regions' bitmaps.
    ///
    /// # Errors
    /// A region overlaps a window, or there are too many; no window is added then.
    pub fn map_guest_memory<B>(&self, memory: &GuestMemoryMmap<B>) -> Result<(), MapError>
    where
        B: Bitmap + Send + Sync + fmt::Debug + 'static,
    {
        for (index, region) in memory.iter().enumerate() {
            let window = Window {
                address: region.start_addr().raw_value(),
                size: region.len(),
                readable: true,
                writable: true,
                memory: Some(region.get_mmap()),
            };
            if let Err(error) = self.map_window(window) {
                self.unmap_regions(memory, index);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Withdraws what [`FrontDevice::map_guest_memory`] gave, as [`FrontDevice::unmap_window`] does.
    pub fn unmap_guest_memory<B: Bitmap>(&self, memory: &GuestMemoryMmap<B>) {
        self.unmap_regions(memory, usize::MAX);
    }

    fn unmap_regions<B: Bitmap>(&self, memory: &GuestMemoryMmap<B>, count: usize) {
        for region in memory.iter().take(count) {
            self.unmap_window(region.start_addr().raw_value(), region.len());
        }
    }
}
