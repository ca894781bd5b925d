//! The payloads of the messages, typed.
//!
//! Each has `encode`, which appends to the caller's buffer, and `decode`, which checks every field that the receiver
//! acts upon. [`Request`] is any command that a client may send.

mod device;
mod dma;
mod irq;
mod region;
mod request;
mod version;

pub use device::{
    DeviceInfo, INDEX_COUNT, IRQ_COUNT, IrqIndex, IrqInfo, IrqInfoFlags, RegionInfo,
    RegionInfoFlags,
};
pub use dma::{DmaAccess, DmaMap, DmaUnmap, Protection};
pub use irq::{IrqAction, IrqData, SetIrqs};
pub use region::{RegionAccess, WriteMulti, WriteOne};
pub use request::Request;
pub use version::{Capabilities, MAJOR, MINOR, Version};
