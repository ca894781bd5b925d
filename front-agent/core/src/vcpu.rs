//! The function as vCPU threads use it: calls that wait, on threads without a runtime.
//!
//! The session must be driven by another thread. Each call waits for one deadline at most, and any number of threads may wait at the same time.

use potemkin_pci::{Space, Width};

use crate::{block_on::block_on, device::FrontDevice, outcome::Outcome};

/// What a vCPU's exits ask of a function: `KVM_EXIT_MMIO` and `KVM_EXIT_IO`, in KVM's words.
///
/// Each says whether the function answers at that address; if not, nothing was done and another device may be asked.
pub trait VcpuAccess: Send + Sync {
    /// Reads guest-physical memory, any number of bytes.
    fn mmio_read(&self, address: u64, out: &mut [u8]) -> bool;

    /// Writes guest-physical memory, any number of bytes.
    fn mmio_write(&self, address: u64, data: &[u8]) -> bool;

    /// Reads a port as often as `out` has elements of `width`: one access, as `IN` or as `REP INS`.
    fn pio_read(&self, port: u16, width: Width, out: &mut [u8]) -> bool;

    /// Writes the elements in `data` to a port: one access, as `OUT` or as `REP OUTS`.
    fn pio_write(&self, port: u16, width: Width, data: &[u8]) -> bool;
}

impl VcpuAccess for FrontDevice {
    fn mmio_read(&self, address: u64, out: &mut [u8]) -> bool {
        self.memory_read_blocking(address, out) != Outcome::NotDecoded
    }

    fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        self.memory_write_blocking(address, data) != Outcome::NotDecoded
    }

    fn pio_read(&self, port: u16, width: Width, out: &mut [u8]) -> bool {
        if out.len() == width.bytes() {
            return self.port_read_blocking(port, out) != Outcome::NotDecoded;
        }
        self.port_string_read_blocking(port, width, out) != Outcome::NotDecoded
    }

    fn pio_write(&self, port: u16, width: Width, data: &[u8]) -> bool {
        if data.len() == width.bytes() {
            return self.port_write_blocking(port, data) != Outcome::NotDecoded;
        }
        self.port_string_write_blocking(port, width, data) != Outcome::NotDecoded
    }
}

/// Each as the call without `_blocking`.
impl FrontDevice {
    /// [`FrontDevice::config_read`] for a vCPU thread.
    pub fn config_read_blocking(&self, offset: u16, out: &mut [u8]) -> Outcome {
        block_on(self.config_read(offset, out))
    }

    /// [`FrontDevice::config_write`] for a vCPU thread.
    pub fn config_write_blocking(&self, offset: u16, data: &[u8]) -> Outcome {
        block_on(self.config_write(offset, data)).outcome
    }

    /// [`FrontDevice::region_read`] for a vCPU thread.
    pub fn region_read_blocking(&self, space: Space, offset: u64, out: &mut [u8]) -> Outcome {
        block_on(self.region_read(space, offset, out))
    }

    /// [`FrontDevice::region_write`] for a vCPU thread.
    pub fn region_write_blocking(&self, space: Space, offset: u64, data: &[u8]) -> Outcome {
        block_on(self.region_write(space, offset, data))
    }

    /// [`FrontDevice::memory_read`] for a vCPU thread.
    pub fn memory_read_blocking(&self, address: u64, out: &mut [u8]) -> Outcome {
        block_on(self.memory_read(address, out))
    }

    /// [`FrontDevice::memory_write`] for a vCPU thread.
    pub fn memory_write_blocking(&self, address: u64, data: &[u8]) -> Outcome {
        block_on(self.memory_write(address, data))
    }

    /// [`FrontDevice::port_read`] for a vCPU thread.
    pub fn port_read_blocking(&self, port: u16, out: &mut [u8]) -> Outcome {
        block_on(self.port_read(port, out))
    }

    /// [`FrontDevice::port_write`] for a vCPU thread.
    pub fn port_write_blocking(&self, port: u16, data: &[u8]) -> Outcome {
        block_on(self.port_write(port, data))
    }

    /// [`FrontDevice::string_read`] for a vCPU thread.
    pub fn string_read_blocking(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        out: &mut [u8],
    ) -> Outcome {
        block_on(self.string_read(space, offset, width, out))
    }

    /// [`FrontDevice::string_write`] for a vCPU thread.
    pub fn string_write_blocking(
        &self,
        space: Space,
        offset: u64,
        width: Width,
        data: &[u8],
    ) -> Outcome {
        block_on(self.string_write(space, offset, width, data))
    }

    /// [`FrontDevice::port_string_read`] for a vCPU thread.
    pub fn port_string_read_blocking(&self, port: u16, width: Width, out: &mut [u8]) -> Outcome {
        block_on(self.port_string_read(port, width, out))
    }

    /// [`FrontDevice::port_string_write`] for a vCPU thread.
    pub fn port_string_write_blocking(&self, port: u16, width: Width, data: &[u8]) -> Outcome {
        block_on(self.port_string_write(port, width, data))
    }
}
