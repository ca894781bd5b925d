//! A remote function with a thread of its own, for a VMM that has no async runtime.

use std::{io, sync::Arc, sync::mpsc, thread::JoinHandle, time::Duration};

use thiserror::Error;
use tokio::sync::oneshot;

use crate::{
    attach::{AttachError, Attachment, Target},
    bus::Bus,
    device::FrontDevice,
    messages::{Interrupts, MessageInterrupts},
    remote::{RemoteFunction, RemoteOptions},
};

/// A function that is attached as long as this value lives. Its thread owns the network; vCPU threads use the device's blocking calls.
#[derive(Debug)]
pub struct BackgroundFunction {
    device: Arc<FrontDevice>,
    attachment: Attachment,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why a function could not be started.
#[derive(Debug, Error)]
pub enum BackgroundError {
    /// The operating system gave no thread or no event queue.
    #[error("starting the session's thread")]
    Thread(#[source] io::Error),
    /// The device was not attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The thread ended before it had an answer.
    #[error("the session's thread ended early")]
    Ended,
}

type Started = (Arc<FrontDevice>, Attachment);

impl BackgroundFunction {
    /// Attaches and returns once the host has accepted the session, or once nothing is left of the try. `bus` is called on the session's thread; [`crate::NoBus`] is for a
    /// device that raises no interrupts. For a VMM that keeps the MSI-X table itself ([`FrontDevice::new`]).
    ///
    /// # Errors
    /// Which step failed, where, and why.
    pub fn attach(
        options: RemoteOptions,
        target: Target,
        bus: impl Bus + Send + Sync + 'static,
    ) -> Result<Self, BackgroundError> {
        Self::start(async move { Ok((RemoteFunction::attach(&options, &target).await?, bus)) })
    }

    /// The same for a VMM that has no interrupt tables for the function and takes its messages ([`FrontDevice::embedded`]).
    ///
    /// What else such a VMM does: [`FrontDevice::hook`] for the guest's address map, [`FrontDevice::map_window`] for its memory,
    /// [`crate::VcpuAccess`] and the `_blocking` calls for its vCPUs.
    ///
    /// # Errors
    /// Which step failed, where, and why.
    pub fn embed(
        options: RemoteOptions,
        target: Target,
        vmm: Arc<dyn Interrupts>,
    ) -> Result<Self, BackgroundError> {
        Self::start(async move {
            let function = RemoteFunction::embed(&options, &target, vmm).await?;
            let bus = MessageInterrupts::new(Arc::clone(function.device()));
            Ok((function, bus))
        })
    }

    fn start<B: Bus + Send + Sync + 'static>(
        attach: impl Future<Output = Result<(RemoteFunction, B), AttachError>> + Send + 'static,
    ) -> Result<Self, BackgroundError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BackgroundError::Thread)?;
        let (answer, answered) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("potemkin-session".to_owned())
            .spawn(move || {
                runtime.block_on(run(attach, answer, stopped));
                // A name that is being looked up holds nobody up.
                runtime.shutdown_timeout(Duration::ZERO);
            })
            .map_err(BackgroundError::Thread)?;
        let answer = answered.recv().map_err(|_| BackgroundError::Ended);
        match answer.and_then(|started| Ok(started?)) {
            Ok((device, attachment)) => Ok(Self {
                device,
                attachment,
                stop: Some(stop),
                thread: Some(thread),
            }),
            Err(error) => {
                // When the caller hears of it the device is given back, and `bus` is called no more.
                drop(stop);
                join(thread);
                Err(error)
            }
        }
    }

    /// What was attached.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The function, for any thread.
    pub fn device(&self) -> &Arc<FrontDevice> {
        &self.device
    }
}

impl Drop for BackgroundFunction {
    /// Unmaps what the VMM has hooked, ends the session and gives the device back.
    fn drop(&mut self) {
        self.device.unhook();
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            join(thread);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the session's thread panicked");
    }
}

async fn run<B: Bus + Send + Sync + 'static>(
    attach: impl Future<Output = Result<(RemoteFunction, B), AttachError>>,
    answer: mpsc::SyncSender<Result<Started, AttachError>>,
    stopped: oneshot::Receiver<()>,
) {
    let (function, bus) = match attach.await {
        Ok(attached) => attached,
        Err(error) => {
            // The receiver waits in `attach`.
            let _ = answer.send(Err(error));
            return;
        }
    };
    let device = Arc::clone(function.device());
    let (session, closing) = (device.session(), Arc::clone(&device));
    let attachment = function.attachment().clone();
    let (drive, lease) = function.into_parts(bus);
    let driver = tokio::spawn(drive);
    let opened = session.opened().await.map_err(AttachError::NotAccepted);
    if answer.send(opened.map(|()| (device, attachment))).is_ok() {
        // Ends when the owner drops its half.
        let _ = stopped.await;
    }
    closing.close("the VMM is done with the device");
    if driver.await.is_err() {
        tracing::error!("the session's driver panicked");
    }
    if let Err(error) = lease.detach().await {
        tracing::warn!(%error, "detach; the broker's grace period ends the claim");
    }
}
