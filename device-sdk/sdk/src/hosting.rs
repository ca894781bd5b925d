//! The other end of a [`crate::DeviceHandle`]: for whoever serves devices, not for their authors.

pub use crate::handle::Notifications;
pub use crate::outbox::{Action, Generations, Outbox};

/// Wakes whoever serves a device. Supplied by the host (or by a test's [`crate::testing::Harness`]).
pub trait Wake: Send + Sync {
    /// Called from any thread, once for each time a notification becomes pending. Must not block.
    fn wake(&self);

    /// Called from any thread, once for each time that something waits in the [`Outbox`] after nothing did. Must not block.
    fn wake_bus(&self) {
        self.wake();
    }
}

/// What a host keeps of a device's handle.
#[derive(Debug)]
pub struct HostEnd {
    /// Calls of [`crate::DeviceHandle::notify`].
    pub notifications: Notifications,
    /// What the device does to the guest.
    pub outbox: Outbox,
}
