//! A hand-made agent.

use bytes::Bytes;
use potemkin_proto::v1::{self, target};
use potemkin_transport::{Connection, DialOptions, Dialer, FrameStream, TransportKind};
use tonic::Status;

use super::frames::{Path, decode, encode};
use super::host::{Host, HostSession};
use super::{Broker, broker_identity, in_time};

/// Both transports.
pub const KINDS: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Grpc];

pub fn device(id: &str) -> v1::AttachRequest {
    v1::AttachRequest {
        version_min: 1,
        version_max: 1,
        target: by_id(id),
        ..v1::AttachRequest::default()
    }
}

pub fn by_id(id: &str) -> Option<v1::Target> {
    Some(v1::Target {
        kind: Some(target::Kind::DeviceId(id.to_owned())),
    })
}

/// Attaches a device whose host does the fence.
pub async fn attach(broker: &Broker, host: &mut Host, id: &str) -> v1::AttachReply {
    let mut client = broker.control("agent").await;
    let (reply, _) = tokio::join!(in_time(client.attach(device(id))), host.obey());
    reply.unwrap().into_inner()
}

pub async fn attach_refused(broker: &Broker, id: &str) -> Status {
    let mut client = broker.control("agent").await;
    in_time(client.attach(device(id))).await.unwrap_err()
}

/// The path of a session's first dial.
pub fn path(attached: &v1::AttachReply) -> Path {
    let id: [u8; 16] = attached.session_id[..].try_into().unwrap();
    Path {
        session: u128::from_be_bytes(id),
        epoch: attached.epoch,
        attach_number: 1,
    }
}

/// A data leg. Its connection lives as long.
pub struct AgentSession {
    pub stream: FrameStream,
    pub connection: Connection,
}

/// A stream to the broker, with the certificate of this name, on which nothing was sent.
pub async fn stream(broker: &Broker, name: &str, kind: TransportKind) -> AgentSession {
    let dialer = Dialer::new(broker.tls(name), broker_identity(), DialOptions::default());
    let connection = dialer.connect(kind, broker.listen()).await.unwrap();
    let stream = connection.open().await.unwrap();
    AgentSession { stream, connection }
}

/// Sends `first` as the first frame of a new stream.
pub async fn dial(
    broker: &Broker,
    name: &str,
    kind: TransportKind,
    first: &v1::Frame,
) -> AgentSession {
    let mut session = stream(broker, name, kind).await;
    session.send(first).await;
    session
}

/// Both ends of a session that the host has accepted.
pub async fn connect(
    broker: &Broker,
    host: &mut Host,
    path: Path,
    kind: TransportKind,
) -> (AgentSession, HostSession) {
    let mut agent = dial(broker, "agent", kind, &path.open()).await;
    let mut far = host.session().await;
    let open = far.recv().await.unwrap();
    assert!(open.open.is_some());
    far.send(&path.accept()).await;
    let accept = agent.recv().await.unwrap();
    assert_eq!(accept, path.accept());
    (agent, far)
}

impl AgentSession {
    pub async fn send(&mut self, frame: &v1::Frame) {
        self.send_bytes(encode(frame)).await;
    }

    pub async fn send_bytes(&mut self, frame: Bytes) {
        self.stream.sender.send(frame).unwrap();
        in_time(self.stream.sender.flushed()).await.unwrap();
    }

    pub async fn recv(&mut self) -> Option<v1::Frame> {
        let received = in_time(self.stream.receiver.recv()).await.unwrap();
        received.map(decode)
    }

    /// The close frame with which the broker ends the stream.
    pub async fn closed(&mut self) -> v1::SessionClose {
        let close = self.recv().await.unwrap().close.unwrap();
        assert_eq!(self.recv().await, None);
        close
    }
}

/// A broker, a host with `edu-0`, and the first path of a session on it.
pub async fn attached(host_transport: &str) -> (Broker, Host, Path) {
    let broker = Broker::with_host_transport(host_transport);
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let path = path(&attach(&broker, &mut host, "edu-0").await);
    (broker, host, path)
}

/// ... which both ends have up.
pub async fn connected() -> (Broker, Host, Path, AgentSession, HostSession) {
    let (broker, mut host, path) = attached("quic").await;
    let (agent, far) = connect(&broker, &mut host, path, TransportKind::Quic).await;
    (broker, host, path, agent, far)
}
