//! A broker that accepts every host and sends what a test tells it.

use std::net::SocketAddr;

use potemkin_proto::v1::control_server::{Control, ControlServer};
use potemkin_proto::v1::*;
use potemkin_session::ids::{Incarnation, SessionId};
use potemkin_transport::{
    FrameStream, Identity, ListenOptions, SessionHandler, TransportKind, listen, peer_identity,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::bed::Bed;

pub(crate) const LEASE_MS: u32 = 90;

pub(crate) struct Broker {
    addr: SocketAddr,
    registrations: mpsc::Receiver<Registration>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Broker {
    pub(crate) async fn start(bed: &Bed) -> Self {
        Self::start_at(bed, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(bed: &Bed, addr: SocketAddr) -> Self {
        let mut options = ListenOptions::new(addr, bed.tls("broker"));
        options.drain_timeout = std::time::Duration::ZERO;
        let listener = listen(options).await.unwrap();
        let addr = listener.local_addr();
        let (tx, registrations) = mpsc::channel(8);
        let (stop, stopped) = oneshot::channel::<()>();
        let routes = Routes::new(ControlServer::new(Service(tx)));
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            listener.serve(NoSessions, routes, stopped).await.unwrap();
        });
        Self {
            addr,
            registrations,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn next_registration(&mut self) -> Registration {
        self.registrations.recv().await.unwrap()
    }

    /// Ends every connection; its port is free afterwards.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        drop(self.stop.take());
        self.task.await.unwrap();
        self.addr
    }
}

/// A host's Register stream.
pub(crate) struct Registration {
    pub(crate) peer: Identity,
    pub(crate) hello: HostHello,
    outgoing: mpsc::Sender<Result<BrokerMessage, Status>>,
    incoming: Streaming<HostMessage>,
}

impl Registration {
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation::from_slice(&self.hello.incarnation).unwrap()
    }

    pub(crate) fn data_address(&self) -> SocketAddr {
        self.hello.data_address.parse().unwrap()
    }

    /// Fences a device for a session; gives the host's error, empty if there is none.
    pub(crate) async fn fence(
        &mut self,
        device: &str,
        epoch: u64,
        session: Option<SessionId>,
    ) -> String {
        let session_id = session.map_or(Vec::new(), |id| id.to_bytes().to_vec());
        let fence = Fence {
            device_id: device.into(),
            epoch,
            session_id: session_id.into(),
        };
        self.send(broker_message::Kind::Fence(fence)).await;
        loop {
            if let Some(host_message::Kind::FenceDone(done)) = self.next().await {
                assert_eq!((done.device_id.as_str(), done.epoch), (device, epoch));
                return done.error;
            }
        }
    }

    pub(crate) async fn send(&self, kind: broker_message::Kind) {
        let message = BrokerMessage { kind: Some(kind) };
        self.outgoing.send(Ok(message)).await.unwrap();
    }

    /// The next message that is no heartbeat; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<host_message::Kind> {
        loop {
            match self.next_of_any_kind().await {
                Some(host_message::Kind::Heartbeat(_)) => {}
                other => return other,
            }
        }
    }

    pub(crate) async fn next_of_any_kind(&mut self) -> Option<host_message::Kind> {
        self.incoming.message().await.ok().flatten()?.kind
    }

    /// Waits until the host says that a session ended; gives the reason.
    pub(crate) async fn session_ended(&mut self, session: SessionId) -> String {
        loop {
            match self.next().await.expect("the host tells of the session") {
                host_message::Kind::SessionEnded(ended)
                    if ended.session_id == session.to_bytes().as_slice() =>
                {
                    return ended.reason;
                }
                _ => {}
            }
        }
    }
}

struct NoSessions;

impl SessionHandler for NoSessions {
    async fn session(&self, _: Identity, _: TransportKind, _: SocketAddr, _: FrameStream) {}
}

struct Service(mpsc::Sender<Registration>);

type Reply<T> = Result<Response<T>, Status>;

fn unused<T>() -> Reply<T> {
    Err(Status::unimplemented("not for hosts"))
}

#[tonic::async_trait]
impl Control for Service {
    type RegisterStream = ReceiverStream<Result<BrokerMessage, Status>>;
    type WatchStream = ReceiverStream<Result<WatchEvent, Status>>;

    async fn register(
        &self,
        request: Request<Streaming<HostMessage>>,
    ) -> Reply<Self::RegisterStream> {
        let peer = peer_identity(&request).unwrap().clone();
        let mut incoming = request.into_inner();
        let (outgoing, messages) = mpsc::channel(8);
        let registrations = self.0.clone();
        // The host's first message comes only after it has this call's response headers, or before: either is fine.
        tokio::spawn(async move {
            let first = incoming.message().await.unwrap().unwrap();
            let Some(host_message::Kind::Hello(hello)) = first.kind else {
                panic!("hello is not the first message: {first:?}");
            };
            let accepted = BrokerMessage {
                kind: Some(broker_message::Kind::Accepted(HostAccepted {
                    version: 1,
                    lease_ms: LEASE_MS,
                    rejected: Vec::new(),
                })),
            };
            outgoing.send(Ok(accepted)).await.unwrap();
            let registration = Registration {
                peer,
                hello,
                outgoing,
                incoming,
            };
            let _ = registrations.send(registration).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn claim(&self, _: Request<ClaimRequest>) -> Reply<ClaimReply> {
        unused()
    }

    async fn release(&self, _: Request<ReleaseRequest>) -> Reply<ReleaseReply> {
        unused()
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Reply<AttachReply> {
        unused()
    }

    async fn detach(&self, _: Request<DetachRequest>) -> Reply<DetachReply> {
        unused()
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Reply<Self::WatchStream> {
        unused()
    }

    async fn list_devices(&self, _: Request<ListDevicesRequest>) -> Reply<ListDevicesReply> {
        unused()
    }

    async fn list_sessions(&self, _: Request<ListSessionsRequest>) -> Reply<ListSessionsReply> {
        unused()
    }
}
