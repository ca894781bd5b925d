//! The PCI model: a function's descriptor, its live configuration space and the local decode of its BARs.
//!
//! No I/O, no clock, no threads. What comes from a peer enters through one door, [`Descriptor::try_from`], and is trusted
//! behind it:
//!
//! ```text
//! DescriptorParts --try_from--> Descriptor --ConfigSpace::new--> ConfigSpace --decode_memory, decode_port--> (Space, offset)
//! (as on the wire)              (valid, immutable)               (what the guest reads and writes)
//! ```
//!
//! Layouts and rules follow the PCI Local Bus Specification 3.0 ("PCI 3.0"), the PCI Bus Power Management Interface Specification
//! 1.2 ("PCI PM 1.2") and the PCI Express Base Specification 4.0 ("PCIe 4.0").

pub mod access;
mod address;
mod bar;
mod builder;
mod bytes;
pub mod capability;
mod config_space;
mod decode;
mod descriptor;
pub mod hex;
mod mapping;
mod message;
mod msix_table;
mod platform;
pub mod registers;

pub use access::{BarIndex, BarSet, Space, Width};
pub use address::{ParseAddressError, PciAddress};
pub use bar::{Bar, BarError, BarKind};
pub use builder::{BuildError, DescriptorBuilder, PlatformBuilder};
pub use capability::{Capability, CapabilityError, ExtendedCapability};
pub use config_space::{
    ConfigSpace, SavedConfig, SavedConfigError, SavedRegister, SavedWide, Volatile, WriteOutcome,
};
pub use decode::{decode_memory, decode_port};
pub use descriptor::{
    BarParts, Class, Descriptor, DescriptorError, DescriptorParts, Difference, FailedRegister,
    FailedRegisterParts, InterruptParts, Interrupts, Mask, MsixPart, RangeConflict, RangeParts,
    Recovery, RecoveryError, RecoveryList, RecoveryParts, Region, RegisterRange, ResetWrite,
    ResetWriteParts, WritePolicy,
};
pub use mapping::{AddressKind, Mapping};
pub use message::Message;
pub use msix_table::{MsixLayout, MsixPlace, MsixTable};
pub use platform::{Platform, PlatformError, PlatformParts, PlatformRange, RangeAction};
