//! MSI as the guest programs it, and what gates MSI-X.

use super::{read32, write32};
use crate::{Bar, BarIndex, Capability, ConfigSpace, DescriptorBuilder, Message, capability::id};

const MSI: usize = 0x40;
const CONTROL: u16 = 0x42;

/// A function with MSI, bus mastering on.
fn function(msi: Capability) -> ConfigSpace {
    let descriptor = DescriptorBuilder::new(1, 1)
        .capability_at(0x40, msi)
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let _ = config.write(4, &[4]);
    config
}

/// Address 0x12_fee0_1000, data 0x4fff; `log2` of the vectors are allocated.
fn with_64_bit(vectors: u8, maskable: bool, log2: u8) -> ConfigSpace {
    let mut config = function(Capability::msi(vectors, maskable).unwrap());
    let _ = write32(&mut config, MSI + 4, 0xfee0_1003);
    let _ = write32(&mut config, MSI + 8, 0x12);
    let _ = write32(&mut config, MSI + 12, 0x4fff);
    let _ = config.write(CONTROL, &[log2 << 4 | 1]);
    config
}

fn message(data: u32) -> Message {
    Message {
        address: 0x12_fee0_1000,
        data,
    }
}

#[test]
fn the_low_bits_of_the_data_say_which_of_the_allocated_vectors() {
    for log2 in 0..=5 {
        let mut config = with_64_bit(32, false, log2);
        let own = (1 << log2) - 1;
        for vector in [0, 1, 5, 31] {
            let data = (0x4fff & !own) | (u32::from(vector) & own);
            assert_eq!(config.signal_msi(vector), Some(message(data)));
        }
    }
}

#[test]
fn a_32_bit_capability_has_its_data_behind_its_address() {
    // Message control: nothing; address; data.
    let msi = Capability::new(id::MSI, &[0; 8])
        .writable(2, &[1])
        .writable(4, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let mut config = function(msi);
    let _ = write32(&mut config, MSI + 4, 0xfee0_2000);
    let _ = config.write(0x48, &[0x34, 0x12]);
    let _ = config.write(CONTROL, &[1]);
    let expected = Message {
        address: 0xfee0_2000,
        data: 0x1234,
    };
    assert_eq!(config.signal_msi(0), Some(expected));
    assert_eq!(config.next_due_msi(), None);
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let mut config = with_64_bit(4, true, 2);
    let _ = write32(&mut config, MSI + 16, 0b1010);
    for vector in [3, 1, 3] {
        assert_eq!(config.signal_msi(vector), None);
    }
    assert_eq!(config.signal_msi(2), Some(message(0x4ffe)));
    assert_eq!(read32(&config, MSI + 20), 0b1010);
    assert_eq!(config.next_due_msi(), None);

    let _ = write32(&mut config, MSI + 16, 0b0010);
    assert_eq!(config.next_due_msi(), Some(message(0x4fff)));
    assert_eq!(config.next_due_msi(), None);
    assert_eq!(read32(&config, MSI + 20), 0b0010);
}

#[test]
fn pending_bits_are_read_only_and_reset_clears_them() {
    let mut config = with_64_bit(4, true, 2);
    let _ = write32(&mut config, MSI + 16, 0b1111);
    assert_eq!(config.signal_msi(0), None);
    let _ = write32(&mut config, MSI + 20, 0b1000);
    assert_eq!(read32(&config, MSI + 20), 0b0001);
    config.reset();
    assert_eq!(read32(&config, MSI + 20), 0);
}

#[test]
fn what_is_pending_waits_for_bus_mastering_and_for_msi() {
    let mut config = with_64_bit(1, true, 0);
    let _ = config.write(4, &[0]);
    assert_eq!(config.signal_msi(0), None);
    assert_eq!(config.next_due_msi(), None);
    let _ = config.write(CONTROL, &[0]);
    let _ = config.write(4, &[4]);
    assert_eq!(config.next_due_msi(), None);
    let _ = config.write(CONTROL, &[1]);
    assert_eq!(config.next_due_msi(), Some(message(0x4fff)));
}

#[test]
fn while_msi_is_off_nothing_is_signalled() {
    let mut config = with_64_bit(4, true, 2);
    let _ = config.write(CONTROL, &[0]);
    assert_eq!(config.signal_msi(0), None);
    assert_eq!(read32(&config, MSI + 20), 0);
    let mut without = ConfigSpace::new(&DescriptorBuilder::new(1, 1).build().unwrap());
    assert_eq!(without.signal_msi(0), None);
    assert_eq!(without.next_due_msi(), None);
}

#[test]
fn msix_is_open_when_it_is_on_unmasked_and_may_master_the_bus() {
    let msix = Capability::msix(8, (BarIndex::B0, 0), (BarIndex::B0, 0x800)).unwrap();
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .capability_at(0x40, msix)
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    for (command, control, open) in [
        (0, 0x80, false),
        (4, 0x80, true),
        (4, 0xc0, false),
        (4, 0x40, false),
        (4, 0x00, false),
    ] {
        let _ = config.write(4, &[command]);
        let _ = config.write(0x43, &[control]);
        assert_eq!(config.msix_open(), open, "{command:#x} {control:#x}");
    }
}
