//! A whole Potemkin as real processes: broker, device host, front agent, each as in production, on loopback or in network
//! namespaces of their own; and a guest that drives its `order` device.

pub mod dice;
mod duo;
pub mod guest;
mod linux;
pub mod load;
mod part;
mod stack;
mod ways;

pub use duo::{Duo, DuoOptions, Who};
pub use linux::guest_with_iommu;
pub use part::Part;
pub use stack::{Places, Stack, StackOptions};
pub use ways::{End, Link, Ways};
