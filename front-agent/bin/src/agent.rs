//! All devices of an agent, by name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use potemkin_front_core::{RemoteOptions, Target};
use potemkin_service::{
    admin::{AttachRequest, Attached, Counters, DeviceState, DeviceStatus, Status},
    runtime,
    selector::Selector,
};
use potemkin_session::front::FrontState;
use potemkin_vfio_server::Options;
use tokio::task::JoinSet;

use crate::served::{Order, Served};

/// Most devices of one agent; each has a thread.
const MAX_DEVICES: usize = 256;
/// Longest name of a device at the agent, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// The devices that an agent serves.
///
/// Lock: one, never held across a wait. A name is reserved while its attach is under way, so that two requests for it cannot both
/// succeed. The data path never takes the lock.
#[derive(Debug)]
pub(crate) struct Agent {
    remote: RemoteOptions,
    socket_options: Options,
    devices: Mutex<BTreeMap<String, Slot>>,
}

#[derive(Debug)]
enum Slot {
    /// Its attach is under way.
    Starting,
    Serving(Box<Served>),
}

impl Agent {
    pub(crate) fn new(remote: RemoteOptions, socket_options: Options) -> Self {
        Self {
            remote,
            socket_options,
            devices: Mutex::new(BTreeMap::new()),
        }
    }

    /// Attaches a device; the error is for people.
    pub(crate) async fn attach(&self, request: AttachRequest) -> Result<Attached, String> {
        let order = self.order(request)?;
        let name = order.name.clone();
        self.reserve(&name)?;
        match Served::start(order).await {
            Ok(served) => {
                let attached = attached(&served);
                tracing::info!(
                    name,
                    device = attached.device,
                    session = attached.session,
                    epoch = attached.epoch,
                    socket = %attached.socket.display(),
                    "attached"
                );
                self.lock().insert(name, Slot::Serving(Box::new(served)));
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
        self.take(name)?.stop().await;
        Ok(())
    }

    pub(crate) fn status(&self) -> Status {
        let devices = self.lock();
        let serving = devices.values().filter_map(|slot| match slot {
            Slot::Serving(served) => Some(status(served)),
            Slot::Starting => None,
        });
        Status {
            devices: serving.collect(),
        }
    }

    /// Detaches everything, all at once.
    pub(crate) async fn stop(&self) {
        let devices = std::mem::take(&mut *self.lock());
        let mut stops = JoinSet::new();
        for slot in devices.into_values() {
            if let Slot::Serving(served) = slot {
                stops.spawn(served.stop());
            }
        }
        stops.join_all().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, name: &str) -> Result<(), String> {
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

    fn take(&self, name: &str) -> Result<Served, String> {
        let mut devices = self.lock();
        match devices.remove(name) {
            Some(Slot::Serving(served)) => Ok(*served),
            Some(starting) => {
                devices.insert(name.to_owned(), starting);
                Err(format!("name: `{name}` is being attached; try again"))
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

    fn order(&self, request: AttachRequest) -> Result<Order, String> {
        Ok(Order {
            name: check_name(request.name)?,
            target: target(request.device, request.selector)?,
            socket: check_socket(request.socket)?,
            socket_options: self.socket_options.clone(),
            remote: self.remote.clone(),
        })
    }
}

fn check_name(name: String) -> Result<String, String> {
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !plain {
        return Err(format!(
            "name: `{}` is not 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` or `-`",
            name.escape_default()
        ));
    }
    Ok(name)
}

fn check_socket(socket: PathBuf) -> Result<PathBuf, String> {
    if Path::is_absolute(&socket) {
        Ok(socket)
    } else {
        Err(format!(
            "socket: `{}` is not an absolute path",
            socket.display()
        ))
    }
}

fn target(device: Option<String>, selector: Option<String>) -> Result<Target, String> {
    match (device, selector) {
        (Some(device), None) => Ok(Target::Device(device)),
        (None, Some(text)) => {
            let selector: Selector = text.parse().map_err(|e| format!("{e}"))?;
            Ok(Target::Selector {
                class: selector.class,
                labels: selector.labels.into_iter().collect(),
            })
        }
        _ => Err("give one of `device` and `selector`".to_owned()),
    }
}

fn attached(served: &Served) -> Attached {
    let attachment = &served.attachment;
    Attached {
        name: served.order.name.clone(),
        device: attachment.device_id.clone(),
        socket: served.order.socket.clone(),
        session: attachment.session.to_string(),
        epoch: attachment.epoch.0,
        vendor_id: attachment.descriptor.vendor_id(),
        device_id: attachment.descriptor.device_id(),
    }
}

fn age_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn status(served: &Served) -> DeviceStatus {
    let attached = attached(served);
    let device = served.device.counters();
    let session = served.device.session().counters();
    let lost = served.device.session().lost();
    DeviceStatus {
        name: attached.name,
        device: attached.device,
        socket: attached.socket,
        session: attached.session,
        epoch: attached.epoch,
        state: match served.state() {
            FrontState::Opening => DeviceState::Connecting,
            FrontState::Live => DeviceState::Live,
            FrontState::Contained | FrontState::Closed => DeviceState::Lost,
        },
        state_age_ms: lost.as_ref().map(|lost| age_ms(lost.since)),
        reason: lost.map(|lost| lost.reason),
        transport: served.order.remote.transport.to_string(),
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
        },
    }
}
