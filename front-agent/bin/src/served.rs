//! One attached device: its thread, which owns the vfio-user socket, the session and the network stream.

use std::{io, path::PathBuf, sync::Arc, thread, time::Duration};

use potemkin_front_core::{
    AttachError, Attachment, FrontDevice, Lost, NoBus, RemoteFunction, RemoteOptions, Standing,
    Target,
};
use potemkin_service::admin::{Attached, DeviceState};
use potemkin_session::front::FrontState;
use potemkin_vfio_server::{BindError, Options, Server};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::{LocalSet, spawn_local},
};
use tokio_util::{sync::CancellationToken, task::task_tracker::TaskTrackerToken};

use tracing::Instrument as _;

use crate::{
    bus::VfioBus,
    upgrade::{Freeze, Guest, HandedOver, Remains, TakeOverError},
};

/// Longest that giving a device back may hold up a stop; the broker's grace period ends the claim without it.
const DETACH_TIMEOUT: Duration = Duration::from_secs(3);

/// What to serve.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) socket: PathBuf,
    pub(crate) socket_options: Options,
    pub(crate) remote: RemoteOptions,
}

/// What the agent gives each device.
#[derive(Debug)]
pub(crate) struct Begin {
    /// Ends the device, wherever it stands.
    pub(crate) stop: CancellationToken,
    /// Kept by the device's thread.
    pub(crate) running: TaskTrackerToken,
}

/// A device that is served until this is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) order: Order,
    pub(crate) attachment: Attachment,
    pub(crate) device: Arc<FrontDevice>,
    stop: CancellationToken,
    /// Ready when the thread has ended.
    ended: oneshot::Receiver<()>,
    /// Requests to stand still.
    freezes: mpsc::Sender<Freeze>,
}

/// Where a device comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// It is attached.
    Pool,
    /// Another program has served it in this process.
    HandedOver(Box<HandedOver>),
}

/// Why a device is not served.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    /// The operating system gave no thread or no event queue.
    #[error("starting the device's thread")]
    Thread(#[source] io::Error),
    /// The vfio-user socket could not be made.
    #[error("vfio-user socket")]
    Socket(#[from] BindError),
    /// The device was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// vfio-user is for PCI.
    #[error(
        "{device} is a platform function, at fixed addresses without PCI, which no vfio-user client can have: \
         use it from a VMM that embeds the front device (crate potemkin-front-core, or libpotemkin_front for C)"
    )]
    Platform {
        /// As the pool knows it.
        device: String,
    },
    /// What another program has handed over is not sound.
    #[error("taking the device over from the program before")]
    HandedOver(#[from] TakeOverError),
    /// The agent stops. (Or there is a bug, reported by its own message.)
    #[error("the device's thread ended before it was attached")]
    Ended,
}

impl ServeError {
    /// Whether the same start may succeed later, with nothing changed here.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Attach(error) => error.may_pass(),
            Self::Thread(_)
            | Self::Socket(_)
            | Self::Platform { .. }
            | Self::HandedOver(_)
            | Self::Ended => false,
        }
    }
}

type Started = (Attachment, Arc<FrontDevice>);

impl Served {
    /// Makes the socket, attaches, and returns once the host has accepted the session. Undoes all when a step fails.
    pub(crate) async fn start(order: Order, begin: Begin) -> Result<Self, ServeError> {
        Self::start_from(order, Source::Pool, begin).await
    }

    /// The same with a device that is attached already.
    pub(crate) async fn start_from(
        order: Order,
        source: Source,
        begin: Begin,
    ) -> Result<Self, ServeError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServeError::Thread)?;
        let Begin { stop, running } = begin;
        let (answer, answered) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (freezes, frozen) = mpsc::channel(1);
        let (thread_order, thread_stop) = (order.clone(), stop.clone());
        thread::Builder::new()
            .name(format!("dev-{}", order.name))
            .spawn(move || {
                // The client's handle does not leave the thread, and who uses it need not.
                let span = tracing::info_span!("device", name = thread_order.name);
                let serving = serve(thread_order, source, thread_stop, frozen, answer);
                let serving = serving.instrument(span);
                LocalSet::new().block_on(&runtime, serving);
                // Whoever waits may have gone.
                let _ = end.send(());
                drop(running);
            })
            .map_err(ServeError::Thread)?;
        // An attach that nobody waits for any more must not go on.
        let guard = stop.clone().drop_guard();
        let (attachment, device) = answered.await.map_err(|_| ServeError::Ended)??;
        guard.disarm();
        Ok(Self {
            order,
            attachment,
            device,
            stop,
            ended,
            freezes,
        })
    }

    /// Where to ask it to stand still.
    pub(crate) fn freezes(&self) -> mpsc::Sender<Freeze> {
        self.freezes.clone()
    }

    /// Ends the session, gives the device back and removes the socket; waits until that is done.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // An error means that the thread has ended already.
        let _ = self.ended.await;
    }

    /// What the admin socket and the log say of it.
    pub(crate) fn attached(&self) -> Attached {
        let attachment = &self.attachment;
        let path = self.device.session().path();
        Attached {
            name: self.order.name.clone(),
            device: attachment.device_id.clone(),
            socket: self.order.socket.clone(),
            session: path.session.to_string(),
            epoch: path.epoch.0,
            vendor_id: attachment.descriptor.vendor_id(),
            device_id: attachment.descriptor.device_id(),
        }
    }

    pub(crate) fn announce(&self) {
        let attached = self.attached();
        tracing::info!(
            name = attached.name,
            device = attached.device,
            session = attached.session,
            epoch = attached.epoch,
            socket = %attached.socket.display(),
            "attached"
        );
    }

    /// Where it stands; if that is not live, why and since when.
    pub(crate) fn state(&self) -> (DeviceState, Option<Lost>) {
        let session = self.device.session();
        match self.device.standing() {
            Standing::Reattaching(lost) => (DeviceState::Reattaching, Some(lost)),
            Standing::AwaitingReset(lost) => (DeviceState::AwaitingReset, Some(lost)),
            Standing::Session => {
                let why = session.lost().or(session.link().interrupted);
                (state(session.state()), why)
            }
        }
    }
}

fn state(state: FrontState) -> DeviceState {
    match state {
        FrontState::Opening => DeviceState::Connecting,
        FrontState::Live => DeviceState::Live,
        FrontState::Interrupted | FrontState::Resuming => DeviceState::Interrupted,
        FrontState::Contained | FrontState::Closed => DeviceState::Lost,
    }
}

async fn serve(
    order: Order,
    source: Source,
    stop: CancellationToken,
    freezes: mpsc::Receiver<Freeze>,
    answer: oneshot::Sender<Result<Started, ServeError>>,
) {
    let started = tokio::select! {
        started = start(&order, source) => started,
        () = stop.cancelled() => return,
    };
    let (server, function, remains) = match started {
        Ok(started) => started,
        Err(error) => {
            // The receiver waits in `Served::start`, or has given up.
            let _ = answer.send(Err(error));
            return;
        }
    };
    run(&order, (server, function, remains), stop, freezes, answer).await;
}

/// A device that can be served: its socket, its function, and what remains to be taken over of it.
type Ready = (Server, RemoteFunction, Option<Remains>);

async fn start(order: &Order, source: Source) -> Result<Ready, ServeError> {
    if let Source::HandedOver(handed) = source {
        return Ok(handed.take_over(order)?);
    }
    let server = Server::bind(&order.socket, order.socket_options.clone())?;
    let function = RemoteFunction::attach(&order.remote, &order.target).await?;
    if function.device().descriptor().platform().is_some() {
        return Err(give_back(function).await);
    }
    Ok((server, function, None))
}

/// A function that no vfio-user client can have.
async fn give_back(function: RemoteFunction) -> ServeError {
    let device = function.attachment().device_id.clone();
    let (_, lease) = function.into_parts(NoBus);
    if let Err(error) = lease.detach().await {
        tracing::warn!(%error, "detach: the broker's grace period ends the claim");
    }
    ServeError::Platform { device }
}

async fn run(
    order: &Order,
    (server, function, remains): Ready,
    stop: CancellationToken,
    mut freezes: mpsc::Receiver<Freeze>,
    answer: oneshot::Sender<Result<Started, ServeError>>,
) {
    let attachment = function.attachment().clone();
    let device = Arc::clone(function.device());
    let session = device.session();
    let bus = VfioBus::default();
    let (drive, lease) = function.into_parts(bus.clone());
    let driver = {
        let (bus, device) = (bus.clone(), Arc::clone(&device));
        let drive = async move {
            drive.await;
            if device.session().state() == FrontState::Contained {
                bus.lose();
            }
        };
        spawn_local(drive.in_current_span())
    };
    let deferred = spawn_local(bus.clone().run().in_current_span());

    let closing = Arc::clone(&device);
    let mut goodbye = "detached".to_owned();
    let opened = match remains {
        Some(_) => Ok(()),
        None => session.opened().await,
    };
    match opened {
        Ok(()) => {
            let started = (attachment.clone(), Arc::clone(&device));
            if answer.send(Ok(started)).is_ok() {
                let guest = Guest {
                    order,
                    attachment: &attachment,
                    device: &device,
                    bus: &bus,
                    server: &server,
                };
                let served = guest.serve(remains, &stop, &mut freezes).await;
                if let Err(error) = served {
                    tracing::error!(name = order.name, %error, "the vfio-user socket failed");
                    goodbye = error.to_string();
                }
            }
        }
        Err(reason) => {
            let _ = answer.send(Err(AttachError::NotAccepted(reason).into()));
        }
    }

    closing.close(&goodbye);
    if driver.await.is_err() {
        tracing::error!(name = order.name, "the session's driver panicked");
    }
    deferred.abort();
    match tokio::time::timeout(DETACH_TIMEOUT, lease.detach()).await {
        Ok(Ok(())) => tracing::info!(name = order.name, "detached"),
        Ok(Err(error)) => tracing::warn!(
            name = order.name,
            error = potemkin_service::runtime::chain(&error),
            "detach: the broker's grace period ends the claim"
        ),
        Err(_) => tracing::warn!(
            name = order.name,
            "detach: no answer from the broker; its grace period ends the claim"
        ),
    }
}
