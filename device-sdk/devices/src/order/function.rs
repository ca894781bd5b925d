//! What the guest sees of the function: BARs, capabilities, ROM; and the part of configuration space that is the device's.

use potemkin_pci::{
    Bar, Capability, Class, ExtendedCapability, FailedRegister, RegisterRange, ResetWrite, Width,
};
use potemkin_sdk::{AccessError, BarIndex, Descriptor, DescriptorBuilder, Register};

use super::OrderError;
use super::registers::{
    BAR_BYTES, FETCHER_COMMAND, IDENTIFICATION, MESSENGER_COMMAND, MESSENGER_TAKEN, PORTS, RESET,
    RESET_NOW, STATUS, STATUS_FAILED,
};

const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x0d3e;
/// A processing accelerator, as `lspci` calls it.
const CLASS: Class = Class {
    base: 0x12,
    sub: 0x00,
    interface: 0x00,
};

/// Bytes of BAR 5.
pub(super) const LEGACY_BYTES: usize = 4096;
const PAGE: u32 = 4096;
const TABLE_ENTRY_BYTES: u32 = 16;

/// The vendor-specific capability.
const VENDOR_CAPABILITY: u8 = 0xc0;
/// How many writes came to the device; volatile.
const CONFIG_COUNT: u64 = 0xc4;
const CONFIG_COUNT_BYTES: usize = 4;

/// PCIe 4.0 section 7.9.5: an id of the vendor's, revision 1, 12 bytes in all.
const VENDOR_EXTENDED: u16 = 0x000b;

pub(super) fn descriptor(vectors: u16, memory_bytes: u64) -> Result<Descriptor, OrderError> {
    let pba = (u32::from(vectors) * TABLE_ENTRY_BYTES).next_multiple_of(PAGE);
    let msix = Capability::msix(vectors, (BarIndex::B4, 0), (BarIndex::B4, pba))?;
    let interrupts_bytes = u64::from((pba + PAGE).next_power_of_two());
    let doorbell = |offset, bytes| RegisterRange::new(BarIndex::B0, offset, bytes).doorbell();
    Ok(DescriptorBuilder::new(VENDOR, DEVICE)
        .revision(1)
        .class(CLASS)
        .bar(BarIndex::B0, Bar::memory32(BAR_BYTES))
        .bar(BarIndex::B1, Bar::io(PORTS))
        .bar(BarIndex::B2, Bar::memory64(memory_bytes).prefetchable())
        .bar(BarIndex::B4, Bar::memory32(interrupts_bytes))
        .bar(BarIndex::B5, Bar::memory_below_1m(LEGACY_BYTES as u64))
        .rom(rom())
        .intx_pin(1)
        .capability(Capability::power_management())
        .capability(msix)
        .capability(Capability::pci_express_endpoint(true))
        .capability_at(VENDOR_CAPABILITY, vendor_capability()?)
        .extended_capability(ExtendedCapability::device_serial_number(
            0x0d3e_0000_0000_1234,
        ))
        .extended_capability(vendor_extended()?)
        .range(RegisterRange::new(BarIndex::B2, 0, memory_bytes).combining())
        .range(doorbell(MESSENGER_TAKEN, 8))
        .range(doorbell(MESSENGER_COMMAND, 4))
        .range(doorbell(FETCHER_COMMAND, 4))
        .failed(failed(0, IDENTIFICATION))
        .failed(failed(STATUS, STATUS_FAILED))
        .reset_by(reset())
        .build()?)
}

fn failed(offset: u64, value: u32) -> FailedRegister {
    FailedRegister {
        bar: BarIndex::B0,
        offset,
        width: Width::B4,
        value: value.into(),
    }
}

fn reset() -> ResetWrite {
    ResetWrite {
        bar: BarIndex::B0,
        offset: RESET,
        width: Width::B4,
        mask: u32::MAX.into(),
        value: RESET_NOW.into(),
    }
}

fn vendor_capability() -> Result<Capability, OrderError> {
    let capability = Capability::vendor_specific(&[0; 9])?;
    let ones = [0xff; 4];
    Ok(capability
        .volatile(4, &ones)
        .writable(8, &ones)
        .forwarded(8, &ones))
}

fn vendor_extended() -> Result<ExtendedCapability, OrderError> {
    let header = (12_u32 << 20 | 1 << 16 | u32::from(DEVICE)).to_le_bytes();
    let body = [header, [0; 4]].concat();
    let capability = ExtendedCapability::new(VENDOR_EXTENDED, 1, &body)?;
    Ok(capability.writable(8, &[0xff; 4]))
}

/// One image of 2 KiB (PCI Firmware Specification 3.0, section 5.1): header, a far return as its initialisation, the data structure, and a
/// checksum of 0.
fn rom() -> Vec<u8> {
    const BYTES: usize = 2048;
    const DATA: usize = 0x1c;
    let [vendor_low, vendor_high] = VENDOR.to_le_bytes();
    let [device_low, device_high] = DEVICE.to_le_bytes();
    let units = (BYTES / 512).to_le_bytes()[0];
    let mut rom = vec![0; BYTES];
    rom[..4].copy_from_slice(&[0x55, 0xaa, units, 0xcb]);
    rom[0x18] = DATA.to_le_bytes()[0];
    rom[DATA..DATA + 4].copy_from_slice(b"PCIR");
    rom[DATA + 4..DATA + 8].copy_from_slice(&[vendor_low, vendor_high, device_low, device_high]);
    // Length of this structure, its revision, the class code, the image's length and revision, PC-AT, the last image.
    rom[DATA + 10] = 0x18;
    rom[DATA + 13..DATA + 16].copy_from_slice(&[CLASS.interface, CLASS.sub, CLASS.base]);
    rom[DATA + 16] = units;
    rom[DATA + 21] = 0x80;
    let sum = rom.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    rom[BYTES - 1] = sum.wrapping_neg();
    rom
}

/// What was written to configuration space, as far as it came to the device.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) value: u64,
    /// Offset in bits 15 to 0, width in bits 23 to 16.
    pub(super) place: u32,
    pub(super) count: u32,
}

impl Written {
    pub(super) fn write(&mut self, at: Register, value: u64) {
        let offset = u32::try_from(at.offset & 0xffff).unwrap_or_default();
        let width = u32::try_from(at.bytes()).unwrap_or_default();
        self.value = value;
        self.place = offset | width << 16;
        self.count = self.count.wrapping_add(1);
    }

    /// The volatile bits; what lies around them belongs to the agent.
    pub(super) fn read(&self, at: Register) -> Result<u64, AccessError> {
        let mut bytes = [0; 8];
        let count = self.count.to_le_bytes();
        let first = at.offset.checked_sub(CONFIG_COUNT);
        let first = first.and_then(|first| usize::try_from(first).ok());
        let part =
            first.and_then(|first| count.get(first..(first + at.bytes()).min(CONFIG_COUNT_BYTES)));
        let part = part.ok_or(AccessError::NoRegister(at))?;
        bytes[..part.len()].copy_from_slice(part);
        Ok(u64::from_le_bytes(bytes))
    }
}
