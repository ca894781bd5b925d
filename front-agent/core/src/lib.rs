//! The front device: the half of a remote PCI function that lives with the guest.
//!
//! - [`FrontDevice`] is what the guest's accesses meet: a local configuration image, decode, the policy of each register, and the
//!   session to the device host. It is `Send + Sync`: a vCPU thread may use its blocking calls ([`VcpuAccess`]), a task the async ones.
//! - [`Session`] and [`drive`] join a [`FrontDevice`] to a transport's stream, and to others when that is lost.
//! - [`Bus`] is what the VMM does for the device: interrupts. Its memory it gives by [`FrontDevice::map_window`].
//! - A VMM that embeds the function hears by [`Rehook`] which ranges of addresses are the function's, and by [`Interrupts`] of messages.
//! - [`RemoteUrl`] is a device and its broker as one line of text.
//! - [`Broker`] is the control plane's client: attach and detach.
//! - [`BackgroundFunction`] puts the three together on a thread of its own, for a VMM that has no async runtime.
//! - A VMM of rust-vmm's crates puts the [`FrontDevice`] on its buses (`vm_device::DeviceMmio`, `DevicePio`), and its memory in with
//!   [`FrontDevice::map_guest_memory`]. The example `kvm_vmm` is one.
//!
//! A VMM with vCPU threads, and what it does for a device:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use potemkin_front_core::*;
//! # use potemkin_pci::Width;
//! # fn vmm(options: RemoteOptions, interrupts: Arc<dyn Interrupts>, bus: Arc<dyn Rehook>, memory: vm_memory::GuestMemoryMmap)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let target = Target::Device("edu-0".to_owned());
//! let function = BackgroundFunction::embed(options, target, interrupts)?;
//! let device = function.device();
//! device.map_guest_memory(&memory)?; // for the device's DMA
//! device.hook(bus); // which ranges of addresses are the function's, from now on
//!
//! // On a vCPU's thread:
//! device.config_write_blocking(4, &[7, 0]);
//! let mut element = [0; 4];
//! if !device.pio_read(0xc000, Width::B4, &mut element) {
//!     // Another device's.
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Config reads are answered from the local image, volatile bits apart; a BAR access travels as (BAR, offset), never as a guest address.

mod address;
mod attach;
mod background;
mod backoff;
mod block_on;
mod bus;
mod device;
mod dma;
mod driver;
mod gate;
mod holding;
mod huge_pages;
mod incarnation;
mod keeper;
mod lanes;
mod latch;
mod leg;
mod link;
mod memory;
mod messages;
mod names;
mod outcome;
mod pace;
mod redial;
mod rehook;
mod remote;
mod rust_vmm;
mod saved;
mod session;
mod strings;
mod url;
mod vcpu;

pub use attach::{AttachError, Attachment, Broker, BrokerAddress, Target};
pub use background::{BackgroundError, BackgroundFunction};
pub use backoff::Backoff;
pub use block_on::block_on;
pub use bus::{Bus, NoBus};
pub use device::{DeviceCounters, FrontDevice};
pub use dma::{DmaCounters, MessageDma};
pub use driver::drive;
pub use gate::MapError;
pub use incarnation::{adopt_agent_incarnation, agent_incarnation};
pub use latch::{AfterLoss, SavedLatch, Standing};
pub use leg::{Leg, Route};
pub use link::Link;
pub use memory::{FileMemory, GuestMemory, Mapper, Window};
pub use messages::{Interrupts, MessageInterrupts};
pub use outcome::{ConfigWrite, Outcome};
pub use rehook::{HookCounters, Rehook, RehookError};
pub use remote::{
    DEFAULT_DEADLINE, DEFAULT_IDLE_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_RESUME_WINDOW, Lease,
    RemoteFunction, RemoteOptions,
};
pub use saved::{SaveError, SavedFunction, SavedSide, SavedTransfer};
pub use session::{Lost, Session};
pub use url::{DEFAULT_PORT, MAX_BROKERS, RemoteUrl, UrlError};
pub use vcpu::VcpuAccess;
