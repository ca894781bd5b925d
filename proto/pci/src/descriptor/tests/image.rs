//! Configuration images, masks and capabilities that are refused.

use super::{bytes_of, error, parts};
use crate::{Descriptor, DescriptorError as E, Mask, MsixPart, capability::WalkError};

#[test]
fn images_of_other_lengths_are_refused() {
    for length in [0, 64, 255, 257, 4095, 4097] {
        let error = error(|parts| parts.config_image.resize(length, 0));
        assert_eq!(error, E::ImageLength { length });
    }
}

#[test]
fn headers_of_no_device_are_refused() {
    assert_eq!(error(|p| p.config_image[..2].fill(0xff)), E::VendorId);
    let value = 0x81;
    assert_eq!(
        error(|p| p.config_image[0x0e] = value),
        E::HeaderType { value }
    );
    let value = 0x0004;
    assert_eq!(
        error(|p| p.config_image[0x04] = 4),
        E::CommandAtPowerOn { value }
    );
}

#[test]
fn bar_registers_must_hold_the_type_bits_alone() {
    let with_address = error(|p| p.config_image[0x13] = 0xe0);
    let expected = E::BarRegister {
        index: 0,
        value: 0xe000_0000,
        expected: 0,
    };
    assert_eq!(with_address, expected);
    assert!(matches!(
        error(|p| p.config_image[0x14] = 0),
        E::BarRegister {
            index: 1,
            value: 0,
            expected: 1
        }
    ));
    assert!(matches!(
        error(|p| p.config_image[0x1c] = 1),
        E::BarRegister {
            index: 3,
            value: 1,
            expected: 0
        }
    ));
    assert!(matches!(
        error(|p| p.config_image[0x24] = 8),
        E::BarRegister {
            index: 5,
            value: 8,
            expected: 0
        }
    ));
    assert_eq!(
        error(|p| p.config_image[0x30] = 1),
        E::RomRegister { value: 1 }
    );
}

#[test]
fn masks_of_other_lengths_are_refused() {
    let error = error(|p| p.config_forwarded = vec![0; 256]);
    let expected = E::MaskLength {
        mask: Mask::Forwarded,
        length: 256,
        expected: 4096,
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "config_forwarded: 256 bytes, expected 0 or 4096"
    );
}

#[test]
fn masks_may_not_touch_bars_and_rom() {
    for offset in [0x10, 0x1c, 0x27, 0x30, 0x33] {
        for mask in [
            Mask::Writable,
            Mask::WriteOneToClear,
            Mask::Volatile,
            Mask::Forwarded,
        ] {
            let error = error(|p| bytes_of(p, mask)[offset] = 0x80);
            let named = matches!(error, E::MaskForbidden { mask: m, offset: o, value: 0x80, .. } if (m, o) == (mask, offset));
            assert!(named, "{error}");
        }
    }
}

#[test]
fn what_says_what_the_function_is_cannot_change() {
    for offset in [0x00, 0x03, 0x08, 0x0b, 0x0e, 0x34, 0x3d, 0x40, 0x41, 0x49] {
        for mask in [Mask::Writable, Mask::WriteOneToClear, Mask::Volatile] {
            let error = error(|p| bytes_of(p, mask)[offset] |= 1);
            assert!(matches!(error, E::MaskForbidden { offset: o, .. } if o == offset));
        }
    }
    let mut forwarded = parts();
    forwarded.config_forwarded[0x00] = 1;
    assert!(Descriptor::try_from(forwarded).is_ok());
}

#[test]
fn a_bit_has_one_class_of_write() {
    let error = error(|p| p.config_write_one_to_clear[0x3c] = 0x11);
    assert_eq!(
        error,
        E::MasksOverlap {
            offset: 0x3c,
            value: 0x11
        }
    );
}

#[test]
fn broken_capability_lists_are_refused() {
    let looped = error(|p| p.config_image[0x71] = 0x40);
    assert_eq!(looped, E::Capabilities(WalkError::Loop { pointer: 0x40 }));
    let misaligned = error(|p| p.config_image[0x34] = 0x41);
    assert_eq!(
        misaligned,
        E::Capabilities(WalkError::Misaligned { pointer: 0x41 })
    );
    let in_header = error(|p| p.config_image[0x34] = 0x20);
    assert!(matches!(
        in_header,
        E::Capabilities(WalkError::OutOfBounds { pointer: 0x20, .. })
    ));
    let extended = error(|p| p.config_image[0x100..0x104].copy_from_slice(&[3, 0, 1, 0x10]));
    assert_eq!(
        extended,
        E::ExtendedCapabilities(WalkError::Loop { pointer: 0x100 })
    );
    assert_eq!(
        extended.to_string(),
        "config_image: extended capability pointer 0x100 makes a loop"
    );
}

#[test]
fn capabilities_that_run_into_each_other_are_refused() {
    // A vendor-specific capability of 64 bytes where the next one is 8 away.
    let overlap = error(|p| {
        p.config_image[0x40] = 0x09;
        p.config_image[0x42] = 64;
    });
    let expected = E::CapabilityTooLong {
        id: 0x09,
        offset: 0x40,
        length: 64,
        available: 8,
    };
    assert_eq!(overlap, expected);
    let past_the_end = error(|p| {
        p.config_image[0x71] = 0xf8;
        p.config_image[0xf8] = 0x09;
        p.config_image[0xfa] = 9;
    });
    assert!(matches!(
        past_the_end,
        E::CapabilityTooLong {
            offset: 0xf8,
            available: 8,
            ..
        }
    ));
}

#[test]
fn a_second_msi_capability_is_refused() {
    let error = error(|p| {
        p.config_image[0x71] = 0xc0;
        p.config_image[0xc0] = 0x05;
    });
    assert_eq!(
        error,
        E::CapabilityRepeated {
            id: 0x05,
            offset: 0xc0
        }
    );
}

#[test]
fn interrupts_must_agree_with_the_image() {
    assert_eq!(
        error(|p| p.interrupts.intx_pin = 5),
        E::IntxPin { value: 5 }
    );
    assert_eq!(
        error(|p| p.interrupts.intx_pin = 257),
        E::IntxPin { value: 257 }
    );
    let pin = E::IntxDisagrees {
        declared: 2,
        image: 1,
    };
    assert_eq!(error(|p| p.interrupts.intx_pin = 2), pin);
    let msi = E::MsiDisagrees {
        declared: 260,
        image: 4,
    };
    assert_eq!(error(|p| p.interrupts.msi_vectors = 260), msi);
    let msix = E::MsixDisagrees {
        declared: 9,
        image: 8,
    };
    assert_eq!(error(|p| p.interrupts.msix_vectors = 9), msix);
    let reserved = error(|p| p.config_image[0x4a] |= 0b1110);
    assert_eq!(reserved, E::MsiReserved { offset: 0x48 });
}

#[test]
fn vectors_without_a_capability_are_refused() {
    let error = error(|p| p.config_image[0x06] = 0);
    assert_eq!(
        error,
        E::MsiDisagrees {
            declared: 4,
            image: 0
        }
    );
}

#[test]
fn msix_areas_must_lie_in_a_memory_bar() {
    let (table, pba) = (MsixPart::Table, MsixPart::Pba);
    let bar = |part, bir| E::MsixBar { part, bir };
    assert_eq!(error(|p| p.config_image[0x64] = 1), bar(table, 1));
    assert_eq!(error(|p| p.config_image[0x64] = 3), bar(table, 3));
    assert_eq!(error(|p| p.config_image[0x68] = 7), bar(pba, 7));
    let beyond = error(|p| p.config_image[0x66] = 0x10);
    let expected = E::MsixTooLong {
        part: table,
        offset: 0x10_0000,
        length: 128,
        size: 0x10_0000,
    };
    assert_eq!(beyond, expected);
    let overlap = error(|p| p.config_image[0x68..0x6a].copy_from_slice(&[0x42, 0]));
    assert_eq!(overlap, E::MsixOverlap { offset: 0x40 });
}
