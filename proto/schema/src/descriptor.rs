//! Descriptors on the wire and in code: [`decode`] makes a [`Descriptor`] of a [`v1::DeviceDescriptor`]; `From` goes back.

use bytes::Bytes;
use potemkin_pci::{
    AddressKind, BarIndex, BarKind, BarParts, Descriptor, DescriptorError, DescriptorParts,
    FailedRegisterParts, InterruptParts, PlatformParts, PlatformRange, RangeAction, RangeParts,
    RecoveryParts, ResetWriteParts, WritePolicy,
};

use crate::v1;

/// A descriptor message that is not valid. The message names the field and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorFieldError {
    /// A BAR of a kind that this version does not know, or of none.
    #[error("bars[{position}].kind: {value} is not a known kind of BAR")]
    BarKind {
        /// Position in the list.
        position: usize,
        /// The enum's number.
        value: i32,
    },
    /// A write policy of configuration space that this version does not know.
    #[error("config_writes: {value} is not a known write policy")]
    ConfigWrites {
        /// The enum's number.
        value: i32,
    },
    /// A write policy that this version does not know.
    #[error("ranges[{position}].writes: {value} is not a known write policy")]
    WritePolicy {
        /// Position in the list.
        position: usize,
        /// The enum's number.
        value: i32,
    },
    /// A platform range on a bus that this version does not know.
    #[error("platform.ranges[{position}].bus: {value} is not a known bus")]
    AddressBus {
        /// Position in the list.
        position: usize,
        /// The enum's number.
        value: i32,
    },
    /// A platform range with an action that this version does not know.
    #[error("platform.ranges[{position}].action: {value} is not a known action")]
    RangeAction {
        /// Position in the list.
        position: usize,
        /// The enum's number.
        value: i32,
    },
    /// A forwarded platform range of no region.
    #[error("platform.ranges[{position}].region: {value} is above 5")]
    Region {
        /// Position in the list.
        position: usize,
        /// The number.
        value: u32,
    },
    /// All numbers are known, but what they say is not valid.
    #[error(transparent)]
    Invalid(#[from] DescriptorError),
}

/// The descriptor that a message describes.
///
/// # Errors
/// The first thing found wrong, named.
pub fn decode(message: v1::DeviceDescriptor) -> Result<Descriptor, DescriptorFieldError> {
    let interrupts = message.interrupts.unwrap_or_default();
    let parts = DescriptorParts {
        config_image: message.config_image.into(),
        config_writable: message.config_writable.into(),
        config_write_one_to_clear: message.config_write_one_to_clear.into(),
        config_volatile: message.config_volatile.into(),
        config_forwarded: message.config_forwarded.into(),
        config_writes: policy(message.config_writes)
            .map_err(|value| DescriptorFieldError::ConfigWrites { value })?,
        bars: all(&message.bars, bar)?,
        rom: message.rom.into(),
        ranges: all(&message.ranges, range)?,
        interrupts: InterruptParts {
            intx_pin: interrupts.intx_pin,
            msi_vectors: interrupts.msi_vectors,
            msix_vectors: interrupts.msix_vectors,
        },
        platform: message.platform.as_ref().map(platform).transpose()?,
        recovery: recovery(&message.recovery.unwrap_or_default()),
    };
    Ok(Descriptor::try_from(parts)?)
}

impl From<&Descriptor> for v1::DeviceDescriptor {
    fn from(descriptor: &Descriptor) -> Self {
        let parts = descriptor.to_parts();
        Self {
            config_image: parts.config_image.into(),
            config_writable: parts.config_writable.into(),
            config_write_one_to_clear: parts.config_write_one_to_clear.into(),
            config_volatile: parts.config_volatile.into(),
            config_forwarded: parts.config_forwarded.into(),
            config_writes: policy_message(parts.config_writes).into(),
            bars: parts.bars.iter().map(bar_message).collect(),
            rom: Bytes::from(parts.rom),
            ranges: parts.ranges.iter().map(range_message).collect(),
            interrupts: Some(v1::Interrupts {
                intx_pin: parts.interrupts.intx_pin,
                msi_vectors: parts.interrupts.msi_vectors,
                msix_vectors: parts.interrupts.msix_vectors,
            }),
            platform: parts.platform.as_ref().map(platform_message),
            recovery: recovery_message(&parts.recovery),
        }
    }
}

/// Converts each of a list, telling it its position.
fn all<M, P>(
    messages: &[M],
    convert: impl Fn(usize, &M) -> Result<P, DescriptorFieldError>,
) -> Result<Vec<P>, DescriptorFieldError> {
    let numbered = messages.iter().enumerate();
    numbered.map(|(i, message)| convert(i, message)).collect()
}

fn bar(position: usize, message: &v1::Bar) -> Result<BarParts, DescriptorFieldError> {
    let value = message.kind;
    let kind = match v1::BarKind::try_from(value) {
        Ok(v1::BarKind::Io) => BarKind::Io,
        Ok(v1::BarKind::Memory32) => BarKind::Memory32,
        Ok(v1::BarKind::Memory64) => BarKind::Memory64,
        Ok(v1::BarKind::MemoryBelow1m) => BarKind::MemoryBelow1M,
        Ok(v1::BarKind::Unspecified) | Err(_) => {
            return Err(DescriptorFieldError::BarKind { position, value });
        }
    };
    Ok(BarParts {
        index: message.index,
        kind,
        size: message.size,
        prefetchable: message.prefetchable,
    })
}

fn range(position: usize, message: &v1::RegisterRange) -> Result<RangeParts, DescriptorFieldError> {
    let writes = policy(message.writes)
        .map_err(|value| DescriptorFieldError::WritePolicy { position, value })?;
    Ok(RangeParts {
        bar: message.bar,
        offset: message.offset,
        length: message.length,
        writes,
        combining: message.combining,
        doorbell: message.doorbell,
        constant: message.constant,
    })
}

/// An unknown one is given back.
fn policy(value: i32) -> Result<Option<WritePolicy>, i32> {
    match v1::WritePolicy::try_from(value) {
        Ok(v1::WritePolicy::Unspecified) => Ok(None),
        Ok(v1::WritePolicy::Posted) => Ok(Some(WritePolicy::Posted)),
        Ok(v1::WritePolicy::NonPosted) => Ok(Some(WritePolicy::NonPosted)),
        Err(_) => Err(value),
    }
}

fn policy_message(policy: Option<WritePolicy>) -> v1::WritePolicy {
    match policy {
        None => v1::WritePolicy::Unspecified,
        Some(WritePolicy::Posted) => v1::WritePolicy::Posted,
        Some(WritePolicy::NonPosted) => v1::WritePolicy::NonPosted,
    }
}

fn platform(message: &v1::Platform) -> Result<PlatformParts, DescriptorFieldError> {
    Ok(PlatformParts {
        ranges: all(&message.ranges, platform_range)?,
        line: message.line,
    })
}

fn platform_range(
    position: usize,
    message: &v1::PlatformRange,
) -> Result<PlatformRange, DescriptorFieldError> {
    let value = message.bus;
    let bus = match v1::AddressBus::try_from(value) {
        Ok(v1::AddressBus::Port) => AddressKind::Port,
        Ok(v1::AddressBus::Memory) => AddressKind::Memory,
        Ok(v1::AddressBus::Unspecified) | Err(_) => {
            return Err(DescriptorFieldError::AddressBus { position, value });
        }
    };
    let value = message.action;
    let action = match v1::RangeAction::try_from(value) {
        Ok(v1::RangeAction::Forward) => RangeAction::Forward(region(position, message.region)?),
        Ok(v1::RangeAction::Ignore) => RangeAction::Ignore,
        Ok(v1::RangeAction::Unspecified) | Err(_) => {
            return Err(DescriptorFieldError::RangeAction { position, value });
        }
    };
    Ok(PlatformRange {
        bus,
        address: message.address,
        length: message.length,
        action,
        logged: message.logged,
    })
}

fn region(position: usize, value: u32) -> Result<BarIndex, DescriptorFieldError> {
    u8::try_from(value)
        .ok()
        .and_then(BarIndex::new)
        .ok_or(DescriptorFieldError::Region { position, value })
}

fn recovery(message: &v1::Recovery) -> RecoveryParts {
    let failed = |register: &v1::FailedRegister| FailedRegisterParts {
        bar: register.bar,
        offset: register.offset,
        width: register.width,
        value: register.value,
    };
    let reset = |write: &v1::ResetWrite| ResetWriteParts {
        bar: write.bar,
        offset: write.offset,
        width: write.width,
        mask: write.mask,
        value: write.value,
    };
    RecoveryParts {
        failed_image: message.failed_image.iter().map(failed).collect(),
        reset_writes: message.reset_writes.iter().map(reset).collect(),
    }
}

/// None when there is nothing to say, as before there was such a field.
fn recovery_message(parts: &RecoveryParts) -> Option<v1::Recovery> {
    let failed = |register: &FailedRegisterParts| v1::FailedRegister {
        bar: register.bar,
        offset: register.offset,
        width: register.width,
        value: register.value,
    };
    let reset = |write: &ResetWriteParts| v1::ResetWrite {
        bar: write.bar,
        offset: write.offset,
        width: write.width,
        mask: write.mask,
        value: write.value,
    };
    let message = v1::Recovery {
        failed_image: parts.failed_image.iter().map(failed).collect(),
        reset_writes: parts.reset_writes.iter().map(reset).collect(),
    };
    (parts != &RecoveryParts::default()).then_some(message)
}

fn platform_message(platform: &PlatformParts) -> v1::Platform {
    v1::Platform {
        ranges: platform.ranges.iter().map(platform_range_message).collect(),
        line: platform.line,
    }
}

fn platform_range_message(range: &PlatformRange) -> v1::PlatformRange {
    let bus = match range.bus {
        AddressKind::Port => v1::AddressBus::Port,
        AddressKind::Memory => v1::AddressBus::Memory,
    };
    let (action, region) = match range.action {
        RangeAction::Forward(region) => (v1::RangeAction::Forward, region.get()),
        RangeAction::Ignore => (v1::RangeAction::Ignore, 0),
    };
    v1::PlatformRange {
        bus: bus.into(),
        address: range.address,
        length: range.length,
        action: action.into(),
        region: region.into(),
        logged: range.logged,
    }
}

fn bar_message(bar: &BarParts) -> v1::Bar {
    let kind = match bar.kind {
        BarKind::Io => v1::BarKind::Io,
        BarKind::Memory32 => v1::BarKind::Memory32,
        BarKind::Memory64 => v1::BarKind::Memory64,
        BarKind::MemoryBelow1M => v1::BarKind::MemoryBelow1m,
    };
    v1::Bar {
        index: bar.index,
        kind: kind.into(),
        size: bar.size,
        prefetchable: bar.prefetchable,
    }
}

fn range_message(range: &RangeParts) -> v1::RegisterRange {
    v1::RegisterRange {
        bar: range.bar,
        offset: range.offset,
        length: range.length,
        writes: policy_message(range.writes).into(),
        combining: range.combining,
        doorbell: range.doorbell,
        constant: range.constant,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use potemkin_pci::{
        Bar, Capability, DescriptorBuilder, FailedRegister, PlatformBuilder, RegisterRange,
        ResetWrite, Width,
    };
    use prost::Message;

    use super::*;

    fn descriptor() -> Descriptor {
        DescriptorBuilder::new(0x1234, 0x5678)
            .bar(BarIndex::B0, Bar::memory32(4096))
            .bar(BarIndex::B1, Bar::io(16))
            .bar(BarIndex::B2, Bar::memory64(1 << 33).prefetchable())
            .bar(BarIndex::B5, Bar::memory_below_1m(4096))
            .rom(vec![0x55; 2048])
            .capability(Capability::msi(4, true).unwrap())
            .intx_pin(3)
            .range(RegisterRange::new(BarIndex::B0, 0, 8).doorbell())
            .range(RegisterRange::new(BarIndex::B0, 8, 8).writes(WritePolicy::NonPosted))
            .range(RegisterRange::new(BarIndex::B1, 0, 4).writes(WritePolicy::Posted))
            .range(RegisterRange::new(BarIndex::B2, 0, 1 << 32).combining())
            .range(RegisterRange::new(BarIndex::B5, 0, 16).constant())
            .volatile(0xf0, &[0x0f])
            .forwarded(0x04, &[0x04])
            .config_writes(WritePolicy::Posted)
            .failed(FailedRegister {
                bar: BarIndex::B0,
                offset: 0x1c,
                width: Width::B4,
                value: 2,
            })
            .reset_by(ResetWrite {
                bar: BarIndex::B2,
                offset: 0x14,
                width: Width::B2,
                mask: 0x101,
                value: 0x100,
            })
            .build()
            .unwrap()
    }

    fn message() -> v1::DeviceDescriptor {
        v1::DeviceDescriptor::from(&descriptor())
    }

    #[test]
    fn a_descriptor_survives_the_wire() {
        let encoded = message().encode_to_vec();
        let decoded = v1::DeviceDescriptor::decode(encoded.as_slice()).unwrap();
        assert_eq!(decode(decoded), Ok(descriptor()));
    }

    fn platform() -> Descriptor {
        PlatformBuilder::new()
            .at(PlatformRange::forward(BarIndex::B3, AddressKind::Port, 0x60, 5).logged())
            .at(PlatformRange::forward(
                BarIndex::B0,
                AddressKind::Memory,
                1 << 33,
                16,
            ))
            .at(PlatformRange::ignore(AddressKind::Port, 0x80, 1))
            .line(1)
            .failed(FailedRegister {
                bar: BarIndex::B3,
                offset: 4,
                width: Width::B1,
                value: 0xc0,
            })
            .build()
            .unwrap()
    }

    #[test]
    fn a_platform_function_survives_the_wire() {
        let encoded = v1::DeviceDescriptor::from(&platform()).encode_to_vec();
        let decoded = v1::DeviceDescriptor::decode(encoded.as_slice()).unwrap();
        assert_eq!(decode(decoded), Ok(platform()));
    }

    #[test]
    fn unknown_numbers_of_platform_ranges_are_refused_by_name() {
        let refused = |change: fn(&mut v1::PlatformRange)| {
            let mut message = v1::DeviceDescriptor::from(&platform());
            // In order of kind and address: the memory is the first.
            change(&mut message.platform.as_mut().unwrap().ranges[0]);
            decode(message).unwrap_err().to_string()
        };
        for (text, field) in [
            (refused(|range| range.bus = 0), "bus: 0"),
            (refused(|range| range.action = 3), "action: 3"),
            (refused(|range| range.region = 6), "region: 6"),
            (refused(|range| range.length = 0), "length: 0"),
        ] {
            let expected = format!("platform.ranges[0].{field}");
            assert!(text.starts_with(&expected), "{text}");
        }
    }

    #[test]
    fn bars_of_unknown_kinds_are_refused() {
        for value in [0, 5, -1, i32::MAX] {
            let mut message = message();
            message.bars[3].kind = value;
            let error = decode(message).unwrap_err();
            let expected = DescriptorFieldError::BarKind { position: 3, value };
            assert_eq!(error, expected);
            let text = format!("bars[3].kind: {value} is not a known kind of BAR");
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn unknown_write_policies_are_refused() {
        for value in [3, -1] {
            let mut message = message();
            message.ranges[1].writes = value;
            let error = decode(message).unwrap_err();
            let expected = DescriptorFieldError::WritePolicy { position: 1, value };
            assert_eq!(error, expected);
            let mut message = self::message();
            message.config_writes = value;
            let error = decode(message).unwrap_err();
            assert_eq!(error, DescriptorFieldError::ConfigWrites { value });
        }
    }

    #[test]
    fn what_the_model_refuses_is_named_by_its_field() {
        let mut message = message();
        message.bars[0].size = 48;
        let error = decode(message).unwrap_err();
        assert_eq!(error.to_string(), "bars[0].size: 48 is not a power of two");
        let empty = decode(v1::DeviceDescriptor::default()).unwrap_err();
        assert_eq!(
            empty.to_string(),
            "config_image: 0 bytes, expected 256 or 4096"
        );
    }

    #[test]
    fn absent_interrupts_are_none() {
        let bare = DescriptorBuilder::new(1, 2).build().unwrap();
        let mut message = v1::DeviceDescriptor::from(&bare);
        message.interrupts = None;
        assert_eq!(decode(message), Ok(bare));
    }
}
