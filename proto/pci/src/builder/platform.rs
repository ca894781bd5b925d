//! Builds descriptors of platform functions.

use super::BuildError;
use crate::{
    Descriptor, DescriptorParts, InterruptParts, PlatformParts, PlatformRange, RangeParts,
    RegisterRange,
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
            ..DescriptorParts::default()
        };
        Ok(Descriptor::try_from(parts)?)
    }
}
