//! A hand-made host.

use std::net::SocketAddr;
use std::time::Duration;

use potemkin_proto::v1::{self, broker_message, host_message};
use potemkin_transport::{
    FrameStream, Identity, ListenOptions, SessionHandler, TransportKind, listen,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use super::frames::{Path, decode, encode};
use super::offer::{device_offer, live_session};
use super::{Broker, in_time};

/// A host that is registered.
pub struct Host {
    pub accepted: v1::HostAccepted,
    pub outgoing: mpsc::Sender<v1::HostMessage>,
    pub incoming: Streaming<v1::BrokerMessage>,
    pub sessions: mpsc::Receiver<HostSession>,
}

/// A session's stream that the broker opened. The listener holds it until this is dropped.
pub struct HostSession {
    pub peer: Identity,
    pub stream: FrameStream,
    _release: oneshot::Sender<()>,
}

struct Handler(mpsc::Sender<HostSession>);

impl SessionHandler for Handler {
    async fn session(
        &self,
        peer: Identity,
        _kind: TransportKind,
        _remote: SocketAddr,
        stream: FrameStream,
    ) {
        let (release, released) = oneshot::channel();
        let session = HostSession {
            peer,
            stream,
            _release: release,
        };
        if self.0.send(session).await.is_ok() {
            let _ = released.await;
        }
    }
}

pub fn hello(data_address: SocketAddr, devices: &[&str]) -> v1::HostHello {
    v1::HostHello {
        version_min: 1,
        version_max: 1,
        incarnation: vec![7; 16].into(),
        data_address: data_address.to_string(),
        devices: devices.iter().map(|d| device_offer(d)).collect(),
        sessions: Vec::new(),
    }
}

/// What a host of version 2 says, on whose `edu-0` this path's session lives.
pub fn hello_with(data_address: SocketAddr, path: Path) -> v1::HostHello {
    let mut hello = v1::HostHello {
        version_max: 2,
        sessions: vec![live_session("edu-0", path.session, path.epoch)],
        ..hello(data_address, &["edu-0"])
    };
    hello.devices[0].highest_epoch = path.epoch;
    hello
}

impl Host {
    /// The development host with a data plane and these devices.
    pub async fn start(broker: &Broker, devices: &[&str]) -> Self {
        let (address, sessions) = serve(broker, "host").await;
        Self::register(broker, "host", hello(address, devices), sessions)
            .await
            .unwrap()
    }

    /// A host that registers an address where nobody answers.
    pub async fn unreachable(broker: &Broker, devices: &[&str]) -> Self {
        // Bound and closed again: free, as far as anybody can tell.
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = unused.local_addr().unwrap();
        drop(unused);
        let (_, sessions) = mpsc::channel(1);
        Self::register(broker, "host", hello(address, devices), sessions)
            .await
            .unwrap()
    }

    pub async fn register(
        broker: &Broker,
        name: &str,
        hello: v1::HostHello,
        sessions: mpsc::Receiver<HostSession>,
    ) -> Result<Self, Status> {
        let (outgoing, messages) = mpsc::channel(64);
        let first = host_message::Kind::Hello(hello);
        outgoing.send(message(first)).await.unwrap();
        let mut client = broker.control(name).await;
        let mut incoming = client
            .register(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let accepted = match incoming.message().await?.and_then(|m| m.kind) {
            Some(broker_message::Kind::Accepted(accepted)) => accepted,
            other => panic!("not accepted: {other:?}"),
        };
        Ok(Self {
            accepted,
            outgoing,
            incoming,
            sessions,
        })
    }

    /// The next fence.
    pub async fn fence(&mut self) -> v1::Fence {
        let message = in_time(self.incoming.message()).await.unwrap();
        match message.and_then(|m| m.kind) {
            Some(broker_message::Kind::Fence(fence)) => fence,
            other => panic!("not a fence: {other:?}"),
        }
    }

    /// Does the next fence.
    pub async fn obey(&mut self) -> v1::Fence {
        let fence = self.fence().await;
        let done = host_message::Kind::FenceDone(v1::FenceDone {
            device_id: fence.device_id.clone(),
            epoch: fence.epoch,
            error: String::new(),
        });
        self.outgoing.send(message(done)).await.unwrap();
        fence
    }

    /// Nothing came from the broker, and nothing comes soon.
    pub async fn was_left_alone(&mut self) {
        let soon = Duration::from_millis(100);
        let came = tokio::time::timeout(soon, self.incoming.message()).await;
        assert!(came.is_err(), "{came:?}");
    }

    /// The next session's stream.
    pub async fn session(&mut self) -> HostSession {
        in_time(self.sessions.recv()).await.unwrap()
    }
}

pub fn message(kind: host_message::Kind) -> v1::HostMessage {
    v1::HostMessage { kind: Some(kind) }
}

impl HostSession {
    pub async fn recv(&mut self) -> Option<v1::Frame> {
        let received = in_time(self.stream.receiver.recv()).await.unwrap();
        received.map(decode)
    }

    pub async fn send(&mut self, frame: &v1::Frame) {
        self.stream.sender.send(encode(frame)).unwrap();
        in_time(self.stream.sender.flushed()).await.unwrap();
    }
}

/// A data plane that gives its streams to the test, for as long as the test's runtime lives.
pub async fn serve(broker: &Broker, name: &str) -> (SocketAddr, mpsc::Receiver<HostSession>) {
    let options = ListenOptions::new("127.0.0.1:0".parse().unwrap(), broker.tls(name));
    let listener = listen(options).await.unwrap();
    let address = listener.local_addr();
    let (sender, sessions) = mpsc::channel(64);
    tokio::spawn(async move {
        let forever = std::future::pending();
        listener
            .serve(Handler(sender), Routes::default(), forever)
            .await
            .unwrap();
    });
    (address, sessions)
}
