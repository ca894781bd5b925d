//! Extended capabilities (PCIe 4.0 section 7.6), in configuration space from 0x100 on.

use super::{Block, CapabilityError, or_into};

/// An extended capability for a [`DescriptorBuilder`](crate::DescriptorBuilder). Offsets are relative to its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    pub(crate) block: Block,
}

impl ExtendedCapability {
    /// An extended capability with this id, version and what follows its four header bytes, all of it read-only.
    ///
    /// # Errors
    /// The version is above 15, or `body` longer than the 3,836 bytes that there are.
    pub fn new(id: u16, version: u8, body: &[u8]) -> Result<Self, CapabilityError> {
        let (length, max) = (body.len(), super::walk::EXTENDED_AREA - 4);
        if version > 15 {
            return Err(CapabilityError::Version { version });
        }
        if length > max {
            return Err(CapabilityError::TooLong { length, max });
        }
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend([version, 0]);
        bytes.extend_from_slice(body);
        Ok(Self {
            block: Block::read_only(bytes),
        })
    }

    /// A device serial number (PCIe 4.0 section 7.9.3).
    #[must_use]
    pub fn device_serial_number(serial: u64) -> Self {
        let mut bytes = vec![0x03, 0, 1, 0];
        bytes.extend(serial.to_le_bytes());
        Self {
            block: Block::read_only(bytes),
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u16 {
        u16::from_le_bytes([self.block.bytes[0], self.block.bytes[1]])
    }

    /// All of its bytes; the pointer to the next capability is 0.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes
    }

    /// Lets the guest change these bits too. What lies past the capability's end is dropped.
    #[must_use]
    pub fn writable(mut self, offset: usize, mask: &[u8]) -> Self {
        or_into(&mut self.block.writable, offset, mask);
        self
    }

    /// Lets a write of 1 clear these bits. What lies past the capability's end is dropped.
    #[must_use]
    pub fn write_one_to_clear(mut self, offset: usize, mask: &[u8]) -> Self {
        or_into(&mut self.block.write_one_to_clear, offset, mask);
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_header_holds_id_and_version() {
        let capability = ExtendedCapability::new(0x1234, 2, &[0xaa]).unwrap();
        assert_eq!(capability.id(), 0x1234);
        assert_eq!(capability.bytes(), [0x34, 0x12, 2, 0, 0xaa]);
    }

    #[test]
    fn versions_and_bodies_past_their_fields_are_refused() {
        let version = CapabilityError::Version { version: 16 };
        assert_eq!(ExtendedCapability::new(1, 16, &[]), Err(version));
        assert!(ExtendedCapability::new(1, 15, &[0; 3836]).is_ok());
        let too_long = CapabilityError::TooLong {
            length: 3837,
            max: 3836,
        };
        assert_eq!(ExtendedCapability::new(1, 15, &[0; 3837]), Err(too_long));
    }
}
