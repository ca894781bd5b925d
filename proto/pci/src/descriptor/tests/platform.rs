//! Platform functions.

use super::super::*;
use crate::{
    AddressKind, ConfigSpace, PlatformBuilder, PlatformError, PlatformRange, Space, Width,
};

fn uart() -> PlatformBuilder {
    PlatformBuilder::new()
        .at(PlatformRange::forward(
            BarIndex::B2,
            AddressKind::Port,
            0x3f8,
            7,
        ))
        .at(PlatformRange::forward(
            BarIndex::B0,
            AddressKind::Memory,
            0xfed4_0000,
            0x5000,
        ))
        .at(PlatformRange::ignore(AddressKind::Port, 0x80, 1).logged())
        .line(4)
}

#[test]
fn regions_have_the_length_of_their_range_and_the_policy_of_their_bus() {
    let descriptor = uart().build().unwrap();
    let (ports, memory) = (Space::Bar(BarIndex::B2), Space::Bar(BarIndex::B0));

    assert_eq!(descriptor.space_size(ports), 7);
    assert_eq!(descriptor.space_size(memory), 0x5000);
    assert_eq!(descriptor.space_size(Space::Config), 0);
    assert_eq!(descriptor.write_policy(ports, 0, 1), WritePolicy::NonPosted);
    assert_eq!(descriptor.write_policy(memory, 0, 1), WritePolicy::Posted);
    assert_eq!(descriptor.interrupts().intx_pin, 1);
    assert_eq!(descriptor.vendor_id(), 0xffff);
    assert_eq!(descriptor.bars().count(), 0);
}

#[test]
fn it_is_on_without_a_command_register() {
    let mut config = ConfigSpace::new(&uart().build().unwrap());

    let mut out = [0; Width::B4.bytes()];
    let _ = config.read(0, &mut out);
    assert_eq!(out, [0xff; 4]);
    assert_eq!(config.write(4, &[0, 0]), crate::WriteOutcome::default());
    config.set_interrupt_status(true);
    config.reset();
    assert!(config.io_enabled() && config.memory_enabled());
    assert!(config.bus_master_enabled() && config.intx_allowed());
    let mapped: Vec<_> = config
        .mappings()
        .map(|it| (it.space, it.address, it.size))
        .collect();
    let (memory, ports) = (Space::Bar(BarIndex::B0), Space::Bar(BarIndex::B2));
    assert_eq!(mapped, [(memory, 0xfed4_0000, 0x5000), (ports, 0x3f8, 7)]);
}

#[test]
fn it_survives_as_parts() {
    let descriptor = uart()
        .registers(RegisterRange::new(BarIndex::B0, 0x10, 4).doorbell())
        .build()
        .unwrap();

    let again = Descriptor::try_from(descriptor.to_parts()).unwrap();

    assert_eq!(again, descriptor);
    assert!(again.is_doorbell(Space::Bar(BarIndex::B0), 0x10, 1));
}

#[test]
fn parts_of_pci_are_refused() {
    let refused = |change: fn(&mut DescriptorParts)| {
        let mut parts = uart().build().unwrap().to_parts();
        change(&mut parts);
        Descriptor::try_from(parts).unwrap_err().to_string()
    };

    let text = refused(|parts| parts.config_image = vec![0; 256]);
    assert_eq!(
        text,
        "config_image: it is set, but a platform function has none"
    );
    let text = refused(|parts| parts.rom = vec![0; 2048]);
    assert!(text.starts_with("rom: "), "{text}");
    let text = refused(|parts| parts.interrupts.msix_vectors = 1);
    assert!(text.starts_with("interrupts.msix_vectors: "), "{text}");
    let text = refused(|parts| parts.interrupts.intx_pin = 2);
    let expected = PlatformError::Interrupt {
        declared: 2,
        expected: 1,
    };
    assert_eq!(text, expected.to_string());
}
