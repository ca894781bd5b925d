//! A device that is served: who may use it, who does, and the device itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use potemkin_proto::v1::CloseCode;
use potemkin_sdk::hosting::{Generations, HostEnd, Notifications, Outbox, Wake};
use potemkin_sdk::{Descriptor, Device, DeviceHandle, ResetKind};
use potemkin_session::ids::{AttachNumber, Epoch, Path, SessionId};
use tokio::sync::{Notify, oneshot};

use crate::gate::{AdmitError, Change, FenceError, FenceOrder, Gate};
use crate::guarded::Guarded;

/// A device and its state. Shared by the session that uses it, the control streams and the task that delivers notifications.
///
/// One lock holds it all together. It is taken for a bounded number of callbacks at a time and never across an await, and no
/// other lock is taken under it.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) id: String,
    pub(crate) class: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) descriptor: Descriptor,
    state: Mutex<State>,
    bells: Arc<Bells>,
    notifications: Notifications,
}

#[derive(Debug)]
struct State {
    device: Guarded,
    /// Open while a session uses the device.
    outbox: Outbox,
    gate: Gate,
    live: Option<Live>,
    /// Tells one use of the device from the next.
    last_serial: u64,
}

/// The session that uses the device now.
#[derive(Debug)]
struct Live {
    serial: u64,
    path: Path,
    end: oneshot::Sender<End>,
}

/// Why a session is told to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: CloseCode,
    pub(crate) message: String,
}

/// The right to use the device, until told to leave.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) serial: u64,
    /// Becomes ready when the session must leave.
    pub(crate) end: oneshot::Receiver<End>,
}

/// Why a session is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error(transparent)]
    Gate(#[from] AdmitError),
    #[error("header.attach_number: {} is not newer than {}, which this host has", .asked.0, .live.0)]
    OldAttach {
        asked: AttachNumber,
        live: AttachNumber,
    },
    #[error("the device has failed")]
    Failed,
}

/// The session does not use the device any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left;

impl Served {
    /// A device that nobody may use yet.
    pub(crate) fn new(
        id: String,
        class: String,
        labels: BTreeMap<String, String>,
        device: Box<dyn Device>,
        highest: Epoch,
    ) -> Self {
        let descriptor = device.descriptor().clone();
        let mut device = Guarded::new(&id, device, &descriptor);
        let bells = Arc::<Bells>::default();
        let waker = Waker(Arc::clone(&bells));
        let (handle, end) = DeviceHandle::new(waker, descriptor.interrupts());
        device.attached(handle);
        let HostEnd {
            notifications,
            outbox,
        } = end;
        Self {
            id,
            class,
            labels,
            descriptor,
            state: Mutex::new(State {
                device,
                outbox,
                gate: Gate::new(highest),
                live: None,
                last_serial: 0,
            }),
            bells,
            notifications,
        }
    }

    /// The highest epoch seen.
    pub(crate) fn highest(&self) -> Epoch {
        self.state().gate.highest()
    }

    /// First half of a fence: whoever uses the device leaves it, and it is reset, unless that very session is the one allowed.
    pub(crate) fn shut(&self, order: FenceOrder) -> Result<Change, FenceError> {
        let mut state = self.state();
        let change = state.gate.shut(order)?;
        if change == Change::ShutOut {
            state.evict(End {
                code: CloseCode::Superseded,
                message: format!("host: the device was fenced for epoch {}", order.epoch.0),
            });
            state.reset();
        }
        Ok(change)
    }

    /// Second half of a fence, when the epoch is on disk: lets its session in. The error says that the device cannot serve it.
    pub(crate) fn open(&self, order: FenceOrder) -> Result<(), NotAdmitted> {
        let mut state = self.state();
        if state.device.failed().is_some() {
            return Err(NotAdmitted::Failed);
        }
        state.gate.open(order);
        Ok(())
    }

    /// Lets a session use the device. A newer dial of the session that uses it takes its place.
    pub(crate) fn admit(&self, path: Path) -> Result<Admission, NotAdmitted> {
        let mut state = self.state();
        state.gate.admit(path)?;
        if state.device.failed().is_some() {
            return Err(NotAdmitted::Failed);
        }
        if let Some(live) = &state.live {
            let (asked, live) = (path.attach_number, live.path.attach_number);
            if asked <= live {
                return Err(NotAdmitted::OldAttach { asked, live });
            }
            state.evict(End {
                code: CloseCode::Superseded,
                message: format!("host: attach number {} took over", asked.0),
            });
            state.reset();
        }
        let (end, ended) = oneshot::channel();
        state.last_serial += 1;
        let serial = state.last_serial;
        state.live = Some(Live { serial, path, end });
        state.outbox.open(Generations::default());
        Ok(Admission { serial, end: ended })
    }

    /// Calls the device for the session that was admitted with this serial.
    pub(crate) fn with<R>(
        &self,
        serial: u64,
        act: impl FnOnce(&mut Guarded, &mut Outbox) -> R,
    ) -> Result<R, Left> {
        let mut state = self.state();
        if !state.is_live(serial) {
            return Err(Left);
        }
        let State { device, outbox, .. } = &mut *state;
        Ok(act(device, outbox))
    }

    /// Waits until the device has started something for its guest. For the session that uses the device: one that was told to leave
    /// must not listen any more, or it would take the call from the next.
    pub(crate) async fn called(&self) {
        self.bells.bus.notified().await;
    }

    /// Who was admitted with this serial leaves. If nobody else has ended its session before, it ends with that: the device is reset, and
    /// the session not admitted again. Says whether the session is over: it is not when a newer dial of it took over.
    pub(crate) fn leave(&self, serial: u64, session: SessionId) -> bool {
        let mut state = self.state();
        if state.is_live(serial) {
            state.live = None;
            state.gate.ended(session);
            state.reset();
        }
        let live = state.live.as_ref();
        live.is_none_or(|live| live.path.session != session)
    }

    /// Tells the session that uses the device to leave, if there is one.
    pub(crate) fn dismiss(&self, end: End) {
        let mut state = self.state();
        if let Some(live) = &state.live {
            let session = live.path.session;
            state.gate.ended(session);
            state.evict(end);
            state.reset();
        }
    }

    /// Delivers the device's notifications, for ever.
    pub(crate) async fn deliver_notifications(&self) {
        loop {
            self.bells.notified.notified().await;
            if self.notifications.take() {
                self.notify();
                // A device that notifies itself again and again has its turns, and others theirs.
                tokio::task::yield_now().await;
            }
        }
    }

    fn notify(&self) {
        let mut state = self.state();
        state.device.notified();
        if state.device.failed().is_some() {
            // The session finds out at its next turn.
            self.bells.bus.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Panics of devices are caught below, so the lock is never poisoned by them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_live(&self, serial: u64) -> bool {
        self.live.as_ref().is_some_and(|live| live.serial == serial)
    }

    /// Nothing of one session, in the device or on its way from it, is left for the next.
    fn reset(&mut self) {
        self.outbox.close();
        self.device.reset(ResetKind::Session);
    }

    fn evict(&mut self, end: End) {
        if let Some(live) = self.live.take() {
            // A session that is leaving by itself does not listen any more.
            let _ = live.end.send(end);
        }
    }
}

/// Rung by a device's handle, from any thread.
#[derive(Debug, Default)]
struct Bells {
    /// [`Served::deliver_notifications`] listens.
    notified: Notify,
    /// The session that uses the device listens.
    bus: Notify,
}

struct Waker(Arc<Bells>);

impl Wake for Waker {
    fn wake(&self) {
        self.0.notified.notify_one();
    }

    fn wake_bus(&self) {
        self.0.bus.notify_one();
    }
}

#[cfg(test)]
#[path = "served_tests.rs"]
mod tests;
