//! Where a function sits: segment, bus, device, function.

use std::{fmt, str::FromStr};

/// A function's address, written `0000:00:03.0`: segment, bus and device in hexadecimal, function 0 to 7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    segment: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// The function at this address; `None` when `device` is above 31 or `function` above 7.
    #[must_use]
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device > 31 || function > 7 {
            return None;
        }
        Some(Self {
            segment,
            bus,
            device,
            function,
        })
    }

    /// The segment (PCI domain).
    #[must_use]
    pub const fn segment(self) -> u16 {
        self.segment
    }

    /// The bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// The device, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.device
    }

    /// The function, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            bus,
            device,
            function,
        } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// The text is no PCI address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PCI address {text:?}: expected segment:bus:device.function, such as 0000:00:03.0")]
pub struct ParseAddressError {
    text: String,
}

impl FromStr for PciAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseAddressError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (text, function) = text.split_once('.')?;
    let (segment, text) = text.split_once(':')?;
    let (bus, device) = text.split_once(':')?;
    PciAddress::new(
        hex(segment, 4)?,
        u8::try_from(hex(bus, 2)?).ok()?,
        u8::try_from(hex(device, 2)?).ok()?,
        u8::try_from(hex(function, 1)?).ok()?,
    )
}

/// Exactly `digits` hexadecimal digits: `from_str_radix` alone would take a sign.
fn hex(text: &str, digits: usize) -> Option<u16> {
    let valid = text.len() == digits && text.bytes().all(|c| c.is_ascii_hexdigit());
    valid.then(|| u16::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_prints_as_it_is_written() {
        for text in ["0000:00:03.0", "ffff:ff:1f.7", "00a0:0b:00.1"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in [
            "",
            "00:03.0",
            "0000:00:03",
            "0000:00:20.0",
            "0000:00:03.8",
            "0000:00:+3.0",
            "0000:00:3.0",
            "00000:00:03.0",
            "0000:00:03.00",
            "0000:00:03:0",
            "0000:00:0é.0",
        ] {
            let error = text.parse::<PciAddress>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")));
        }
    }

    #[test]
    fn device_and_function_are_bounded() {
        assert!(PciAddress::new(0, 0, 31, 7).is_some());
        assert!(PciAddress::new(0, 0, 32, 0).is_none());
        assert!(PciAddress::new(0, 0, 0, 8).is_none());
    }
}
