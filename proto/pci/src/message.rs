//! Interrupt messages: what a function with MSI or MSI-X writes to interrupt a processor.

/// A write of 4 bytes to guest-physical memory that interrupts (PCI 3.0 section 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Message {
    /// Where; a multiple of 4.
    pub address: u64,
    /// What. MSI has 16 bits of it, the rest is 0.
    pub data: u32,
}
