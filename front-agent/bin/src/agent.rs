//! All devices of an agent, by name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use potemkin_front_core::RemoteOptions;
use potemkin_service::{
    admin::{AttachRequest, Attached, Counters, DeviceStatus, Status},
    config, runtime,
};
use potemkin_vfio_server::{Listener, Options};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    checks::{self, MAX_DEVICES},
    millis,
    served::{Begin, Order, Served},
    settings,
    upgrade::Activity,
    waiting::Waiting,
};

/// Longest that the end of devices' threads is waited for: they bound each wait of theirs, but a VMM may give them files that block.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The devices that an agent serves.
///
/// Lock: one, never held across a wait. A name is reserved while its attach is under way, so that two requests for it cannot both
/// succeed. The data path never takes the lock.
#[derive(Debug)]
pub(crate) struct Agent {
    remote: RemoteOptions,
    socket_options: Options,
    devices: Mutex<BTreeMap<String, Slot>>,
    /// Parent of what stops each device.
    pub(crate) stopping: CancellationToken,
    /// The devices' threads.
    threads: TaskTracker,
    pub(crate) admin: Listener,
    pub(crate) activity: Activity,
}

#[derive(Debug)]
pub(crate) enum Slot {
    /// Its attach is under way.
    Starting,
    /// Its attach failed and is tried again.
    Waiting(Box<Waiting>),
    Serving(Box<Served>),
}

impl Agent {
    /// An agent that detaches everything once `stopping` is cancelled.
    pub(crate) fn new(
        remote: RemoteOptions,
        socket_options: Options,
        stopping: CancellationToken,
        admin: Listener,
    ) -> Self {
        Self {
            remote,
            socket_options,
            devices: Mutex::new(BTreeMap::new()),
            stopping,
            threads: TaskTracker::new(),
            admin,
            activity: Activity::default(),
        }
    }

    /// Attaches a device, in one try; the error is for people.
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<Attached, String> {
        let _operation = self.activity.operate()?;
        let order = self.order(request)?;
        let name = order.name.clone();
        self.reserve(&name)?;
        match Served::start(order, self.begin()).await {
            Ok(served) => {
                let attached = served.attached();
                self.insert(served);
                Ok(attached)
            }
            Err(error) => {
                self.lock().remove(&name);
                Err(runtime::chain(&error))
            }
        }
    }

    /// Detaches a device; the error is for people.
    pub(crate) async fn detach(&self, name: &str) -> Result<(), String> {
        let _operation = self.activity.operate()?;
        match self.take(name)? {
            Slot::Serving(served) => {
                if timeout(STOP_TIMEOUT, served.stop()).await.is_err() {
                    return Err(format!(
                        "name: `{name}` is detached, but its thread does not end: guest memory that does not answer?"
                    ));
                }
            }
            Slot::Waiting(_) | Slot::Starting => tracing::info!(name, "no longer waited for"),
        }
        Ok(())
    }

    pub(crate) fn status(&self) -> Status {
        let devices = self.lock();
        let known = devices.iter().filter_map(|(name, slot)| match slot {
            Slot::Serving(served) => Some(status(served)),
            Slot::Waiting(waiting) => Some(waiting.status(name)),
            Slot::Starting => None,
        });
        Status {
            devices: known.collect(),
        }
    }

    /// Detaches everything, all at once.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.lock().clear();
        self.threads.close();
        if timeout(STOP_TIMEOUT, self.threads.wait()).await.is_err() {
            tracing::error!(
                "a device's thread does not end: guest memory that does not answer? Left behind"
            );
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// What the start of a device needs of the agent.
    pub(crate) fn begin(&self) -> Begin {
        Begin {
            stop: self.stopping.child_token(),
            running: self.threads.token(),
        }
    }

    pub(crate) fn insert(&self, served: Served) {
        let mut devices = self.lock();
        served.announce();
        devices.insert(served.order.name.clone(), Slot::Serving(Box::new(served)));
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserve(&self, name: &str) -> Result<(), String> {
        let mut devices = self.lock();
        if devices.contains_key(name) {
            return Err(format!(
                "name: `{name}` is attached already; detach it first or choose another name"
            ));
        }
        if devices.len() >= MAX_DEVICES {
            return Err(format!("this agent serves {MAX_DEVICES} devices already"));
        }
        devices.insert(name.to_owned(), Slot::Starting);
        Ok(())
    }

    /// Takes a device out; the tries of one that waits end.
    fn take(&self, name: &str) -> Result<Slot, String> {
        let mut devices = self.lock();
        match devices.remove(name) {
            Some(Slot::Starting) => {
                devices.insert(name.to_owned(), Slot::Starting);
                Err(format!("name: `{name}` is being attached; try again"))
            }
            Some(slot) => {
                // Under the lock: whoever finds the slot gone finds the tries cancelled.
                if let Slot::Waiting(waiting) = &slot {
                    waiting.cancel.cancel();
                }
                Ok(slot)
            }
            None => {
                let known: Vec<_> = devices.keys().map(String::as_str).collect();
                Err(format!(
                    "name: `{name}` is not attached; attached: {}",
                    if known.is_empty() {
                        "nothing".to_owned()
                    } else {
                        known.join(", ")
                    }
                ))
            }
        }
    }

    pub(crate) fn order(&self, request: AttachRequest) -> Result<Order, String> {
        checks::check_name(&request.name).map_err(|problem| format!("name: {problem}"))?;
        let target = checks::target(request.device.as_deref(), request.selector.as_deref())?;
        Ok(Order {
            name: request.name,
            target,
            socket: check_socket(request.socket)?,
            socket_options: self.socket_options.clone(),
            remote: RemoteOptions {
                after_loss: request
                    .after_loss
                    .map_or(self.remote.after_loss, settings::after_loss),
                ..self.remote.clone()
            },
        })
    }
}

fn check_socket(socket: PathBuf) -> Result<PathBuf, String> {
    if !Path::is_absolute(&socket) {
        return Err(format!(
            "socket: `{}` is not an absolute path",
            socket.display()
        ));
    }
    config::check_socket("socket", &socket).map_err(|bad| runtime::chain(&bad))?;
    Ok(socket)
}

fn status(served: &Served) -> DeviceStatus {
    let attached = served.attached();
    let device = served.device.counters();
    let session = served.device.session().counters();
    let dma = served.device.dma_counters();
    let link = served.device.session().link();
    let (state, lost) = served.state();
    let route = link.route.as_ref();
    DeviceStatus {
        name: attached.name,
        device: attached.device,
        socket: attached.socket,
        session: attached.session,
        epoch: attached.epoch,
        state,
        state_age_ms: lost.as_ref().map(|lost| millis(lost.since.elapsed())),
        reason: lost.map(|lost| lost.reason),
        next_try_ms: None,
        broker: route.map_or_else(String::new, |route| route.broker.clone()),
        transport: route.map_or_else(String::new, |route| route.transport.to_string()),
        counters: Counters {
            config_reads: device.config_reads,
            config_writes: device.config_writes,
            bar_reads: device.bar_reads,
            bar_writes: device.bar_writes,
            frames_sent: session.frames_sent,
            frames_received: session.frames_received,
            round_trips: session.round_trips,
            bytes_sent: session.bytes_sent,
            bytes_received: session.bytes_received,
            dma_bytes_written: dma.bytes_written,
            dma_bytes_read: dma.bytes_read,
            dma_refused: dma.refused,
            interrupts: dma.interrupts,
            resumes: link.resumes,
            dials: link.dials,
        },
    }
}
