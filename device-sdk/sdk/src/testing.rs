//! Driving a device in a unit test, without a host.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use potemkin_pci::{BarIndex, Space, Width};

use crate::hosting::{HostEnd, Wake};
use crate::{AccessError, BlockMode, Device, DeviceHandle, Register, ResetKind};

mod guest;

use guest::{Answer, Guest};
pub use guest::{BusEvent, MemoryAccess};

/// `width` at `offset` of BAR 0, where most registers are.
#[must_use]
pub fn bar0(offset: u64, width: Width) -> Register {
    Register::new(Space::Bar(BarIndex::B0), offset, width)
}

/// Holds a device as a host would: attaches it, keeps to the descriptor, and delivers its notifications.
///
/// It is the guest as well: memory in windows ([`Harness::map_memory`]), with bus mastering on until the test turns it off, and a record of what
/// the device did to it, in order ([`Harness::take_events`]). What a device starts in a callback is done when the callback returns;
/// answers to the device's reads wait for [`Harness::serve_dma`], so that a test can come between.
///
/// ```
/// use potemkin_sdk::testing::{BusEvent, Harness, bar0};
/// use potemkin_sdk::{
///     AccessError, Bar, BarIndex, Capability, Descriptor, DescriptorBuilder, Device, DeviceHandle,
///     Register, ResetKind, Width,
/// };
///
/// /// A write of any register writes its value to guest memory at 0x1000, and raises MSI vector 0.
/// struct Copier {
///     descriptor: Descriptor,
///     handle: Option<DeviceHandle>,
/// }
///
/// impl Device for Copier {
///     fn descriptor(&self) -> &Descriptor {
///         &self.descriptor
///     }
///
///     fn read(&mut self, at: Register) -> Result<u64, AccessError> {
///         Err(AccessError::Direction(at))
///     }
///
///     fn write(&mut self, _: Register, value: u64) -> Result<(), AccessError> {
///         let handle = self.handle.as_ref().ok_or(AccessError::Failed("not attached"))?;
///         let bus = handle.bus_master();
///         bus.write(0x1000, value.to_le_bytes().to_vec())
///             .and_then(|()| bus.msi(0))
///             .map_err(|_| AccessError::Failed("no way to the guest"))
///     }
///
///     fn reset(&mut self, _: ResetKind) {}
///
///     fn attached(&mut self, handle: DeviceHandle) {
///         self.handle = Some(handle);
///     }
/// }
///
/// let descriptor = DescriptorBuilder::new(0x1234, 0xc0de)
///     .bar(BarIndex::B0, Bar::memory32(0x1000))
///     .capability(Capability::msi(1, false)?)
///     .build()?;
/// let mut guest = Harness::new(Copier { descriptor, handle: None });
/// guest.map_memory(0x1000, 0x1000);
/// guest.write(bar0(0, Width::B4), 5)?;
///
/// let data = vec![5, 0, 0, 0, 0, 0, 0, 0];
/// assert_eq!(
///     guest.take_events(),
///     [BusEvent::Written { address: 0x1000, data }, BusEvent::Msi(0)]
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Harness<D> {
    device: D,
    end: HostEnd,
    bells: Bells,
    guest: Guest,
}

impl<D: Device> Harness<D> {
    /// Attaches `device`.
    pub fn new(mut device: D) -> Self {
        let bells = Bells::default();
        let interrupts = device.descriptor().interrupts();
        let (handle, mut end) = DeviceHandle::new(bells.clone(), interrupts);
        device.attached(handle);
        let guest = Guest::new();
        end.outbox.open(guest.generations);
        Self {
            device,
            end,
            bells,
            guest,
        }
    }

    /// The device, to look inside.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// What the guest reads: all-ones when the device refuses.
    ///
    /// # Panics
    ///
    /// When the access lies outside of what the descriptor offers: no host would pass it on.
    pub fn read(&mut self, at: Register) -> u64 {
        self.try_read(at).unwrap_or(u64::MAX) & at.width.all_ones()
    }

    /// What the device answers.
    ///
    /// # Errors
    ///
    /// The device's.
    ///
    /// # Panics
    ///
    /// As [`Harness::read`].
    pub fn try_read(&mut self, at: Register) -> Result<u64, AccessError> {
        self.check(at, 1, BlockMode::Fixed);
        self.call(|device| device.read(at))
    }

    /// Writes the bits of `value` that the width has room for.
    ///
    /// # Errors
    ///
    /// The device's; the guest would not notice.
    ///
    /// # Panics
    ///
    /// As [`Harness::read`].
    pub fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        self.check(at, 1, BlockMode::Fixed);
        let value = value & at.width.all_ones();
        self.call(|device| device.write(at, value))
    }

    /// Reads `count` elements in one access: what the guest sees.
    ///
    /// # Panics
    ///
    /// As [`Harness::read`].
    pub fn read_block(&mut self, at: Register, mode: BlockMode, count: usize) -> Vec<u8> {
        self.check(at, count, mode);
        let mut data = vec![0; count * at.bytes()];
        let outcome = self.call(|device| device.read_block(at, mode, &mut data));
        if outcome.is_err() {
            data.fill(0xff);
        }
        data
    }

    /// Writes the elements of `data` in one access.
    ///
    /// # Errors
    ///
    /// The device's; the guest would not notice.
    ///
    /// # Panics
    ///
    /// As [`Harness::read`].
    pub fn write_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &[u8],
    ) -> Result<(), AccessError> {
        self.check(at, data.len() / at.bytes(), mode);
        self.call(|device| device.write_block(at, mode, data))
    }

    /// Resets the device. All its DMA that is under way is forgotten, and INTx is low. Bus mastering stays as it is: whoever uses the device
    /// next is taken to have set it so.
    pub fn reset(&mut self, kind: ResetKind) {
        self.end.outbox.close();
        self.guest.reset();
        self.device.reset(kind);
        self.end.outbox.open(self.guest.generations);
    }

    /// Tells the device that nothing is waiting for it.
    pub fn idle(&mut self) {
        self.call(D::idle);
    }

    /// Calls [`Device::notified`] if the device asked for it; says whether it did.
    pub fn deliver(&mut self) -> bool {
        let owed = self.end.notifications.take();
        if owed {
            self.call(D::notified);
        }
        owed
    }

    /// Waits until the device calls [`DeviceHandle::notify`], from whatever thread, and calls [`Device::notified`]. False when it
    /// has not within `limit`, which is there to end a test that hangs, not to measure.
    #[must_use]
    pub fn wait_notified(&mut self, limit: Duration) -> bool {
        self.deliver() || (self.bells.notified.wait(limit) && self.deliver())
    }

    /// Gives the guest `length` bytes of memory from `address` on, all 0, to be read and written by the device. A transfer succeeds when it
    /// lies in one window.
    pub fn map_memory(&mut self, address: u64, length: usize) {
        self.map_memory_for(address, length, MemoryAccess::ReadWrite);
    }

    /// As [`Harness::map_memory`], for those directions only.
    pub fn map_memory_for(&mut self, address: u64, length: usize, access: MemoryAccess) {
        self.guest.map(address, length, access);
    }

    /// Takes the window that starts at `address` away.
    pub fn unmap_memory(&mut self, address: u64) {
        self.guest.unmap(address);
        self.end.outbox.set_generations(self.guest.generations);
    }

    /// What the guest's memory holds.
    ///
    /// # Panics
    ///
    /// When no one window holds all those bytes.
    pub fn memory(&mut self, address: u64, length: usize) -> &mut [u8] {
        let bytes = self.guest.memory(address, length);
        bytes.unwrap_or_else(|| panic!("no window holds {length} bytes at {address:#x}"))
    }

    /// Turns bus mastering on or off, as the guest does in configuration space.
    pub fn set_bus_master(&mut self, on: bool) {
        if std::mem::replace(&mut self.guest.bus_master, on) && !on {
            self.guest.begin_generation();
            self.end.outbox.set_generations(self.guest.generations);
            self.call(D::bus_master_off);
        }
    }

    /// While held, nothing that the device starts reaches the guest: it is under way, and counts towards
    /// [`crate::BusMaster::BACKLOG_BYTES_MAX`].
    pub fn hold_bus(&mut self, held: bool) {
        self.guest.held = held;
        self.pass_on();
    }

    /// Delivers the answers to the device's reads and the failures of its writes, as many as are owed now, and then
    /// [`Device::dma_ready`] if that is owed. Says how many answers there were.
    pub fn serve_dma(&mut self) -> usize {
        self.pass_on();
        let owed = self.guest.owed();
        for _ in 0..owed {
            match self.guest.answer() {
                Some(Answer::Read(tag, outcome)) => {
                    let outcome = outcome.as_deref().map_err(|error| *error);
                    self.call(|device| device.dma_read_done(tag, outcome));
                }
                Some(Answer::WriteFailed(error)) => {
                    self.call(|device| device.dma_write_failed(error));
                }
                None => {}
            }
        }
        self.pass_on();
        if self.end.outbox.take_ready() {
            self.call(D::dma_ready);
        }
        owed
    }

    /// What the device did to the guest since this was called before, in order.
    pub fn take_events(&mut self) -> Vec<BusEvent> {
        self.pass_on();
        self.guest.take_events()
    }

    /// The level of INTx.
    pub fn intx(&mut self) -> bool {
        self.pass_on();
        self.guest.intx
    }

    /// Waits until the device does something to the guest from a thread of its own. False when it has not within `limit`, which is there to
    /// end a test that hangs, not to measure. May be true once for what a callback did.
    #[must_use]
    pub fn wait_bus(&mut self, limit: Duration) -> bool {
        let rung = self.bells.bus.wait(limit);
        self.pass_on();
        rung
    }

    /// Calls the device as a host does: the guest's state is known to it before, and what it started is passed on after.
    fn call<R>(&mut self, callback: impl FnOnce(&mut D) -> R) -> R {
        let result = callback(&mut self.device);
        self.pass_on();
        result
    }

    fn pass_on(&mut self) {
        self.guest.take(self.end.outbox.take());
        self.end.outbox.set_under_way(self.guest.under_way());
    }

    fn check(&self, at: Register, count: usize, mode: BlockMode) {
        let size = self.device.descriptor().space_size(at.space);
        let elements = match mode {
            BlockMode::Fixed => count.min(1),
            BlockMode::Consecutive => count,
        };
        let end = at.offset.checked_add((elements * at.bytes()) as u64);
        assert!(
            end.is_some_and(|end| end <= size),
            "{at:?} times {count} is outside of the {size} bytes that the descriptor offers"
        );
    }
}

/// Rung by a device's handle.
#[derive(Clone, Debug, Default)]
struct Bells {
    notified: Bell,
    bus: Bell,
}

impl Wake for Bells {
    fn wake(&self) {
        self.notified.ring();
    }

    fn wake_bus(&self) {
        self.bus.ring();
    }
}

#[derive(Clone, Debug, Default)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn wait(&self, limit: Duration) -> bool {
        let (rung, changed) = &*self.0;
        let rung = rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = changed
            .wait_timeout_while(rung, limit, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }

    fn ring(&self) {
        let (rung, changed) = &*self.0;
        *rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }
}

#[cfg(test)]
pub(crate) use scratch::Scratch;

#[cfg(test)]
#[path = "scratch.rs"]
mod scratch;

#[cfg(test)]
#[path = "testing_tests.rs"]
mod tests;
