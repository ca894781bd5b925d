//! What the guest sees of the function.

use potemkin_pci::capability::{capabilities, extended_capabilities, id};
use potemkin_pci::{Bar, BarKind, WritePolicy};

use super::*;

fn descriptor(vectors: u64) -> Descriptor {
    Order::new(vectors, 1 << 20).unwrap().descriptor().clone()
}

#[test]
fn it_has_every_kind_of_bar() {
    let descriptor = descriptor(64);
    let bars: Vec<(u8, Bar)> = descriptor.bars().map(|(i, bar)| (i.get(), *bar)).collect();

    let kinds: Vec<_> = bars
        .iter()
        .map(|(i, bar)| (*i, bar.kind, bar.size))
        .collect();
    assert_eq!(
        kinds,
        [
            (0, BarKind::Memory32, 4096),
            (1, BarKind::Io, 16),
            (2, BarKind::Memory64, 1 << 20),
            (4, BarKind::Memory32, 8192),
            (5, BarKind::MemoryBelow1M, 4096),
        ]
    );
    assert!(bars[2].1.prefetchable);
    assert!(descriptor.is_combining(Space::Bar(BarIndex::B2), 0x100, 8));
    assert!(!descriptor.is_combining(Space::Bar(BarIndex::B0), 0x60, 8));
    let ports = descriptor.write_policy(Space::Bar(BarIndex::B1), 0, 1);
    assert_eq!(ports, WritePolicy::NonPosted);
    assert!(descriptor.is_doorbell(Space::Bar(BarIndex::B0), 0x120, 1));
}

#[test]
fn table_and_pending_bits_fit_however_many_vectors_there_are() {
    for (vectors, bytes) in [
        (1, 8 << 10),
        (64, 8 << 10),
        (257, 16 << 10),
        (2048, 64 << 10),
    ] {
        let descriptor = descriptor(vectors);
        assert_eq!(u64::from(descriptor.interrupts().msix_vectors), vectors);
        assert_eq!(descriptor.interrupts().intx_pin, 1);
        assert_eq!(
            descriptor.bar(BarIndex::B4).unwrap().size,
            bytes,
            "{vectors}"
        );
    }
}

#[test]
fn more_than_msix_or_memory_can_have_is_refused() {
    for vectors in [0, 2049, 65_536, u64::MAX] {
        assert!(Order::new(vectors, 4096).is_err(), "{vectors}");
    }
    for memory in [0, 2048, 5000, 128 << 20, u64::MAX] {
        assert!(Order::new(1, memory).is_err(), "{memory}");
    }
}

#[test]
fn its_capabilities_are_where_the_documentation_says() {
    let descriptor = descriptor(64);
    let image = descriptor.config_image();

    let ids: Vec<u8> = capabilities(image).map(|c| c.unwrap().id).collect();
    let extended = extended_capabilities(image);
    let extended: Vec<u16> = extended.map(|c| c.unwrap().id).collect();

    assert_eq!(image.len(), 4096);
    let expected = [
        id::POWER_MANAGEMENT,
        id::MSIX,
        id::PCI_EXPRESS,
        id::VENDOR_SPECIFIC,
    ];
    assert_eq!(ids, expected);
    assert_eq!(extended, [0x0003, 0x000b]);
    assert_eq!(image[0xc0], id::VENDOR_SPECIFIC);
}

#[test]
fn the_rom_is_an_image_that_firmware_takes() {
    let descriptor = descriptor(64);
    let rom = descriptor.rom().unwrap();

    assert_eq!(rom[..2], [0x55, 0xaa]);
    assert_eq!(usize::from(rom[2]) * 512, rom.len());
    let data = usize::from(u16::from_le_bytes([rom[0x18], rom[0x19]]));
    assert_eq!(rom[data..data + 8], *b"PCIR\x34\x12\x3e\x0d");
    assert_eq!(rom[data + 21] & 0x80, 0x80, "the last image");
    let sum = rom.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!(sum, 0);
}

#[test]
fn configuration_writes_that_come_are_shown_with_their_place() {
    let mut order = order();
    let config = |offset, width| Register::new(Space::Config, offset, width);

    order.write(config(0xc8, Width::B4), 0x1234_5678).unwrap();
    order.write(config(0xca, Width::B2), 0xabcd).unwrap();

    assert_eq!(read8(&mut order, 0x90), 0xabcd);
    assert_eq!(read4(&mut order, 0x98), 0x0002_00ca);
    assert_eq!(read4(&mut order, 0x9c), 2);
    assert_eq!(order.read(config(0xc4, Width::B4)), 2);
    assert_eq!(order.read(config(0xc4, Width::B1)), 2);
    assert_eq!(order.read(config(0xc5, Width::B2)), 0);
    assert!(order.try_read(config(0x40, Width::B4)).is_err());
    assert!(order.try_read(config(0xcc, Width::B4)).is_err());
}
