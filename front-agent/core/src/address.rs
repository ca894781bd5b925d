//! Where a guest's address leads: by what the VMM has mapped, else by the base registers of a PCI function; by the fixed ranges of a platform
//! function.

use potemkin_pci::{AddressKind, Space, Width, decode_memory, decode_port};

use crate::{device::FrontDevice, outcome::Outcome};

/// What an address of this function is.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// None: the function takes the access and does nothing with it.
    register: Option<(Space, u64)>,
    /// The operator wants to see it.
    logged: bool,
}

impl FrontDevice {
    /// Reads at a guest-physical address. Where this function does not answer, `out` stays as it is.
    pub async fn memory_read(&self, address: u64, out: &mut [u8]) -> Outcome {
        self.read_at(AddressKind::Memory, address, out).await
    }

    /// Writes at a guest-physical address.
    pub async fn memory_write(&self, address: u64, data: &[u8]) -> Outcome {
        self.write_at(AddressKind::Memory, address, data).await
    }

    /// Reads a port. Where this function does not answer, `out` stays as it is.
    pub async fn port_read(&self, port: u16, out: &mut [u8]) -> Outcome {
        self.read_at(AddressKind::Port, port.into(), out).await
    }

    /// Writes a port.
    pub async fn port_write(&self, port: u16, data: &[u8]) -> Outcome {
        self.write_at(AddressKind::Port, port.into(), data).await
    }

    /// Reads a port as often as `out` has elements, as one access. Where this function does not answer, `out` stays as it is.
    pub async fn port_string_read(&self, port: u16, width: Width, out: &mut [u8]) -> Outcome {
        let Some(found) = self.find(AddressKind::Port, port.into(), width.bytes()) else {
            return Outcome::NotDecoded;
        };
        let outcome = match found.register {
            Some((space, offset)) => self.string_read(space, offset, width, out).await,
            None => ignored(out),
        };
        found.show("read", AddressKind::Port, port.into(), out);
        outcome
    }

    /// Writes the elements in `data` to a port, as one access.
    pub async fn port_string_write(&self, port: u16, width: Width, data: &[u8]) -> Outcome {
        let Some(found) = self.find(AddressKind::Port, port.into(), width.bytes()) else {
            return Outcome::NotDecoded;
        };
        found.show("write", AddressKind::Port, port.into(), data);
        match found.register {
            Some((space, offset)) => self.string_write(space, offset, width, data).await,
            None => Outcome::Done,
        }
    }

    async fn read_at(&self, bus: AddressKind, address: u64, out: &mut [u8]) -> Outcome {
        let Some(found) = self.find(bus, address, out.len()) else {
            return Outcome::NotDecoded;
        };
        let outcome = match found.register {
            Some((space, offset)) => self.region_read(space, offset, out).await,
            None => ignored(out),
        };
        found.show("read", bus, address, out);
        outcome
    }

    async fn write_at(&self, bus: AddressKind, address: u64, data: &[u8]) -> Outcome {
        let Some(found) = self.find(bus, address, data.len()) else {
            return Outcome::NotDecoded;
        };
        found.show("write", bus, address, data);
        match found.register {
            Some((space, offset)) => self.region_write(space, offset, data).await,
            None => Outcome::Done,
        }
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
        let register = self.hooks.find(bus, address, length).unwrap_or_else(|| {
            self.with_config(|config| match bus {
                AddressKind::Memory => decode_memory(config, address, length),
                AddressKind::Port => decode_port(config, u16::try_from(address).ok()?, length),
            })
        });
        Some(Found {
            register: Some(register?),
            logged: false,
        })
    }
}

/// A range that the function takes and does nothing with.
fn ignored(out: &mut [u8]) -> Outcome {
    out.fill(0xff);
    Outcome::Done
}

impl Found {
    /// At debug level, under a target of its own: a device declares what is shown, and must not be able to fill the log.
    fn show(self, what: &str, bus: AddressKind, address: u64, data: &[u8]) {
        if self.logged {
            tracing::debug!(target: "potemkin::access", ?bus, address = format_args!("{address:#x}"), data = format_args!("{data:02x?}"), "{what}");
        }
    }
}
