//! What the function is.
#![allow(unsafe_code, reason = "C has pointers")]

use std::ffi::c_char;

use potemkin_front_core::Attachment;
use potemkin_pci::{Bar, BarIndex, BarKind, Descriptor, Platform};

use crate::{
    POTEMKIN_ID_BYTES,
    boundary::{Versioned, call, give, shared, write_text},
    function::Function,
    status::Status,
};

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum BarType {
    /// There is none, or it is the upper half of the one before.
    None = 0,
    /// Ports.
    Io = 1,
    /// Memory at a 32-bit address.
    Memory32 = 2,
    /// Memory at a 64-bit address.
    Memory64 = 3,
    /// Memory below 1 MiB.
    MemoryBelow1m = 4,
}

/// A BAR.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct BarInfo {
    /// In bytes; 0: there is none.
    pub bytes: u64,
    /// What it decodes.
    pub kind: BarType,
    /// Reads have no effects.
    pub prefetchable: bool,
}

/// What the function is: from the device's own description. Where its BARs are stands in configuration space.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Info {
    /// `sizeof(struct potemkin_info)`, to be set before the call.
    pub size: usize,
    /// The device's id in the pool; of a selector: which one it is. Ends with a zero byte.
    pub id: [c_char; POTEMKIN_ID_BYTES],
    /// Vendor; 0xffff for a platform function, as the device, and all-ones as its class.
    pub vendor_id: u16,
    /// Device.
    pub device_id: u16,
    /// Class code: base class, sub-class, interface, from bit 23 down.
    pub class_code: u32,
    /// Bytes of configuration space: 256 or 4096; 0 for a platform function.
    pub config_bytes: u32,
    /// Interrupt pin: 1 (INTA) to 4, or 0 for none. 1 for a platform function that has an interrupt line.
    pub intx_pin: u16,
    /// MSI vectors, or 0.
    pub msi_vectors: u16,
    /// MSI-X vectors, or 0.
    pub msix_vectors: u16,
    /// Must be ignored.
    pub reserved: u16,
    /// Bytes of the expansion ROM, or 0.
    pub rom_bytes: u64,
    /// The BARs; none of a platform function.
    pub bars: [BarInfo; 6],
    /// Not on PCI: its ports and memory are at fixed addresses, which `map` gives and absolute accesses answer; among those, with
    /// all-ones, are addresses that it takes and ignores, which are not mapped.
    pub platform: bool,
    /// Interrupt line of a platform function that has one: an ISA IRQ or a GSI; `set_intx` gives its level. Else 0.
    pub line: u32,
}

// SAFETY: `repr(C)`, begins with its size; numbers, and an enumeration that has 0.
unsafe impl Versioned for Info {
    const FIRST: usize = 8 + POTEMKIN_ID_BYTES + 32 + 6 * 16;
}

/// Says what the function is. `info->size` must be set.
///
/// # Safety
/// `function` is open; `info` is as large as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_get_info(function: *const Function, info: *mut Info) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let function = unsafe { shared(function)? };
        let value = describe(function.background().attachment());
        // SAFETY: as the caller promises.
        unsafe { give(&value, info) }
    })
}

fn describe(attachment: &Attachment) -> Info {
    let descriptor = &attachment.descriptor;
    let interrupts = descriptor.interrupts();
    let class = descriptor.class();
    let mut id = [0; POTEMKIN_ID_BYTES];
    // SAFETY: the array is as long as we say.
    unsafe { write_text(&attachment.device_id, id.as_mut_ptr(), id.len()) };
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    Info {
        size: size_of::<Info>(),
        id,
        vendor_id: descriptor.vendor_id(),
        device_id: descriptor.device_id(),
        class_code: u32::from_be_bytes([0, class.base, class.sub, class.interface]),
        config_bytes: bytes(descriptor.config_image().len()),
        intx_pin: interrupts.intx_pin.into(),
        msi_vectors: interrupts.msi_vectors.into(),
        msix_vectors: interrupts.msix_vectors,
        reserved: 0,
        rom_bytes: descriptor.rom().map_or(0, |rom| rom.len() as u64),
        bars: bars(descriptor),
        platform: descriptor.platform().is_some(),
        line: descriptor.platform().and_then(Platform::line).unwrap_or(0),
    }
}

fn bars(descriptor: &Descriptor) -> [BarInfo; BarIndex::COUNT] {
    let none = BarInfo {
        bytes: 0,
        kind: BarType::None,
        prefetchable: false,
    };
    let mut bars = [none; BarIndex::COUNT];
    for (index, bar) in descriptor.bars() {
        bars[usize::from(index.get())] = describe_bar(bar);
    }
    bars
}

fn describe_bar(bar: &Bar) -> BarInfo {
    BarInfo {
        bytes: bar.size,
        kind: match bar.kind {
            BarKind::Io => BarType::Io,
            BarKind::Memory32 => BarType::Memory32,
            BarKind::Memory64 => BarType::Memory64,
            BarKind::MemoryBelow1M => BarType::MemoryBelow1m,
        },
        prefetchable: bar.prefetchable,
    }
}
