//! Driving a device in a unit test, without a host.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use potemkin_pci::{BarIndex, Descriptor, Space, Width};

use crate::{
    AccessError, BlockMode, Device, DeviceHandle, Notifications, Register, ResetKind, Wake,
};

/// `width` at `offset` of BAR 0, where most registers are.
#[must_use]
pub fn bar0(offset: u64, width: Width) -> Register {
    Register::new(Space::Bar(BarIndex::B0), offset, width)
}

/// Holds a device as a host would: attaches it, keeps to the descriptor, and delivers its notifications.
#[derive(Debug)]
pub struct Harness<D> {
    device: D,
    notifications: Notifications,
    bell: Bell,
}

impl<D: Device> Harness<D> {
    /// Attaches `device`.
    pub fn new(mut device: D) -> Self {
        let bell = Bell::default();
        let (handle, notifications) = DeviceHandle::new(bell.clone());
        device.attached(handle);
        Self {
            device,
            notifications,
            bell,
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
        self.device.read(at)
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
        self.device.write(at, value & at.width.all_ones())
    }

    /// Reads `count` elements in one access: what the guest sees.
    ///
    /// # Panics
    ///
    /// As [`Harness::read`].
    pub fn read_block(&mut self, at: Register, mode: BlockMode, count: usize) -> Vec<u8> {
        self.check(at, count, mode);
        let mut data = vec![0; count * at.bytes()];
        if self.device.read_block(at, mode, &mut data).is_err() {
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
        self.device.write_block(at, mode, data)
    }

    /// Resets the device.
    pub fn reset(&mut self, kind: ResetKind) {
        self.device.reset(kind);
    }

    /// Tells the device that nothing is waiting for it.
    pub fn idle(&mut self) {
        self.device.idle();
    }

    /// Calls [`Device::notified`] if the device asked for it; says whether it did.
    pub fn deliver(&mut self) -> bool {
        let owed = self.notifications.take();
        if owed {
            self.device.notified();
        }
        owed
    }

    /// Waits until the device calls [`DeviceHandle::notify`], from whatever thread, and calls [`Device::notified`]. False when it
    /// has not within `limit`, which is there to end a test that hangs, not to measure.
    #[must_use]
    pub fn wait_notified(&mut self, limit: Duration) -> bool {
        self.deliver() || (self.bell.wait(limit) && self.deliver())
    }

    fn check(&self, at: Register, count: usize, mode: BlockMode) {
        let size = space_bytes(self.device.descriptor(), at.space);
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

fn space_bytes(descriptor: &Descriptor, space: Space) -> u64 {
    match space {
        Space::Bar(index) => descriptor.bar(index).map_or(0, |bar| bar.size),
        Space::Rom => descriptor.rom().map_or(0, |rom| rom.len() as u64),
        Space::Config => descriptor.config_image().len() as u64,
    }
}

/// Rung by a device's handle.
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
}

impl Wake for Bell {
    fn wake(&self) {
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
