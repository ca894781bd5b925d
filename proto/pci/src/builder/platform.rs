//! Builds descriptors of platform functions.

use super::BuildError;
use crate::{
    Descriptor, DescriptorParts, FailedRegister, InterruptParts, PlatformParts, PlatformRange,
    RangeParts, RecoveryParts, RegisterRange, ResetWrite,
};

/// Collects where a platform function is; [`Self::build`] checks it.
///
/// ```
/// use potemkin_pci::{AddressKind, BarIndex, PlatformBuilder, PlatformRange};
///
/// # fn main() -> Result<(), potemkin_pci::BuildError> {
/// let serial_port = PlatformBuilder::new()
///     .at(PlatformRange::forward(BarIndex::B0, AddressKind::Port, 0x3f8, 8))
///     .line(4)
///     .build()?;
/// assert!(serial_port.platform().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PlatformBuilder {
    platform: PlatformParts,
    registers: Vec<RegisterRange>,
    recovery: RecoveryParts,
}

impl PlatformBuilder {
    /// A function that is nowhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range of addresses.
    pub fn at(mut self, range: PlatformRange) -> Self {
        self.platform.ranges.push(range);
        self
    }

    /// Gives the function an interrupt line, by the number that the VMM knows it by (an ISA IRQ or a GSI).
    pub fn line(mut self, line: u32) -> Self {
        self.platform.line = Some(line);
        self
    }

    /// Says how a range of a region's registers is treated.
    pub fn registers(mut self, range: RegisterRange) -> Self {
        self.registers.push(range);
        self
    }

    /// As [`DescriptorBuilder::failed`](crate::DescriptorBuilder::failed).
    pub fn failed(mut self, register: FailedRegister) -> Self {
        self.recovery.failed_image.push((&register).into());
        self
    }

    /// Says by which write the guest resets the function. (There is no other way but its VMM's.)
    pub fn reset_by(mut self, write: ResetWrite) -> Self {
        self.recovery.reset_writes.push((&write).into());
        self
    }

    /// Checks all of it.
    ///
    /// # Errors
    /// The first thing that is not valid.
    pub fn build(self) -> Result<Descriptor, BuildError> {
        let parts = DescriptorParts {
            ranges: self.registers.iter().map(RangeParts::from).collect(),
            interrupts: InterruptParts {
                intx_pin: self.platform.line.is_some().into(),
                ..InterruptParts::default()
            },
            platform: Some(self.platform),
            recovery: self.recovery,
            ..DescriptorParts::default()
        };
        Ok(Descriptor::try_from(parts)?)
    }
}
