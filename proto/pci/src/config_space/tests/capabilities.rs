//! Registers in capabilities that mean more than bits in an image.

use super::{config, read32};
use crate::{
    Bar, BarIndex, Capability, ConfigSpace, DescriptorBuilder, WriteOutcome,
    capability::{self, id},
};

fn at(config: &ConfigSpace, id: u8) -> u16 {
    let offset = capability::find(config.descriptor().config_image(), id);
    u16::try_from(offset.unwrap()).unwrap()
}

#[test]
fn flr_of_pci_express_is_reported_and_reads_0() {
    let mut config = config();
    let control = at(&config, id::PCI_EXPRESS) + 8;
    assert!(config.write(control, &[0x10, 0xa8]).flr);
    assert_eq!(read32(&config, control.into()) & 0xffff, 0x2810);
    assert!(config.write(control + 1, &[0x80]).flr);
    assert!(!config.write(control, &[0xff]).flr);
    assert!(!config.write(control, &[0xff, 0x7f]).flr);
}

#[test]
fn flr_without_the_capability_bit_is_ignored() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .capability(Capability::pci_express_endpoint(false))
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let control = at(&config, id::PCI_EXPRESS) + 8;
    assert!(!config.write(control, &[0xff, 0xff]).flr);
}

#[test]
fn flr_of_advanced_features_is_reported() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .capability(Capability::new(id::ADVANCED_FEATURES, &[6, 0b11, 0, 0]))
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let control = at(&config, id::ADVANCED_FEATURES) + 4;
    assert!(config.write(control, &[0x01]).flr);
    assert!(!config.write(control, &[0xfe]).flr);
}

#[test]
fn in_d3hot_nothing_is_decoded_and_no_dma_passes() {
    let mut config = config();
    let _ = config.write(4, &[0x07]);
    let power = at(&config, id::POWER_MANAGEMENT) + 4;
    let outcome = config.write(power, &[0x03]);
    assert!(outcome.command_changed && outcome.bus_master_cleared && !outcome.flr);
    assert_eq!(config.power_state(), 3);
    assert!(!config.memory_enabled() && !config.io_enabled() && !config.bus_master_enabled());
    assert!(!config.intx_allowed());
    assert_eq!(config.command(), 0x07);

    let outcome = config.write(power, &[0x00]);
    assert!(outcome.command_changed && !outcome.flr);
    assert!(config.memory_enabled() && config.io_enabled() && config.bus_master_enabled());
    assert!(config.intx_allowed());
}

#[test]
fn unsupported_power_states_are_discarded() {
    let mut config = config();
    let power = at(&config, id::POWER_MANAGEMENT) + 4;
    for state in [1, 2] {
        let _ = config.write(power, &[3]);
        assert_eq!(config.write(power, &[state]), WriteOutcome::default());
        assert_eq!(config.power_state(), 3);
    }
}

#[test]
fn waking_resets_a_function_that_keeps_nothing_in_d3hot() {
    let keeps_nothing = Capability::new(id::POWER_MANAGEMENT, &[3, 0, 0, 0, 0, 0]);
    let descriptor = DescriptorBuilder::new(1, 1)
        .capability(keeps_nothing.writable(4, &[0b11]))
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let power = at(&config, id::POWER_MANAGEMENT) + 4;
    assert!(!config.write(power, &[3]).flr);
    assert!(config.write(power, &[0]).flr);
    assert!(!config.write(power, &[0]).flr);
}

#[test]
fn msi_and_msix_changes_are_told_apart() {
    let mut config = config();
    let (msi, msix) = (at(&config, id::MSI), at(&config, id::MSIX));
    let enable = config.write(msi + 2, &[0x01]);
    assert!(enable.msi_changed && !enable.msix_changed);
    let again = config.write(msi + 2, &[0x01]);
    assert_eq!(again, WriteOutcome::default());
    let address = config.write(msi + 4, &0xfee0_0000_u32.to_le_bytes());
    assert!(address.msi_changed);
    let function_mask = config.write(msix + 3, &[0x40]);
    assert!(function_mask.msix_changed && !function_mask.msi_changed);
    let table = config.write(msix + 4, &[0xff; 8]);
    assert_eq!(table, WriteOutcome::default());
}

#[test]
fn a_capability_list_survives_any_write() {
    let mut config = config();
    let before = config.descriptor().config_image().to_vec();
    let _ = config.write(0, &[0xff; 256]);
    let mut after = [0; 256];
    let _ = config.read(0, &mut after);
    let walk = |image: &[u8]| -> Vec<_> { capability::capabilities(image).collect() };
    assert_eq!(walk(&after), walk(&before));
    assert_eq!(walk(&before).len(), 4);
}

#[test]
fn reset_returns_to_power_on() {
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory32(16))
        .capability(Capability::msi(1, false).unwrap())
        .build()
        .unwrap();
    let mut config = ConfigSpace::new(&descriptor);
    let _ = config.write(0, &[0x5f; 256]);
    config.reset();
    let mut image = [0; 256];
    let _ = config.read(0, &mut image);
    assert_eq!(image, descriptor.config_image());
}

#[test]
fn function_level_reset_leaves_the_link_as_it_is() {
    let mut config = config();
    let express = at(&config, id::PCI_EXPRESS);
    let _ = config.write(express + 0x10, &[0x43, 0]);
    let _ = config.write(express + 8, &[0x1f, 0x28]);

    config.function_level_reset();

    assert_eq!(read32(&config, (express + 0x10).into()) & 0xffff, 0x43);
    assert_eq!(read32(&config, (express + 8).into()) & 0xffff, 0x2810);
    config.reset();
    assert_eq!(read32(&config, (express + 0x10).into()) & 0xffff, 0);
}
