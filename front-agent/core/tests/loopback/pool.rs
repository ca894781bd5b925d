//! Brokers that all lead to one host, which keeps its session when a stream is lost; and what can be wrong with them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use potemkin_front_core::{FrontDevice, Leg, NoBus, RemoteOptions, Session, drive};
use potemkin_proto::v1::CloseCode;
use potemkin_service::certs::{self, DevOptions};
use potemkin_session::{
    access::{Operation, Payload, Status},
    host::{Host, Opening, Work},
    ids::SessionId,
};
use potemkin_transport::{
    FrameStream, Identity, ListenOptions, Role, SessionHandler, TransportKind, listen,
};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    grants::Grants,
    rig::{act, descriptor, enable_memory, front_config, incarnation, material, options},
};

/// Each read of this register gives how many there were before.
pub(crate) const COUNTER: u64 = 0x10;

/// What a broker does with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Leads to the host.
    Serve,
    /// Leads to it as a host does that speaks version 1 only.
    ServeOld,
    /// Takes it, and says nothing.
    Mute,
    /// Closes it so.
    Refuse(CloseCode),
    /// Closes it as one that does not know the session so often, then leads to the host.
    RefuseAtFirst(usize),
}

/// What happens to the stream in use when the next access comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is cut; the host does not see the access.
    CutBefore,
    /// It is cut; the host has executed the access.
    CutAfter,
    /// It stands still; the host does not see the access.
    Freeze,
}

/// The host, and what it saw.
#[derive(Default)]
pub(crate) struct World {
    host: Option<Host>,
    /// That the host serves.
    session: Option<SessionId>,
    /// Resets of the device, by its guest.
    pub(crate) resets: usize,
    fault: Option<Fault>,
    /// Reads of [`COUNTER`].
    pub(crate) reads: u64,
    /// Values of posted and other writes, in order.
    pub(crate) writes: Vec<u64>,
}

/// A stream: which broker's, and over what.
type Stream = (usize, TransportKind);

/// One of the brokers.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    pub(crate) grants: Grants,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Broker {
    pub(crate) fn becomes(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Stops at once, and listens no more.
    pub(crate) async fn kill(&mut self) {
        drop(self.stop.take());
        self.server.take().unwrap().await.unwrap();
    }
}

pub(crate) struct Pool {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) world: Arc<Mutex<World>>,
    /// The newest stream; others have ended. `None`: what is there is cut, or closed with that code.
    newest: watch::Sender<Newest>,
    /// All that were opened, in order.
    streams: watch::Sender<Vec<Stream>>,
    certs: tempfile::TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Newest {
    stream: u64,
    close: Option<CloseCode>,
    /// The device did something by itself.
    acted: u64,
}

/// A function whose session goes through a pool.
pub(crate) struct Agent {
    pub(crate) device: Arc<FrontDevice>,
    pub(crate) driver: JoinHandle<()>,
}

impl Agent {
    pub(crate) fn session(&self) -> Session {
        self.device.session()
    }

    /// Address of the broker in use.
    pub(crate) fn broker(&self) -> SocketAddr {
        self.session().link().route.unwrap().address
    }
}

impl Pool {
    pub(crate) async fn start(manners: &[Manner]) -> Self {
        let certs = tempfile::tempdir().unwrap();
        certs::write_dev(&certs.path().join("certs"), &DevOptions::default()).unwrap();
        let mut pool = Self {
            brokers: Vec::new(),
            world: Arc::default(),
            newest: watch::Sender::default(),
            streams: watch::Sender::default(),
            certs,
        };
        for manner in manners {
            let broker = pool.broker(*manner).await;
            pool.brokers.push(broker);
        }
        pool
    }

    fn certs(&self) -> std::path::PathBuf {
        self.certs.path().join("certs")
    }

    async fn broker(&self, manner: Manner) -> Broker {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let tls = material(&self.certs(), "broker");
        let listener = ListenOptions {
            drain_timeout: Duration::ZERO,
            ..ListenOptions::new(any, tls)
        };
        let listener = listen(listener).await.unwrap();
        let address = listener.local_addr();
        let manner = Arc::new(Mutex::new(manner));
        let streams = Streams {
            broker: self.brokers.len(),
            manner: Arc::clone(&manner),
            world: Arc::clone(&self.world),
            newest: self.newest.clone(),
            streams: self.streams.clone(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let grants = Grants::default();
        let routes = grants.routes();
        let server = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            listener.serve(streams, routes, stopped).await.unwrap();
        });
        Broker {
            address,
            manner,
            grants,
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// Through all brokers in their order.
    pub(crate) fn options(&self, deadline: Duration) -> RemoteOptions {
        let through = |broker: &Broker| options(&self.certs(), broker.address, Role::Broker);
        let mut all = through(&self.brokers[0]);
        for broker in &self.brokers[1..] {
            all.brokers.extend(through(broker).brokers);
        }
        RemoteOptions { deadline, ..all }
    }

    /// A live session, its memory decode on.
    pub(crate) async fn agent(&self, options: RemoteOptions) -> Agent {
        let leg = Leg::dial(&options).await.unwrap();
        let session = Session::new(front_config(options.deadline));
        let device = Arc::new(FrontDevice::new(descriptor(), session));
        let driver = tokio::spawn(drive(Arc::clone(&device), leg, options, NoBus));
        device.session().opened().await.unwrap();
        enable_memory(&device).await;
        Agent { device, driver }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The streams that were opened so far, once there are so many.
    pub(crate) async fn streams(&self, least: usize) -> Vec<Stream> {
        let mut streams = self.streams.subscribe();
        let streams = streams.wait_for(|streams| streams.len() >= least).await;
        streams.unwrap().clone()
    }

    /// When the next access comes.
    pub(crate) fn inject(&self, fault: Fault) {
        self.world().fault = Some(fault);
    }

    /// The device does something by itself, in the newest DMA generation that it knows.
    pub(crate) fn act(&self, what: impl FnOnce(&mut Host)) {
        what(self.world().host.as_mut().unwrap());
        self.newest.send_modify(|newest| newest.acted += 1);
    }

    /// The stream in use ends, now, with this close or with none.
    pub(crate) fn end_stream(&self, close: Option<CloseCode>) {
        self.newest.send_modify(|newest| {
            newest.stream += 1;
            newest.close = close;
        });
    }
}

/// A broker's streams, and the host behind them.
struct Streams {
    broker: usize,
    manner: Arc<Mutex<Manner>>,
    world: Arc<Mutex<World>>,
    newest: watch::Sender<Newest>,
    streams: watch::Sender<Vec<Stream>>,
}

impl SessionHandler for Streams {
    async fn session(
        &self,
        _peer: Identity,
        kind: TransportKind,
        _remote: SocketAddr,
        mut stream: FrameStream,
    ) {
        let Ok(Some(open)) = stream.receiver.recv().await else {
            return;
        };
        let mut opening = Opening::decode(open).unwrap();
        self.streams
            .send_modify(|streams| streams.push((self.broker, kind)));
        match self.manner() {
            Manner::Mute => return std::future::pending().await,
            Manner::Refuse(code) => return refuse(&opening, code, stream).await,
            Manner::ServeOld => opening.open.version_max = 1,
            Manner::Serve | Manner::RefuseAtFirst(_) => {}
        }
        self.serve(&opening, stream).await;
    }
}

async fn refuse(opening: &Opening, code: CloseCode, mut stream: FrameStream) {
    let close = Opening::refuse(opening.path, code, "says the test".to_owned());
    stream.sender.send(close).unwrap();
    stream.sender.finish().await;
}

impl Streams {
    fn manner(&self) -> Manner {
        let mut manner = self.manner.lock().unwrap();
        match *manner {
            Manner::RefuseAtFirst(0) => Manner::Serve,
            Manner::RefuseAtFirst(times) => {
                *manner = Manner::RefuseAtFirst(times - 1);
                Manner::Refuse(CloseCode::Unreachable)
            }
            manner => manner,
        }
    }

    /// Of two streams the newer counts.
    async fn serve(&self, opening: &Opening, mut stream: FrameStream) {
        let mut newest = self.newest.subscribe();
        self.newest.send_modify(|newest| {
            newest.stream += 1;
            newest.close = None;
        });
        let own = newest.borrow_and_update().stream;
        if !self.world.lock().unwrap().open(opening) {
            return;
        }
        loop {
            for frame in self.world.lock().unwrap().frames() {
                stream.sender.send(frame).unwrap();
            }
            if stream.sender.flushed().await.is_err() {
                return;
            }
            let received = tokio::select! {
                received = stream.receiver.recv() => received,
                _ = newest.changed() => {
                    let now = *newest.borrow_and_update();
                    if now.stream == own {
                        continue;
                    }
                    let close = now.close;
                    if let Some(code) = close {
                        refuse(opening, code, stream).await;
                    }
                    return;
                }
            };
            let Ok(Some(frame)) = received else {
                return;
            };
            let fault = self.world.lock().unwrap().take(frame);
            match fault {
                None => {}
                Some(Fault::CutBefore | Fault::CutAfter) => return,
                Some(Fault::Freeze) => return std::future::pending().await,
            }
        }
    }
}

impl World {
    /// False: the session is over.
    fn open(&mut self, opening: &Opening) -> bool {
        let session = Some(opening.path.session);
        match self.host.as_mut().filter(|_| self.session == session) {
            None => {
                self.host = Some(Host::accept(opening, incarnation(), 1).unwrap());
                self.session = session;
                self.reads = 0;
            }
            Some(host) => {
                host.suspend();
                return host.resume(opening, 1).is_ok();
            }
        }
        true
    }

    fn frames(&mut self) -> Vec<Bytes> {
        let host = self.host.as_mut().unwrap();
        std::iter::from_fn(|| host.poll_transmit()).collect()
    }

    /// Takes a frame, but for a fault that is due.
    fn take(&mut self, frame: Bytes) -> Option<Fault> {
        if let Some(fault @ (Fault::CutBefore | Fault::Freeze)) = self.fault {
            self.fault = None;
            return Some(fault);
        }
        let host = self.host.as_mut().unwrap();
        host.handle_frame(frame).unwrap();
        while let Some(work) = host.next_work() {
            self.resets += usize::from(work == Work::Reset);
            let Work::Access(access) = work else {
                host.complete(Status::Ok, &[]);
                continue;
            };
            match &access.operation {
                Operation::Read if access.at.offset == COUNTER => {
                    let value = self.reads.to_le_bytes();
                    self.reads += 1;
                    host.complete(Status::Ok, &value[..access.bytes()]);
                }
                Operation::Read => host.complete(Status::Ok, &vec![0; access.bytes()]),
                Operation::Write(_, Payload::Value(value)) => {
                    self.writes.push(*value);
                    act(host, &access, *value);
                    host.complete(Status::Ok, &[]);
                }
                Operation::Write(_, Payload::Block(_)) => host.complete(Status::Ok, &[]),
            }
        }
        self.fault.take()
    }
}

/// A port that leads to another one, by TCP only.
pub(crate) async fn tcp_only(to: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}
