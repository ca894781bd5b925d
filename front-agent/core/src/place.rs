//! Where a guest's address leads: by the base registers of a PCI function, by the fixed ranges of a platform function.

use potemkin_pci::{AddressBus, Space, decode_memory, decode_port};

use crate::device::FrontDevice;

/// What an address of this function is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// None: the function takes the access and does nothing with it.
    register: Option<(Space, u64)>,
    /// The operator wants to see it.
    logged: bool,
}

impl FrontDevice {
    /// Reads at a guest-physical address; `None` when this function does not answer there.
    pub async fn memory_read(&self, address: u64, out: &mut [u8]) -> Option<()> {
        self.read_at(AddressBus::Memory, address, out).await
    }

    /// Writes at a guest-physical address; `None` when this function does not answer there.
    pub async fn memory_write(&self, address: u64, data: &[u8]) -> Option<()> {
        self.write_at(AddressBus::Memory, address, data).await
    }

    /// Reads a port; `None` when this function does not answer there.
    pub async fn port_read(&self, port: u16, out: &mut [u8]) -> Option<()> {
        self.read_at(AddressBus::Port, port.into(), out).await
    }

    /// Writes a port; `None` when this function does not answer there.
    pub async fn port_write(&self, port: u16, data: &[u8]) -> Option<()> {
        self.write_at(AddressBus::Port, port.into(), data).await
    }

    async fn read_at(&self, bus: AddressBus, address: u64, out: &mut [u8]) -> Option<()> {
        let place = self.place(bus, address, out.len())?;
        match place.register {
            Some((space, offset)) => self.region_read(space, offset, out).await,
            None => out.fill(0xff),
        }
        place.show("read", bus, address, out);
        Some(())
    }

    async fn write_at(&self, bus: AddressBus, address: u64, data: &[u8]) -> Option<()> {
        let place = self.place(bus, address, data.len())?;
        place.show("write", bus, address, data);
        if let Some((space, offset)) = place.register {
            self.region_write(space, offset, data).await;
        }
        Some(())
    }

    fn place(&self, bus: AddressBus, address: u64, length: usize) -> Option<Place> {
        let length = length as u64;
        if let Some(platform) = self.descriptor().platform() {
            let range = platform.range_at(bus, address, length)?;
            return Some(Place {
                register: range.region(address),
                logged: range.logged,
            });
        }
        let register = self.with_config(|config| match bus {
            AddressBus::Memory => decode_memory(config, address, length),
            AddressBus::Port => decode_port(config, u16::try_from(address).ok()?, length),
        });
        Some(Place {
            register: Some(register?),
            logged: false,
        })
    }
}

impl Place {
    /// At debug level, under a target of its own: a device declares what is shown, and must not be able to fill the log.
    fn show(self, what: &str, bus: AddressBus, address: u64, data: &[u8]) {
        if self.logged {
            tracing::debug!(target: "potemkin::access", ?bus, address = format_args!("{address:#x}"), data = format_args!("{data:02x?}"), "{what}");
        }
    }
}
