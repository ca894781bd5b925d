//! Builds descriptors: the author says what the function has, and the builder lays out its configuration space.

mod error;
mod layout;
mod platform;
#[cfg(test)]
mod tests;

pub use error::BuildError;
pub use platform::PlatformBuilder;

use crate::{
    Bar, BarIndex, Capability, Class, Descriptor, ExtendedCapability, FailedRegister, Mask,
    RecoveryParts, RegisterRange, ResetWrite, WritePolicy,
};

/// Collects what a function has; [`Self::build`] checks it.
///
/// ```
/// use potemkin_pci::{Bar, BarIndex, Capability, Class, DescriptorBuilder, RegisterRange};
///
/// # fn main() -> Result<(), potemkin_pci::BuildError> {
/// let descriptor = DescriptorBuilder::new(0x1234, 0x11e8)
///     .class(Class { base: 0x00, sub: 0xff, interface: 0x00 })
///     .bar(BarIndex::B0, Bar::memory32(1 << 20))
///     .capability(Capability::msi(1, false)?)
///     .intx_pin(1)
///     .range(RegisterRange::new(BarIndex::B0, 0x98, 8).doorbell())
///     .build()?;
/// assert_eq!(descriptor.interrupts().msi_vectors, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct DescriptorBuilder {
    vendor_id: u16,
    device_id: u16,
    revision: u8,
    class: Class,
    /// Vendor id and id.
    subsystem: (u16, u16),
    bars: Vec<(BarIndex, Bar)>,
    rom: Vec<u8>,
    /// With the offset that the author asked for.
    capabilities: Vec<(Option<u8>, Capability)>,
    extended: Vec<ExtendedCapability>,
    extended_config: bool,
    intx_pin: u8,
    ranges: Vec<RegisterRange>,
    edits: Vec<Edit>,
    config_writes: Option<WritePolicy>,
    recovery: RecoveryParts,
}

/// Bytes to put into the image or into a mask, after all else is laid out.
#[derive(Clone, Debug)]
struct Edit {
    /// `None`: the image.
    mask: Option<Mask>,
    offset: u16,
    bytes: Vec<u8>,
}

impl DescriptorBuilder {
    /// A function with these ids and nothing else. The subsystem has the same ids until told otherwise.
    pub fn new(vendor_id: u16, device_id: u16) -> Self {
        Self {
            vendor_id,
            device_id,
            subsystem: (vendor_id, device_id),
            ..Self::default()
        }
    }

    /// Sets the class code.
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Sets the revision.
    pub fn revision(mut self, revision: u8) -> Self {
        self.revision = revision;
        self
    }

    /// Sets the subsystem's vendor id and id.
    pub fn subsystem(mut self, vendor_id: u16, id: u16) -> Self {
        self.subsystem = (vendor_id, id);
        self
    }

    /// Adds a BAR. One of 64 bits takes the next index too.
    pub fn bar(mut self, index: BarIndex, bar: Bar) -> Self {
        self.bars.push((index, bar));
        self
    }

    /// Gives the function an expansion ROM: a power of two from 2 KiB to 16 MiB.
    pub fn rom(mut self, contents: impl Into<Vec<u8>>) -> Self {
        self.rom = contents.into();
        self
    }

    /// Adds a capability where there is room. The list has the order of the calls.
    pub fn capability(mut self, capability: Capability) -> Self {
        self.capabilities.push((None, capability));
        self
    }

    /// Adds a capability at this offset: a multiple of 4 from 0x40 on.
    pub fn capability_at(mut self, offset: u8, capability: Capability) -> Self {
        self.capabilities.push((Some(offset), capability));
        self
    }

    /// Gives the function 4,096 bytes of configuration space, even without extended capabilities.
    pub fn extended_config(mut self) -> Self {
        self.extended_config = true;
        self
    }

    /// Adds an extended capability, from 0x100 on, and with it 4,096 bytes of configuration space.
    pub fn extended_capability(mut self, capability: ExtendedCapability) -> Self {
        self.extended.push(capability);
        self.extended_config()
    }

    /// Sets the INTx pin, 1 to 4 (A to D). How many MSI and MSI-X vectors there are follows from the capabilities.
    pub fn intx_pin(mut self, pin: u8) -> Self {
        self.intx_pin = pin;
        self
    }

    /// Says how a range of registers is treated.
    pub fn range(mut self, range: RegisterRange) -> Self {
        self.ranges.push(range);
        self
    }

    /// Says what a register reads while the function is latched failed: its session was lost, and the agent keeps it for a guest that recovers by
    /// resetting it. All others give all-ones then.
    pub fn failed(mut self, register: FailedRegister) -> Self {
        self.recovery.failed_image.push((&register).into());
        self
    }

    /// Says by which write the guest resets the function, besides a function-level reset.
    pub fn reset_by(mut self, write: ResetWrite) -> Self {
        self.recovery.reset_writes.push((&write).into());
        self
    }

    /// Puts these bytes into the image at power-on, over what stands there.
    pub fn initial(self, offset: u16, bytes: &[u8]) -> Self {
        self.edit(None, offset, bytes)
    }

    /// Lets the guest change these bits of configuration space too.
    pub fn writable(self, offset: u16, mask: &[u8]) -> Self {
        self.edit(Some(Mask::Writable), offset, mask)
    }

    /// Lets a write of 1 clear these bits of configuration space too.
    pub fn write_one_to_clear(self, offset: u16, mask: &[u8]) -> Self {
        self.edit(Some(Mask::WriteOneToClear), offset, mask)
    }

    /// Has a read of these bits of configuration space ask the host.
    pub fn volatile(self, offset: u16, mask: &[u8]) -> Self {
        self.edit(Some(Mask::Volatile), offset, mask)
    }

    /// Has a write that touches these bits of configuration space sent on to the host.
    pub fn forwarded(self, offset: u16, mask: &[u8]) -> Self {
        self.edit(Some(Mask::Forwarded), offset, mask)
    }

    /// Says whether a guest waits for its writes of forwarded bits; it does without this.
    pub fn config_writes(mut self, policy: WritePolicy) -> Self {
        self.config_writes = Some(policy);
        self
    }

    /// Lays out configuration space and checks all of it.
    ///
    /// # Errors
    /// Two things want one place, something does not fit, or the result is no valid descriptor.
    pub fn build(self) -> Result<Descriptor, BuildError> {
        let parts = layout::lay_out(self)?;
        Ok(Descriptor::try_from(parts)?)
    }

    fn edit(mut self, mask: Option<Mask>, offset: u16, bytes: &[u8]) -> Self {
        self.edits.push(Edit {
            mask,
            offset,
            bytes: bytes.to_vec(),
        });
        self
    }
}
