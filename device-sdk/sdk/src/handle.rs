//! A device's way to its host, for what the device starts by itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use potemkin_pci::Interrupts;

use crate::bus_master::BusMaster;
use crate::hosting::{HostEnd, Wake};
use crate::outbox::{self, Outbox};

/// A device's way to its host and to the guest, from whatever thread. Cheap to clone; outliving the host or the device is harmless.
///
/// # Interrupts
///
/// A function may offer INTx, MSI and MSI-X, and the guest chooses which of them it uses. A device does not see that choice: it is made
/// in configuration space, which the agent keeps. So a device signals each cause in every way that its descriptor offers:
/// [`DeviceHandle::set_intx`] with the present level, and on a rising cause [`BusMaster::msi`] (or [`BusMaster::msix`]). The agent delivers what
/// the guest enabled, and only that: a function with MSI or MSI-X enabled does not use INTx (PCI 3.0 sections 6.8.1.3 and 6.8.2.3).
#[derive(Clone)]
pub struct DeviceHandle {
    pending: Arc<AtomicBool>,
    shared: Arc<outbox::Shared>,
}

impl DeviceHandle {
    /// A handle for a device with these interrupts, and the host's end of it.
    pub fn new(waker: impl Wake + 'static, interrupts: Interrupts) -> (Self, HostEnd) {
        let pending = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(outbox::Shared::new(Box::new(waker), interrupts));
        let end = HostEnd {
            notifications: Notifications {
                pending: Arc::clone(&pending),
            },
            outbox: Outbox::new(Arc::clone(&shared)),
        };
        (Self { pending, shared }, end)
    }

    /// Asks the host to call [`crate::Device::notified`] on its thread, soon. What this thread wrote before is visible there.
    /// Calls that come before the host got round to it count as one.
    pub fn notify(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.shared.waker.wake();
        }
    }

    /// The right to act on the guest in the name of work that begins now. While no guest uses the device, and during
    /// [`crate::Device::reset`], it is void from the start.
    #[must_use]
    pub fn bus_master(&self) -> BusMaster {
        BusMaster::new(Arc::clone(&self.shared))
    }

    /// Sets the level of INTx: true while the device wants attention. It reaches the guest in order with what is done by
    /// [`BusMaster`]s, if the guest uses INTx; a level that changes faster than the guest takes it may be skipped.
    ///
    /// A level belongs to no DMA generation. A reset of either kind and the end of a session make it false, whatever the device set before;
    /// the device sets it again when there is a cause again. No effect while no guest uses the device, during [`crate::Device::reset`], and
    /// when the descriptor has no INTx pin.
    pub fn set_intx(&self, level: bool) {
        self.shared.set_intx(level);
    }
}

impl fmt::Debug for DeviceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceHandle").finish_non_exhaustive()
    }
}

/// Whether a [`DeviceHandle`] was told to notify.
#[derive(Debug)]
pub struct Notifications {
    pending: Arc<AtomicBool>,
}

impl Notifications {
    /// Whether [`crate::Device::notified`] is owed; it is not any more afterwards. To be called before the callback: a
    /// `notify` during the callback then counts as a new one.
    #[must_use]
    pub fn take(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::BusError;

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
        let (handle, end) = DeviceHandle::new(count.clone(), Interrupts::default());

        handle.notify();
        handle.clone().notify();

        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(end.notifications.take());
        assert!(!end.notifications.take());
    }

    #[test]
    fn notify_after_take_wakes_again() {
        let count = Count::default();
        let (handle, end) = DeviceHandle::new(count.clone(), Interrupts::default());

        handle.notify();
        assert!(end.notifications.take());
        handle.notify();

        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(end.notifications.take());
    }

    #[test]
    fn notify_after_the_host_has_gone_is_harmless() {
        let (handle, end) = DeviceHandle::new(Count::default(), Interrupts::default());
        drop(end);

        handle.notify();
        handle.set_intx(true);
        assert_eq!(
            handle.bus_master().write(0, vec![1]),
            Err(BusError::Revoked)
        );
    }
}
