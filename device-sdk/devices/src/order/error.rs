//! Why an order device cannot be made.

use potemkin_pci::{BuildError, CapabilityError};
use potemkin_sdk::registers::RegisterMapError;

use super::Order;

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// MSI-X has a limit.
    #[error("vectors: {vectors} are not within 1 to 2048")]
    Vectors {
        /// Asked for.
        vectors: u64,
    },
    /// Less memory than a page, or more than a host gives to one device.
    #[error(
        "memory: {memory_bytes} bytes are not within 4096 to {}",
        Order::MEMORY_MAX
    )]
    Memory {
        /// Asked for.
        memory_bytes: u64,
    },
    /// The MSI-X capability.
    #[error("vectors")]
    Capability(#[from] CapabilityError),
    /// No function is like that.
    #[error("descriptor")]
    Descriptor(#[from] BuildError),
    /// Its registers.
    #[error("registers")]
    Registers(#[from] RegisterMapError),
}
