//! Offsets and bits of configuration space: the type 0 header (PCI 3.0 section 6.1) and what is used of capabilities.

/// Size of conventional configuration space.
pub const CONFIG_SIZE: usize = 256;
/// Size of extended configuration space (PCIe 4.0 section 7.2).
pub const EXTENDED_CONFIG_SIZE: usize = 4096;

/// Vendor ID, 2 bytes.
pub const VENDOR_ID: usize = 0x00;
/// Device ID, 2 bytes.
pub const DEVICE_ID: usize = 0x02;
/// Command, 2 bytes.
pub const COMMAND: usize = 0x04;
/// Status, 2 bytes.
pub const STATUS: usize = 0x06;
/// Revision ID, 1 byte.
pub const REVISION_ID: usize = 0x08;
/// Class code, 3 bytes: programming interface, sub-class, base class.
pub const CLASS_CODE: usize = 0x09;
/// Cache line size, 1 byte.
pub const CACHE_LINE_SIZE: usize = 0x0c;
/// Latency timer, 1 byte.
pub const LATENCY_TIMER: usize = 0x0d;
/// Header type, 1 byte.
pub const HEADER_TYPE: usize = 0x0e;
/// First base address register: six of 4 bytes.
pub const BAR0: usize = 0x10;
/// Just past the base address registers.
pub const BAR_END: usize = 0x28;
/// Subsystem vendor ID, 2 bytes.
pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
/// Subsystem ID, 2 bytes.
pub const SUBSYSTEM_ID: usize = 0x2e;
/// Expansion ROM base address, 4 bytes.
pub const ROM: usize = 0x30;
/// Just past the expansion ROM register.
pub const ROM_END: usize = 0x34;
/// Capabilities pointer, 1 byte.
pub const CAPABILITIES_POINTER: usize = 0x34;
/// Interrupt line, 1 byte.
pub const INTERRUPT_LINE: usize = 0x3c;
/// Interrupt pin, 1 byte.
pub const INTERRUPT_PIN: usize = 0x3d;
/// Just past the header; capabilities begin here.
pub const HEADER_END: usize = 0x40;

/// Command: the function answers I/O accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: the function answers memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: the function may start transactions, DMA and MSI.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: parity error response.
pub const COMMAND_PARITY: u16 = 1 << 6;
/// Command: SERR# enable.
pub const COMMAND_SERR: u16 = 1 << 8;
/// Command: the function may not assert INTx.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;

/// Status: an INTx interrupt is pending in the function.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Status: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Status: the bits that a write of 1 clears (PCI 3.0 section 6.2.3: 8 and 11 to 15).
pub const STATUS_WRITE_ONE_TO_CLEAR: u16 = 0xf900;

/// BAR: this is an I/O BAR.
pub const BAR_IO: u32 = 1 << 0;
/// BAR: the memory type field: below 1 MiB.
pub const BAR_TYPE_BELOW_1M: u32 = 0b01 << 1;
/// BAR: the memory type field: 64-bit.
pub const BAR_TYPE_64: u32 = 0b10 << 1;
/// BAR: prefetchable memory.
pub const BAR_PREFETCHABLE: u32 = 1 << 3;
/// Expansion ROM register: the ROM is decoded.
pub const ROM_ENABLE: u32 = 1 << 0;
