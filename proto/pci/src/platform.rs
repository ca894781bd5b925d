//! Platform functions: devices without PCI configuration space, whose ports and memory are at fixed addresses.
//!
//! The ranges that go to the device are its *regions*, numbered 0 to 5 as BARs are: an access travels as ([`Space::Bar`] of the
//! region, offset in it), never as an address.

use crate::{AddressKind, BarIndex, Mapping, Space};

/// More ranges than any device at fixed addresses has.
const RANGES_MAX: usize = 64;

/// Port numbers have 16 bits.
const PORTS: u64 = 1 << 16;

/// As large as the largest BAR.
const REGION_BYTES_MAX: u64 = 1 << 40;

/// Where a platform function is. Part of a valid [`Descriptor`](crate::Descriptor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// In order of bus and address, none overlapping another.
    ranges: Vec<PlatformRange>,
    line: Option<u32>,
}

/// The unchecked form of a [`Platform`], as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformParts {
    /// At most 64, in any order.
    pub ranges: Vec<PlatformRange>,
    /// The interrupt line, if there is one: a number that the VMM knows (an ISA IRQ or a GSI).
    pub line: Option<u32>,
}

/// A range of addresses that a platform function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlatformRange {
    /// Which addresses.
    pub bus: AddressKind,
    /// The first one.
    pub address: u64,
    /// Bytes (of ports: how many), at least 1.
    pub length: u64,
    /// What becomes of an access.
    pub action: RangeAction,
    /// Each access is shown to the operator (at debug level).
    pub logged: bool,
}

/// What becomes of an access to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RangeAction {
    /// It goes to the device, as an access to this region.
    Forward(BarIndex),
    /// It ends here: reads give all-ones, writes nothing.
    Ignore,
}

/// Platform ranges that are not valid. Each message begins with the field's name in the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// A function takes part in the machine somewhere.
    #[error("platform.ranges: there are none")]
    NoRange,
    /// More than any device needs.
    #[error("platform.ranges: {count} of them, at most {RANGES_MAX} are allowed")]
    TooManyRanges {
        /// How many.
        count: usize,
    },
    /// It is empty, or does not end within its bus's addresses, or a region is above 1 TiB.
    #[error("platform.ranges[{position}].length: {length} from {address:#x} on")]
    Length {
        /// Position in the list.
        position: usize,
        /// First address.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// Two ranges have one region.
    #[error("platform.ranges[{position}].region: {region} is another range's too")]
    RegionTaken {
        /// Position in the list.
        position: usize,
        /// Its number.
        region: BarIndex,
    },
    /// Two ranges claim one address.
    #[error("platform.ranges: two of them have {address:#x}")]
    Overlap {
        /// The first address that both have.
        address: u64,
    },
    /// A platform function has no PCI parts.
    #[error("{field}: it is set, but a platform function has none")]
    PciPart {
        /// The descriptor's field.
        field: &'static str,
    },
    /// Its interrupt line is its only interrupt.
    #[error("interrupts.intx_pin: {declared}, expected {expected} by platform.line")]
    Interrupt {
        /// What the field says.
        declared: u32,
        /// 1 with a line, else 0.
        expected: u32,
    },
}

impl PlatformRange {
    /// The range, for the device's region.
    #[must_use]
    pub const fn forward(region: BarIndex, bus: AddressKind, address: u64, length: u64) -> Self {
        Self {
            bus,
            address,
            length,
            action: RangeAction::Forward(region),
            logged: false,
        }
    }

    /// The range, ignored.
    #[must_use]
    pub const fn ignore(bus: AddressKind, address: u64, length: u64) -> Self {
        Self {
            bus,
            address,
            length,
            action: RangeAction::Ignore,
            logged: false,
        }
    }

    /// The same range, each access shown.
    #[must_use]
    pub const fn logged(mut self) -> Self {
        self.logged = true;
        self
    }

    /// The region that it is, and where in it an access lies; `None` when it is ignored.
    #[must_use]
    pub const fn region(&self, address: u64) -> Option<(Space, u64)> {
        match self.action {
            RangeAction::Forward(index) => {
                Some((Space::Bar(index), address.wrapping_sub(self.address)))
            }
            RangeAction::Ignore => None,
        }
    }

    /// The range as a VMM hooks it; `None` when it is ignored.
    #[must_use]
    pub const fn mapping(&self) -> Option<Mapping> {
        match self.action {
            RangeAction::Forward(index) => Some(Mapping {
                kind: self.bus,
                address: self.address,
                size: self.length,
                space: Space::Bar(index),
            }),
            RangeAction::Ignore => None,
        }
    }

    /// Whether all of an access lies in it.
    const fn holds(&self, address: u64, length: u64) -> bool {
        let Some(offset) = address.checked_sub(self.address) else {
            return false;
        };
        offset < self.length && length > 0 && length <= self.length - offset
    }

    fn validate(&self, position: usize) -> Result<(), PlatformError> {
        let limit = match self.bus {
            AddressKind::Port => PORTS,
            AddressKind::Memory => u64::MAX,
        };
        let end = self.address.checked_add(self.length);
        let forwarded = matches!(self.action, RangeAction::Forward(_));
        let fits = end.is_some_and(|end| end <= limit)
            && self.length > 0
            && !(forwarded && self.length > REGION_BYTES_MAX);
        fits.then_some(()).ok_or(PlatformError::Length {
            position,
            address: self.address,
            length: self.length,
        })
    }
}

impl Platform {
    /// In order of bus and address.
    #[must_use]
    pub fn ranges(&self) -> &[PlatformRange] {
        &self.ranges
    }

    /// The interrupt line's number, if there is one.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        self.line
    }

    /// The range in which all of an access lies.
    #[must_use]
    pub fn range_at(&self, bus: AddressKind, address: u64, length: u64) -> Option<&PlatformRange> {
        let after = self
            .ranges
            .partition_point(|range| (range.bus, range.address) <= (bus, address));
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (range.bus == bus && range.holds(address, length)).then_some(range)
    }

    /// The range that is this region.
    #[must_use]
    pub fn region(&self, index: BarIndex) -> Option<&PlatformRange> {
        let action = RangeAction::Forward(index);
        self.ranges.iter().find(|range| range.action == action)
    }
}

impl TryFrom<PlatformParts> for Platform {
    type Error = PlatformError;

    /// # Errors
    /// The first thing found wrong.
    fn try_from(parts: PlatformParts) -> Result<Self, PlatformError> {
        let PlatformParts { mut ranges, line } = parts;
        match ranges.len() {
            0 => return Err(PlatformError::NoRange),
            count if count > RANGES_MAX => return Err(PlatformError::TooManyRanges { count }),
            _ => {}
        }
        for (position, range) in ranges.iter().enumerate() {
            range.validate(position)?;
            if let RangeAction::Forward(region) = range.action
                && ranges[..position]
                    .iter()
                    .any(|other| other.action == range.action)
            {
                return Err(PlatformError::RegionTaken { position, region });
            }
        }
        ranges.sort_by_key(|range| (range.bus, range.address));
        validate_disjoint(&ranges)?;
        Ok(Self { ranges, line })
    }
}

/// `ranges` is sorted by bus and address.
fn validate_disjoint(ranges: &[PlatformRange]) -> Result<(), PlatformError> {
    for pair in ranges.windows(2) {
        if let [before, after] = pair
            && before.bus == after.bus
            && before.holds(after.address, 1)
        {
            let address = after.address;
            return Err(PlatformError::Overlap { address });
        }
    }
    Ok(())
}

impl From<&Platform> for PlatformParts {
    fn from(platform: &Platform) -> Self {
        Self {
            ranges: platform.ranges.clone(),
            line: platform.line,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parts(ranges: &[PlatformRange]) -> PlatformParts {
        PlatformParts {
            ranges: ranges.to_vec(),
            line: Some(4),
        }
    }

    fn uart() -> PlatformRange {
        PlatformRange::forward(BarIndex::B0, AddressKind::Port, 0x3f8, 8)
    }

    #[test]
    fn an_access_is_found_in_its_range_only() {
        let memory = PlatformRange::forward(BarIndex::B1, AddressKind::Memory, 0x3f8, 0x100);
        let quiet = PlatformRange::ignore(AddressKind::Port, 0x400, 1);
        let platform = Platform::try_from(parts(&[memory, quiet, uart()])).unwrap();
        let at = |bus, address, length| platform.range_at(bus, address, length);

        assert_eq!(at(AddressKind::Port, 0x3f8, 8), Some(&uart()));
        assert_eq!(at(AddressKind::Port, 0x3ff, 1), Some(&uart()));
        assert_eq!(at(AddressKind::Port, 0x3ff, 2), None, "across the edge");
        assert_eq!(at(AddressKind::Port, 0x3f7, 1), None);
        assert_eq!(at(AddressKind::Port, 0x400, 1), Some(&quiet));
        assert_eq!(at(AddressKind::Memory, 0x4f7, 1), Some(&memory));
        assert_eq!(at(AddressKind::Memory, 0x4f8, 1), None);
        assert_eq!(
            uart().region(0x3fb),
            Some((Space::Bar(BarIndex::B0), 3)),
            "relative to the range"
        );
        assert_eq!(quiet.region(0x400), None);
    }

    #[test]
    fn what_no_machine_has_is_refused_by_name() {
        let refused = |ranges: &[PlatformRange]| Platform::try_from(parts(ranges)).unwrap_err();
        let with = |change: fn(&mut PlatformRange)| {
            let mut range = uart();
            change(&mut range);
            range
        };

        assert_eq!(refused(&[]), PlatformError::NoRange);
        let empty = refused(&[with(|range| range.length = 0)]);
        assert_eq!(
            empty.to_string(),
            "platform.ranges[0].length: 0 from 0x3f8 on"
        );
        let beyond = with(|range| range.length = 0x1_0000);
        assert!(matches!(refused(&[beyond]), PlatformError::Length { .. }));
        let wraps = PlatformRange::ignore(AddressKind::Memory, u64::MAX, 2);
        let position = 1;
        assert!(
            matches!(refused(&[uart(), wraps]), PlatformError::Length { position: at, .. } if at == position)
        );
        let twice = with(|range| range.address = 0x2f8);
        assert!(matches!(
            refused(&[uart(), twice]),
            PlatformError::RegionTaken { position: 1, .. }
        ));
        let inside = PlatformRange::ignore(AddressKind::Port, 0x3ff, 4);
        assert_eq!(
            refused(&[inside, uart()]),
            PlatformError::Overlap { address: 0x3ff }
        );
        let many: Vec<_> = (0..65)
            .map(|n| PlatformRange::ignore(AddressKind::Port, n, 1))
            .collect();
        assert_eq!(refused(&many), PlatformError::TooManyRanges { count: 65 });
    }
}
