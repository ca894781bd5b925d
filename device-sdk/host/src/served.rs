//! A device that is served: who may use it, who does, and the device itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use potemkin_proto::v1::CloseCode;
use potemkin_sdk::hosting::{Generations, HostEnd, Notifications, Outbox, Wake};
use potemkin_sdk::{Descriptor, Device, DeviceHandle, ResetKind};
use potemkin_session::Violation;
use potemkin_session::ids::{Epoch, Path, SessionId};
use potemkin_transport::Identity;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::guarded::Guarded;
use crate::running::NewPath;
use potemkin_session::gate::{AdmitError, Change, FenceError, FenceOrder, Gate};

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
    session: SessionId,
    /// Whose it is.
    agent: Identity,
    /// Takes its next paths, if it can live on another.
    paths: Option<mpsc::Sender<NewPath>>,
    end: oneshot::Sender<End>,
}

/// Paths that may wait for their session's task. Each newer one takes the place of the older, and a broker lets one agent dial so fast.
const PATHS_MAX: usize = 4;

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
    /// Newer paths of the session.
    pub(crate) paths: mpsc::Receiver<NewPath>,
}

/// Who dials.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dial<'a> {
    pub(crate) path: Path,
    pub(crate) agent: &'a Identity,
    /// A session that begins with this dial can live on without a path.
    pub(crate) resumable: bool,
    /// Why no session can begin with this dial.
    pub(crate) unfit: Option<&'a Violation>,
}

/// What a dial may do.
#[derive(Debug)]
pub(crate) enum Seating {
    /// It begins the session.
    First(Admission),
    /// The session lives: it goes on with this path.
    Again(mpsc::Sender<NewPath>),
}

/// Why a session is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    #[error(transparent)]
    Gate(#[from] AdmitError),
    #[error("open: {0}")]
    Unfit(Violation),
    #[error("open.grant.agent: the session is another agent's")]
    OtherAgent,
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

    /// Lets a session use the device, or go on using it with a newer path.
    pub(crate) fn admit(&self, dial: Dial<'_>) -> Result<Seating, NotAdmitted> {
        let mut state = self.state();
        // First, or another agent's dial would count as the newest.
        let others = |live: &Live| live.session == dial.path.session && live.agent != *dial.agent;
        if state.live.as_ref().is_some_and(others) {
            return Err(NotAdmitted::OtherAgent);
        }
        state.gate.admit(dial.path)?;
        if state.device.failed().is_some() {
            return Err(NotAdmitted::Failed);
        }
        if let Some(live) = &state.live {
            // The gate knows one session.
            if let Some(paths) = &live.paths {
                return Ok(Seating::Again(paths.clone()));
            }
        }
        if let Some(violation) = dial.unfit {
            return Err(NotAdmitted::Unfit(violation.clone()));
        }
        state.take_from_older(dial.path);
        Ok(Seating::First(state.begin(dial)))
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
        live.is_none_or(|live| live.session != session)
    }

    /// Tells the session that uses the device to leave, if there is one.
    pub(crate) fn dismiss(&self, end: End) {
        let mut state = self.state();
        if let Some(live) = &state.live {
            let session = live.session;
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
    /// A session that cannot live on another path ends with a newer dial of it.
    fn take_from_older(&mut self, path: Path) {
        if self.live.is_some() {
            let number = path.attach_number.0;
            self.evict(End {
                code: CloseCode::Superseded,
                message: format!("host: attach number {number} took over"),
            });
            self.reset();
        }
    }

    fn begin(&mut self, dial: Dial<'_>) -> Admission {
        let (end, ended) = oneshot::channel();
        let (sender, paths) = mpsc::channel(PATHS_MAX);
        self.last_serial += 1;
        let serial = self.last_serial;
        self.live = Some(Live {
            serial,
            session: dial.path.session,
            agent: dial.agent.clone(),
            paths: dial.resumable.then_some(sender),
            end,
        });
        self.outbox.open(Generations::default());
        Admission {
            serial,
            end: ended,
            paths,
        }
    }

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
