//! What the author of a device implements, and what they get for it.
//!
//! A device is one PCI function: a [`Descriptor`] that says what a guest sees, and a [`Device`] that answers the guest's
//! reads and writes of its registers. This crate has no network and no async runtime in it; the host that serves
//! devices is `potemkin-host`, as a library for a program of your own or as the binary with the devices that ship with Potemkin.
//!
//! | to | see |
//! | --- | --- |
//! | describe the function | [`DescriptorBuilder`] |
//! | find a register by its offset | [`registers`] |
//! | do what takes long, or starts by itself | [`DeviceHandle`] |
//! | read and write guest memory, raise interrupts | [`BusMaster`], [`DeviceHandle::set_intx`] |
//! | test a device without a host | [`testing`] |
//! | record what was done to a device | [`AccessLog`] |
//!
//! # A whole device
//!
//! A counter: a write to `STEP` adds to it, a read of `COUNT` gives the sum.
//!
//! ```
//! use potemkin_sdk::registers::{Entry, RegisterMap, Widths};
//! use potemkin_sdk::testing::{Harness, bar0};
//! use potemkin_sdk::{
//!     AccessError, Bar, BarIndex, Descriptor, DescriptorBuilder, Device, Register, ResetKind, Width,
//! };
//!
//! #[derive(Clone, Copy)]
//! enum Reg {
//!     Count,
//!     Step,
//! }
//!
//! struct Counter {
//!     descriptor: Descriptor,
//!     registers: RegisterMap<Reg>,
//!     count: u32,
//! }
//!
//! impl Counter {
//!     fn new() -> Result<Self, Box<dyn std::error::Error>> {
//!         Ok(Self {
//!             descriptor: DescriptorBuilder::new(0x1234, 0xc0de)
//!                 .bar(BarIndex::B0, Bar::memory32(0x1000))
//!                 .build()?,
//!             registers: RegisterMap::bar(BarIndex::B0, 0x1000)
//!                 .add(Reg::Count, Entry::register("count", 0x0, Widths::FOUR).read_only())
//!                 .add(Reg::Step, Entry::register("step", 0x4, Widths::FOUR).write_only())
//!                 .build()?,
//!             count: 0,
//!         })
//!     }
//! }
//!
//! impl Device for Counter {
//!     fn descriptor(&self) -> &Descriptor {
//!         &self.descriptor
//!     }
//!
//!     fn read(&mut self, at: Register) -> Result<u64, AccessError> {
//!         match self.registers.readable(at)?.key {
//!             Reg::Count => Ok(self.count.into()),
//!             Reg::Step => Err(AccessError::Direction(at)),
//!         }
//!     }
//!
//!     fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
//!         self.registers.writable(at)?;
//!         let step = u32::try_from(value).map_err(|_| AccessError::Width(at))?;
//!         self.count = self.count.wrapping_add(step);
//!         Ok(())
//!     }
//!
//!     fn reset(&mut self, _: ResetKind) {
//!         self.count = 0;
//!     }
//! }
//!
//! let mut guest = Harness::new(Counter::new()?);
//! guest.write(bar0(0x4, Width::B4), 40)?;
//! guest.write(bar0(0x4, Width::B4), 2)?;
//! assert_eq!(guest.read(bar0(0x0, Width::B4)), 42);
//! assert_eq!(guest.read(bar0(0x8, Width::B4)), 0xffff_ffff);
//! guest.reset(ResetKind::Function);
//! assert_eq!(guest.read(bar0(0x0, Width::B4)), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access_log;
mod bus_master;
mod device;
mod handle;
pub mod hosting;
mod outbox;
pub mod registers;
pub mod testing;

pub use access_log::AccessLog;
pub use bus_master::{BusError, BusMaster, DmaError, Vector};
pub use device::{AccessError, BlockMode, Device, Register, ResetKind};
pub use handle::DeviceHandle;
pub use potemkin_pci::{
    AddressKind, Bar, BarIndex, BuildError, Capability, Class, Descriptor, DescriptorBuilder,
    FailedRegister, Interrupts, PlatformBuilder, PlatformRange, RegisterRange, ResetWrite, Space,
    Width, WritePolicy,
};
