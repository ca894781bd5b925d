//! Where a guest's address leads: by the base registers of a PCI function, by the fixed ranges of a platform function.

use potemkin_pci::{AddressKind, Space, Width, decode_memory, decode_port};

use crate::device::FrontDevice;

/// What an address of this function is.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// None: the function takes the access and does nothing with it.
    register: Option<(Space, u64)>,
    /// The operator wants to see it.
    logged: bool,
}

impl FrontDevice {
    /// Reads at a guest-physical address; `None` when this function does not answer there.
    pub async fn memory_read(&self, address: u64, out: &mut [u8]) -> Option<()> {
        self.read_at(AddressKind::Memory, address, out).await
    }

    /// Writes at a guest-physical address; `None` when this function does not answer there.
    pub async fn memory_write(&self, address: u64, data: &[u8]) -> Option<()> {
        self.write_at(AddressKind::Memory, address, data).await
    }

    /// Reads a port; `None` when this function does not answer there.
    pub async fn port_read(&self, port: u16, out: &mut [u8]) -> Option<()> {
        self.read_at(AddressKind::Port, port.into(), out).await
    }

    /// Writes a port; `None` when this function does not answer there.
    pub async fn port_write(&self, port: u16, data: &[u8]) -> Option<()> {
        self.write_at(AddressKind::Port, port.into(), data).await
    }

    /// Reads a port as often as `out` has elements, as one access; `None` when this function does not answer there.
    pub async fn port_string_read(&self, port: u16, width: Width, out: &mut [u8]) -> Option<()> {
        let found = self.find(AddressKind::Port, port.into(), width.bytes())?;
        match found.register {
            Some((space, offset)) => self.string_read(space, offset, width, out).await,
            None => out.fill(0xff),
        }
        found.show("read", AddressKind::Port, port.into(), out);
        Some(())
    }

    /// Writes the elements in `data` to a port, as one access; `None` when this function does not answer there.
    pub async fn port_string_write(&self, port: u16, width: Width, data: &[u8]) -> Option<()> {
        let found = self.find(AddressKind::Port, port.into(), width.bytes())?;
        found.show("write", AddressKind::Port, port.into(), data);
        if let Some((space, offset)) = found.register {
            self.string_write(space, offset, width, data).await;
        }
        Some(())
    }

    async fn read_at(&self, bus: AddressKind, address: u64, out: &mut [u8]) -> Option<()> {
        let found = self.find(bus, address, out.len())?;
        match found.register {
            Some((space, offset)) => self.region_read(space, offset, out).await,
            None => out.fill(0xff),
        }
        found.show("read", bus, address, out);
        Some(())
    }

    async fn write_at(&self, bus: AddressKind, address: u64, data: &[u8]) -> Option<()> {
        let found = self.find(bus, address, data.len())?;
        found.show("write", bus, address, data);
        if let Some((space, offset)) = found.register {
            self.region_write(space, offset, data).await;
        }
        Some(())
    }

    fn find(&self, bus: AddressKind, address: u64, length: usize) -> Option<Found> {
        let length = length as u64;
        if let Some(platform) = self.descriptor().platform() {
            let range = platform.range_at(bus, address, length)?;
            return Some(Found {
                register: range.region(address),
                logged: range.logged,
            });
        }
        let register = self.with_config(|config| match bus {
            AddressKind::Memory => decode_memory(config, address, length),
            AddressKind::Port => decode_port(config, u16::try_from(address).ok()?, length),
        });
        Some(Found {
            register: Some(register?),
            logged: false,
        })
    }
}

impl Found {
    /// At debug level, under a target of its own: a device declares what is shown, and must not be able to fill the log.
    fn show(self, what: &str, bus: AddressKind, address: u64, data: &[u8]) {
        if self.logged {
            tracing::debug!(target: "potemkin::access", ?bus, address = format_args!("{address:#x}"), data = format_args!("{data:02x?}"), "{what}");
        }
    }
}
