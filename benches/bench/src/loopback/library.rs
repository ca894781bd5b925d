//! The path of a program that embeds the front library and waits on the thread that drives the session.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use potemkin_front_core::{FrontDevice, NoBus, RemoteFunction, RemoteOptions, Target};
use tokio::sync::{mpsc, oneshot};

use crate::accesses::{Accesses, Async};
use crate::error::BenchError;
use crate::probe::{Burst, Probe, Writer};
use crate::stats::Latencies;

/// An attached function with a thread of its own, as a front agent has one for each device: it owns the session and the network
/// stream, and it makes the accesses and takes their times. Between rounds it waits for orders and keeps the session alive.
#[derive(Debug)]
pub(crate) struct Library {
    path: String,
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

type Answer<T> = oneshot::Sender<Result<T, BenchError>>;

#[derive(Debug)]
enum Order {
    Reads(u32, Answer<Latencies>),
    Burst(Answer<Burst>),
    Sustained(Answer<Duration>),
    ConfigReads(Answer<Duration>),
}

impl Library {
    /// Attaches the device `id`.
    pub(crate) fn attach(
        path: &str,
        options: RemoteOptions,
        id: String,
    ) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(BenchError::io("cannot make a runtime"))?;
        let (orders, inbox) = mpsc::channel(1);
        let (ready, attached) = oneshot::channel();
        let name = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("session".to_owned())
            .spawn(move || runtime.block_on(run(&name, options, id, ready, inbox)))
            .map_err(BenchError::io("cannot start a thread"))?;
        let library = Self {
            path: path.to_owned(),
            orders: Some(orders),
            thread: Some(thread),
        };
        library.wait(attached)?;
        Ok(library)
    }

    fn order<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, BenchError> {
        let (answer, answered) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or_else(|| self.ended())?;
        orders
            .blocking_send(order(answer))
            .map_err(|_| self.ended())?;
        self.wait(answered)
    }

    fn wait<T>(&self, answered: oneshot::Receiver<Result<T, BenchError>>) -> Result<T, BenchError> {
        answered.blocking_recv().map_err(|_| self.ended())?
    }

    fn ended(&self) -> BenchError {
        BenchError::Ended {
            path: self.path.clone(),
        }
    }
}

impl Probe for Library {
    fn read_round(&mut self, reads: u32) -> Result<Latencies, BenchError> {
        self.order(|answer| Order::Reads(reads, answer))
    }

    fn writer(&mut self) -> Option<&mut dyn Writer> {
        Some(self)
    }
}

impl Writer for Library {
    fn burst(&mut self) -> Result<Burst, BenchError> {
        self.order(Order::Burst)
    }

    fn sustained(&mut self) -> Result<Duration, BenchError> {
        self.order(Order::Sustained)
    }

    fn config_reads(&mut self) -> Result<Duration, BenchError> {
        self.order(Order::ConfigReads)
    }
}

impl Drop for Library {
    /// Ends the thread and waits until it has given the device back.
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(path = self.path, "the session's thread panicked");
        }
    }
}

async fn run(
    path: &str,
    options: RemoteOptions,
    id: String,
    ready: Answer<()>,
    inbox: mpsc::Receiver<Order>,
) {
    let attached = RemoteFunction::attach(&options, &Target::Device(id)).await;
    let function = match attached {
        Ok(function) => function,
        Err(source) => {
            let path = path.to_owned();
            // The receiver waits in `attach`; so do those of the answers below, each in its call.
            let _ = ready.send(Err(BenchError::Attach { path, source }));
            return;
        }
    };
    let device = function.device().clone();
    let (drive, lease) = function.into_parts(NoBus);
    let driver = tokio::spawn(drive);
    let opened = device.session().opened().await;
    let _ = ready.send(opened.map_err(|reason| BenchError::NotAccepted {
        path: path.to_owned(),
        reason,
    }));
    let accesses = tokio::spawn(serve(path.to_owned(), device.clone(), inbox));
    if accesses.await.is_err() {
        tracing::error!(path, "the accesses' task panicked");
    }
    device.session().close("the measurement is over");
    if driver.await.is_err() {
        tracing::error!(path, "the session's driver panicked");
    }
    if let Err(error) = lease.detach().await {
        tracing::debug!(path, %error, "detach");
    }
}

/// Carries out orders until no more can come. A task of its own: the runtime looks at its sockets once more each time that the
/// future it was given to block on is woken, which would be one system call for each read.
async fn serve(path: String, device: Arc<FrontDevice>, mut inbox: mpsc::Receiver<Order>) {
    let accesses = Accesses {
        path: &path,
        guest: Async(&device),
    };
    accesses.enable().await;
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Reads(count, answer) => drop(answer.send(accesses.reads(count).await)),
            Order::Burst(answer) => drop(answer.send(accesses.burst().await)),
            Order::Sustained(answer) => drop(answer.send(accesses.sustained().await)),
            Order::ConfigReads(answer) => drop(answer.send(accesses.config_reads().await)),
        }
    }
}
