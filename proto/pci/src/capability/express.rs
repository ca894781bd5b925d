//! The PCI Express capability of an endpoint (PCIe 4.0 section 7.5.3).

use super::{Capability, id};
use crate::bytes::{le16, le32};

const CAPABILITIES: usize = 0x02;
const DEVICE_CAPABILITIES: usize = 0x04;
/// Offset of the device control register within the capability.
pub(crate) const EXPRESS_CONTROL: usize = 0x08;
const DEVICE_STATUS: usize = 0x0a;
const LINK_CAPABILITIES: usize = 0x0c;
/// Offset of the link control register within the capability.
pub(crate) const LINK_CONTROL: usize = 0x10;
const LINK_STATUS: usize = 0x12;
const DEVICE_CAPABILITIES_2: usize = 0x24;
const DEVICE_CONTROL_2: usize = 0x28;
const LINK_CAPABILITIES_2: usize = 0x2c;

/// Bytes of version 2 of the structure.
pub(crate) const LENGTH_V2: usize = 0x3c;
/// Bytes of version 1 of the structure, for an endpoint.
pub(crate) const LENGTH_V1: usize = 0x14;

const VERSION: u16 = 0xf;
const VERSION_2: u16 = 2;

const ROLE_BASED_ERRORS: u32 = 1 << 15;
const FLR_CAPABLE: u32 = 1 << 28;

const INITIATE_FLR: u16 = 1 << 15;
/// Error reporting, relaxed ordering, no snoop, maximum read request size. The maximum payload is fixed at 128 bytes.
const DEVICE_CONTROL_WRITABLE: u16 = 0x781f;
/// Relaxed ordering, no snoop and read requests of 512 bytes, as the specification's defaults are.
const DEVICE_CONTROL_DEFAULT: u16 = 0x2810;
const DEVICE_STATUS_ERRORS: u16 = 0xf;

/// 2.5 GT/s, one lane, no power management of the link, and that this is compliant.
const LINK_GEN1_X1: u32 = 0x11 | (1 << 22);
const LINK_STATUS_GEN1_X1: u16 = 0x11;
/// ASPM, read completion boundary, common clock, extended synch.
const LINK_CONTROL_WRITABLE: u16 = 0b1100_1011;
/// Of these a function-level reset leaves all as they are (section 6.6.2).
pub(crate) const LINK_CONTROL_KEPT: u16 = LINK_CONTROL_WRITABLE;
const COMPLETION_TIMEOUT_DISABLE: u16 = 1 << 4;
const LINK_SPEED_GEN1: u32 = 1 << 1;

impl Capability {
    /// The capability of a PCI Express endpoint on a link of one lane, with function-level reset if `flr`.
    ///
    /// The link is what software expects to find; it has nothing to do with how fast the device is.
    #[must_use]
    pub fn pci_express_endpoint(flr: bool) -> Self {
        let flr = if flr { FLR_CAPABLE } else { 0 };
        let mut express = Self::new(id::PCI_EXPRESS, &[0; LENGTH_V2 - 2]);
        let block = &mut express.block;
        block.set16(CAPABILITIES, VERSION_2);
        block.set32(DEVICE_CAPABILITIES, ROLE_BASED_ERRORS | flr);
        block.set16(EXPRESS_CONTROL, DEVICE_CONTROL_DEFAULT);
        block.writable16(EXPRESS_CONTROL, DEVICE_CONTROL_WRITABLE);
        block.set32(LINK_CAPABILITIES, LINK_GEN1_X1);
        block.writable16(LINK_CONTROL, LINK_CONTROL_WRITABLE);
        block.set16(LINK_STATUS, LINK_STATUS_GEN1_X1);
        block.set32(DEVICE_CAPABILITIES_2, COMPLETION_TIMEOUT_DISABLE.into());
        block.writable16(DEVICE_CONTROL_2, COMPLETION_TIMEOUT_DISABLE);
        block.set32(LINK_CAPABILITIES_2, LINK_SPEED_GEN1);
        express.write_one_to_clear(DEVICE_STATUS, &DEVICE_STATUS_ERRORS.to_le_bytes())
    }
}

/// Bytes of the PCI Express capability at `offset`.
pub(crate) fn express_length(image: &[u8], offset: usize) -> usize {
    if le16(image, offset + CAPABILITIES) & VERSION >= VERSION_2 {
        LENGTH_V2
    } else {
        LENGTH_V1
    }
}

/// Whether the PCI Express capability at `offset` has function-level reset.
pub(crate) fn express_has_flr(image: &[u8], offset: usize) -> bool {
    le32(image, offset + DEVICE_CAPABILITIES) & FLR_CAPABLE != 0
}

/// The bit of the device control register that starts a function-level reset, as a byte of its upper half.
pub(crate) const EXPRESS_FLR_BIT: u8 = INITIATE_FLR.to_le_bytes()[1];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flr_is_announced_only_when_asked_for() {
        let with = Capability::pci_express_endpoint(true);
        let without = Capability::pci_express_endpoint(false);
        assert!(express_has_flr(with.bytes(), 0));
        assert!(!express_has_flr(without.bytes(), 0));
    }

    #[test]
    fn the_bit_that_starts_a_reset_always_reads_0() {
        let express = Capability::pci_express_endpoint(true);
        assert_eq!(express.bytes()[EXPRESS_CONTROL + 1] & EXPRESS_FLR_BIT, 0);
        assert_eq!(
            express.writable_mask()[EXPRESS_CONTROL + 1] & EXPRESS_FLR_BIT,
            0
        );
    }

    #[test]
    fn the_length_follows_the_version() {
        let express = Capability::pci_express_endpoint(true);
        assert_eq!(express_length(express.bytes(), 0), express.bytes().len());
        assert_eq!(express_length(&[0x10, 0, 1, 0], 0), LENGTH_V1);
    }
}
