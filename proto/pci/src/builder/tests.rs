#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    BarError, CapabilityError, DescriptorError, Interrupts, WritePolicy,
    capability::{capabilities, extended_capabilities, id},
};

fn builder() -> DescriptorBuilder {
    DescriptorBuilder::new(0x1234, 0x5678)
}

fn list(descriptor: &Descriptor) -> Vec<(u8, usize)> {
    capabilities(descriptor.config_image())
        .map(|found| found.map(|found| (found.id, found.offset)))
        .collect::<Result<_, _>>()
        .unwrap()
}

#[test]
fn ids_class_and_subsystem_stand_in_the_header() {
    let class = Class {
        base: 0x01,
        sub: 0x08,
        interface: 0x02,
    };
    let descriptor = builder()
        .class(class)
        .revision(7)
        .subsystem(0xaaaa, 0xbbbb)
        .build()
        .unwrap();
    assert_eq!(descriptor.vendor_id(), 0x1234);
    assert_eq!(descriptor.device_id(), 0x5678);
    assert_eq!(descriptor.class(), class);
    assert_eq!(descriptor.revision(), 7);
    assert_eq!(descriptor.subsystem_vendor_id(), 0xaaaa);
    assert_eq!(descriptor.subsystem_id(), 0xbbbb);
    assert_eq!(descriptor.config_image()[8..12], [7, 0x02, 0x08, 0x01]);
}

#[test]
fn a_bare_function_has_256_bytes_and_no_list() {
    let descriptor = builder().build().unwrap();
    assert_eq!(descriptor.config_image().len(), 256);
    assert_eq!(descriptor.subsystem_id(), 0x5678);
    assert_eq!(descriptor.config_image()[6] & 0x10, 0);
    assert_eq!(list(&descriptor), []);
    assert_eq!(descriptor.interrupts(), Interrupts::default());
    assert_eq!(descriptor.rom(), None);
}

#[test]
fn command_bits_follow_what_there_is_to_decode() {
    let command = |builder: DescriptorBuilder| builder.build().unwrap().writable()[4];
    assert_eq!(command(builder()), 0x44);
    assert_eq!(command(builder().bar(BarIndex::B0, Bar::io(8))), 0x45);
    assert_eq!(
        command(builder().bar(BarIndex::B0, Bar::memory64(16))),
        0x46
    );
    assert_eq!(command(builder().rom([0; 2048])), 0x46);
}

#[test]
fn capabilities_are_linked_in_the_order_of_the_calls() {
    let descriptor = builder()
        .capability(Capability::msi(1, false).unwrap())
        .capability_at(0x40, Capability::power_management())
        .capability(Capability::vendor_specific(&[1, 2]).unwrap())
        .build()
        .unwrap();
    let expected = [
        (id::MSI, 0x48),
        (id::POWER_MANAGEMENT, 0x40),
        (id::VENDOR_SPECIFIC, 0x58),
    ];
    assert_eq!(list(&descriptor), expected);
    assert_eq!(descriptor.config_image()[0x5a..0x5d], [5, 1, 2]);
}

#[test]
fn masks_travel_with_their_capability() {
    let vendor = Capability::vendor_specific(&[0; 5])
        .unwrap()
        .writable(4, &[0x0f])
        .write_one_to_clear(5, &[0xf0])
        .volatile(6, &[0x3c])
        .forwarded(7, &[0x01, 0xff, 0xff]);
    let descriptor = builder().capability_at(0x80, vendor).build().unwrap();
    assert_eq!(descriptor.writable()[0x84], 0x0f);
    assert_eq!(descriptor.write_one_to_clear()[0x85], 0xf0);
    assert_eq!(descriptor.volatile()[0x86], 0x3c);
    assert_eq!(descriptor.forwarded()[0x87..0x8a], [0x01, 0, 0]);
}

#[test]
fn vectors_follow_from_the_capabilities() {
    let msix = Capability::msix(33, (BarIndex::B0, 0), (BarIndex::B0, 0x800)).unwrap();
    let descriptor = builder()
        .bar(BarIndex::B0, Bar::memory32(4096))
        .capability(Capability::msi(8, true).unwrap())
        .capability(msix)
        .intx_pin(2)
        .build()
        .unwrap();
    let expected = Interrupts {
        intx_pin: 2,
        msi_vectors: 8,
        msix_vectors: 33,
    };
    assert_eq!(descriptor.interrupts(), expected);
}

#[test]
fn extended_capabilities_are_linked_from_0x100() {
    let descriptor = builder()
        .extended_capability(ExtendedCapability::device_serial_number(7))
        .extended_capability(ExtendedCapability::new(0x0b, 3, &[1, 2, 3]).unwrap())
        .build()
        .unwrap();
    let found: Vec<_> = extended_capabilities(descriptor.config_image())
        .map(|found| found.map(|found| (found.id, found.version, found.offset)))
        .collect();
    assert_eq!(found, [Ok((3, 1, 0x100)), Ok((0x0b, 3, 0x10c))]);
    assert_eq!(descriptor.config_image().len(), 4096);
}

#[test]
fn extended_capabilities_beyond_the_end_are_refused() {
    let error = builder()
        .extended_capability(ExtendedCapability::new(0x0b, 1, &[0; 3000]).unwrap())
        .extended_capability(ExtendedCapability::new(0x0b, 1, &[0; 3000]).unwrap())
        .build()
        .unwrap_err();
    let expected = BuildError::ExtendedNoRoom {
        id: 0x0b,
        length: 3004,
    };
    assert_eq!(error, expected);
}

#[test]
fn bars_that_want_one_register_are_refused() {
    let taken = |index, by| BuildError::BarTaken { index, by };
    let twice = builder()
        .bar(BarIndex::B1, Bar::memory32(16))
        .bar(BarIndex::B1, Bar::io(8))
        .build();
    assert_eq!(twice, Err(taken(BarIndex::B1, BarIndex::B1)));
    let upper_half = builder()
        .bar(BarIndex::B3, Bar::memory32(16))
        .bar(BarIndex::B2, Bar::memory64(16))
        .build();
    assert_eq!(upper_half, Err(taken(BarIndex::B3, BarIndex::B2)));
    let last = builder().bar(BarIndex::B5, Bar::memory64(16)).build();
    let index = BarIndex::B5;
    assert_eq!(last, Err(BuildError::BarHalf { index }));
}

#[test]
fn an_ill_sized_bar_is_named() {
    let error = builder()
        .bar(BarIndex::B2, Bar::memory32(48))
        .build()
        .unwrap_err();
    let expected = BuildError::Bar {
        index: BarIndex::B2,
        error: BarError::NotPowerOfTwo { size: 48 },
    };
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), "BAR 2: size: 48 is not a power of two");
}

#[test]
fn capabilities_that_overlap_or_do_not_fit_are_refused() {
    let power = Capability::power_management;
    let overlap = builder()
        .capability_at(0x40, power())
        .capability_at(0x44, Capability::msi(1, false).unwrap())
        .build();
    let expected = BuildError::CapabilityOverlaps {
        id: id::MSI,
        offset: 0x44,
        length: 14,
    };
    assert_eq!(overlap, Err(expected));
    let past_the_end = builder().capability_at(0xfc, power()).build();
    assert!(matches!(
        past_the_end,
        Err(BuildError::CapabilityOverlaps { offset: 0xfc, .. })
    ));
    for offset in [0x3c, 0x42] {
        let misplaced = builder().capability_at(offset, power()).build();
        let id = id::POWER_MANAGEMENT;
        assert_eq!(misplaced, Err(BuildError::CapabilityOffset { id, offset }));
    }
    let full = builder()
        .capability(Capability::vendor_specific(&[0; 189]).unwrap())
        .capability(power())
        .build();
    let expected = BuildError::CapabilityNoRoom {
        id: id::POWER_MANAGEMENT,
        length: 8,
    };
    assert_eq!(full, Err(expected));
}

#[test]
fn bits_beyond_configuration_space_are_refused() {
    let error = builder().volatile(0xff, &[1, 1]).build();
    let expected = BuildError::BeyondConfig {
        offset: 0xff,
        length: 2,
        size: 256,
    };
    assert_eq!(error, Err(expected));
    assert!(
        builder()
            .extended_config()
            .volatile(0xff, &[1, 1])
            .build()
            .is_ok()
    );
}

#[test]
fn what_no_descriptor_may_say_is_refused() {
    let invalid = |builder: DescriptorBuilder| match builder.build() {
        Err(BuildError::Invalid(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        invalid(builder().rom([0; 3000])),
        DescriptorError::RomLength { length: 3000 }
    ));
    assert!(matches!(
        invalid(builder().intx_pin(5)),
        DescriptorError::IntxPin { value: 5 }
    ));
    assert!(matches!(
        invalid(builder().writable(0x10, &[0xf0])),
        DescriptorError::MaskForbidden { offset: 0x10, .. }
    ));
    assert!(matches!(
        invalid(builder().range(RegisterRange::new(BarIndex::B0, 0, 4))),
        DescriptorError::RangeBar { bar: 0, .. }
    ));
}

#[test]
fn a_refused_capability_converts_into_a_build_error() {
    fn device() -> Result<Descriptor, BuildError> {
        builder().capability(Capability::msi(3, false)?).build()
    }
    let vectors = CapabilityError::MsiVectors { vectors: 3 };
    assert_eq!(device(), Err(BuildError::Capability(vectors)));
}

#[test]
fn ranges_come_out_sorted() {
    let late = RegisterRange::new(BarIndex::B0, 8, 8).writes(WritePolicy::NonPosted);
    let early = RegisterRange::new(BarIndex::B0, 0, 8).doorbell();
    let descriptor = builder()
        .bar(BarIndex::B0, Bar::memory32(16))
        .range(late)
        .range(early)
        .build()
        .unwrap();
    assert_eq!(descriptor.ranges(), [early, late]);
}
