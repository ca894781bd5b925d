//! A device's way to its host, for what the device starts by itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes whoever serves a device. Supplied by the host (or by a test's [`crate::testing::Harness`]).
pub trait Wake: Send + Sync {
    /// Called from any thread, once for each time a notification becomes pending. Must not block.
    fn wake(&self);
}

/// What a device calls from its own threads. Cheap to clone; outliving the host or the device is harmless.
#[derive(Clone)]
pub struct DeviceHandle {
    shared: Arc<Shared>,
}

impl DeviceHandle {
    /// A handle, and the host's end of it.
    pub fn new(waker: impl Wake + 'static) -> (Self, Notifications) {
        let shared = Arc::new(Shared {
            pending: AtomicBool::new(false),
            waker: Box::new(waker),
        });
        let notifications = Notifications {
            shared: Arc::clone(&shared),
        };
        (Self { shared }, notifications)
    }

    /// Asks the host to call [`crate::Device::notified`] on its thread, soon. What this thread wrote before is visible there.
    /// Calls that come before the host got round to it count as one.
    pub fn notify(&self) {
        if !self.shared.pending.swap(true, Ordering::AcqRel) {
            self.shared.waker.wake();
        }
    }
}

impl fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceHandle").finish_non_exhaustive()
    }
}

/// The host's end of a [`DeviceHandle`].
pub struct Notifications {
    shared: Arc<Shared>,
}

impl Notifications {
    /// Whether [`crate::Device::notified`] is owed; it is not any more afterwards. To be called before the callback: a
    /// `notify` during the callback then counts as a new one.
    #[must_use]
    pub fn take(&self) -> bool {
        self.shared.pending.swap(false, Ordering::AcqRel)
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications")
            .field("pending", &self.shared.pending)
            .finish_non_exhaustive()
    }
}

struct Shared {
    pending: AtomicBool,
    waker: Box<dyn Wake>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default, Clone)]
    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn two_notifies_before_take_wake_once() {
        let count = Count::default();
        let (handle, notifications) = DeviceHandle::new(count.clone());

        handle.notify();
        handle.clone().notify();

        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(notifications.take());
        assert!(!notifications.take());
    }

    #[test]
    fn notify_after_take_wakes_again() {
        let count = Count::default();
        let (handle, notifications) = DeviceHandle::new(count.clone());

        handle.notify();
        assert!(notifications.take());
        handle.notify();

        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(notifications.take());
    }

    #[test]
    fn notify_after_the_host_has_gone_is_harmless() {
        let (handle, notifications) = DeviceHandle::new(Count::default());
        drop(notifications);

        handle.notify();
    }
}
