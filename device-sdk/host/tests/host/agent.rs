//! A front half whose frames come to the host as a broker would forward them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use potemkin_proto::v1::{Grant, SessionClose};
use potemkin_sdk::{BarIndex, Space, Width};
use potemkin_session::access::{Extent, Location, Posting};
use potemkin_session::frame::{Body, Frame, encode};
use potemkin_session::front::{DmaRead, Failure, Front, FrontConfig, FrontEvent, FrontState};
use potemkin_session::ids::{AttachNumber, Epoch, Incarnation, Path, SessionId};
use potemkin_transport::{
    Connection, DialOptions, Dialer, FrameStream, IdentityPattern, Role, TransportKind,
};

use crate::bed::Bed;

pub(crate) const A: SessionId = SessionId::from_bytes([0xaa; 16]);
pub(crate) const B: SessionId = SessionId::from_bytes([0xbb; 16]);
pub(crate) const TRANSPORTS: [TransportKind; 2] = [TransportKind::Quic, TransportKind::Grpc];

/// What a session is opened with.
#[derive(Clone)]
pub(crate) struct Ticket {
    pub(crate) device: &'static str,
    pub(crate) path: Path,
    pub(crate) incarnation: Incarnation,
}

pub(crate) fn ticket(
    device: &'static str,
    epoch: u64,
    session: SessionId,
    host: Incarnation,
) -> Ticket {
    Ticket {
        device,
        path: Path {
            session,
            epoch: Epoch(epoch),
            attach_number: AttachNumber(1),
        },
        incarnation: host,
    }
}

/// Connects to a host with the certificate of `role`.
pub(crate) async fn connect(
    bed: &Bed,
    role: &str,
    host: SocketAddr,
    kind: TransportKind,
) -> Connection {
    let expect = IdentityPattern::any_of_role("potemkin.dev", Role::Host).unwrap();
    let dialer = Dialer::new(bed.tls(role), expect, DialOptions::default());
    dialer.connect(kind, host).await.unwrap()
}

pub(crate) struct Agent {
    front: Front,
    stream: FrameStream,
    pub(crate) frames_received: u64,
}

impl Agent {
    /// Opens a session and waits until the host has accepted it.
    pub(crate) async fn open(connection: &Connection, ticket: Ticket) -> Self {
        let mut agent = Self::dial(connection, ticket).await;
        while agent.front.state() == FrontState::Opening {
            agent.take_frame().await.unwrap();
        }
        assert_eq!(agent.front.state(), FrontState::Live);
        agent
    }

    /// Opens a session that the host is to refuse, and gives its words.
    pub(crate) async fn refused(connection: &Connection, ticket: Ticket) -> SessionClose {
        Self::dial(connection, ticket).await.closed().await
    }

    async fn dial(connection: &Connection, ticket: Ticket) -> Self {
        let stream = connection.open().await.unwrap();
        let config = FrontConfig {
            path: ticket.path,
            host_incarnation: ticket.incarnation,
            deadline: Duration::from_secs(60),
        };
        let mut agent = Self {
            front: Front::new(config, Instant::now()),
            stream,
            frames_received: 0,
        };
        let open = agent.front.poll_transmit(Instant::now()).unwrap();
        agent.send(granted(open, ticket.device)).await;
        agent
    }

    /// Goes on over another stream, and waits until the host has accepted it.
    pub(crate) async fn resume(&mut self, connection: &Connection, device: &str) {
        self.front.handle_lost("the stream was given up");
        self.stream = connection.open().await.unwrap();
        self.front.dial(Instant::now());
        let open = self.front.poll_transmit(Instant::now()).unwrap();
        self.send(granted(open, device)).await;
        while self.front.state() == FrontState::Resuming {
            self.take_frame().await.unwrap();
        }
        assert_eq!(self.front.state(), FrontState::Live);
    }

    /// The number of the newest dial.
    pub(crate) fn path(&self) -> Path {
        self.front.path()
    }

    /// Sends any frame.
    pub(crate) async fn send(&mut self, frame: Bytes) {
        self.stream.sender.send(frame).unwrap();
        // The host may have ended the stream by now; what it said is still to be read.
        let _ = self.stream.sender.flushed().await;
    }

    /// A posted write. It is sent when there is a reason to.
    pub(crate) fn write(&mut self, at: Location, value: u64) {
        let bytes = value.to_le_bytes();
        let data = &bytes[..at.width.bytes()];
        self.front
            .write(Instant::now(), at, Extent::Single, Posting::Posted, data)
            .unwrap();
    }

    /// Resets the function, and waits until the host has confirmed it.
    pub(crate) async fn reset(&mut self) {
        self.front.reset(Instant::now());
        let last = self.front.last_sequence();
        while self.front.acknowledged() < last {
            self.transmit().await;
            self.take_frame().await.unwrap();
        }
    }

    pub(crate) async fn read(&mut self, at: Location) -> Result<u64, Failure> {
        let sequence = self.front.read(Instant::now(), at, Extent::Single).unwrap();
        let data = self.completion(sequence).await?;
        let mut value = [0; 8];
        value[..data.len()].copy_from_slice(&data);
        Ok(u64::from_le_bytes(value))
    }

    async fn completion(&mut self, wanted: u64) -> Result<Bytes, Failure> {
        loop {
            self.transmit().await;
            while let Some(event) = self.front.poll_event() {
                if let FrontEvent::Completed { sequence, outcome } = event {
                    assert_eq!(sequence, wanted);
                    return outcome;
                }
            }
            if self.take_frame().await.is_none() {
                self.front.handle_lost("the stream ended");
            }
        }
    }

    /// Waits for the next thing that the device does by itself, without sending anything.
    pub(crate) async fn next_event(&mut self) -> FrontEvent {
        loop {
            match self.front.poll_event() {
                Some(FrontEvent::Opened) => {}
                Some(event) => return event,
                None => self.take_frame().await.unwrap(),
            }
        }
    }

    /// The answer to a read of guest memory. It is sent when the rest is.
    pub(crate) fn answer(&mut self, read: &DmaRead, data: Bytes) {
        self.front.answer_dma_read(Instant::now(), read, Ok(data));
    }

    /// Hands what is due to the transport.
    pub(crate) async fn transmit(&mut self) {
        while let Some(frame) = self.front.poll_transmit(Instant::now()) {
            self.send(frame).await;
        }
    }

    /// Frames sent and received.
    pub(crate) fn frames(&self) -> (u64, u64) {
        (self.front.counters().frames_sent, self.frames_received)
    }

    async fn take_frame(&mut self) -> Option<()> {
        let frame = self.stream.receiver.recv().await.ok().flatten()?;
        self.frames_received += 1;
        self.front.handle_frame(frame).unwrap();
        Some(())
    }

    /// Waits for the host to close the session, and for the end of the stream.
    pub(crate) async fn closed(mut self) -> SessionClose {
        self.closed_path().await
    }

    /// Waits for the host to close the path, and for the end of the stream.
    pub(crate) async fn closed_path(&mut self) -> SessionClose {
        loop {
            let frame = self.stream.receiver.recv().await.unwrap();
            let frame = Frame::decode(frame.expect("close comes before the end")).unwrap();
            if let Body::Close(close) = frame.body {
                assert_eq!(self.stream.receiver.recv().await.unwrap(), None);
                return close;
            }
        }
    }

    /// Ends the session as an agent does that detaches.
    pub(crate) async fn close(mut self) {
        self.front.close("detached");
        self.transmit().await;
        self.stream.sender.finish().await;
    }

    /// Ends the stream without a word.
    pub(crate) fn vanish(self) {}
}

pub(crate) fn bar0(offset: u64, width: Width) -> Location {
    Location {
        space: Space::Bar(BarIndex::B0),
        offset,
        width,
    }
}

/// What a broker adds to an agent's `open`.
fn granted(open: Bytes, device: &str) -> Bytes {
    let mut frame = Frame::decode(open).unwrap();
    if let Body::Open(open) = &mut frame.body {
        open.grant = Some(Grant {
            device_id: device.into(),
            agent: "spiffe://potemkin.dev/agent/dev".into(),
        });
    }
    encode(frame.header, frame.body)
}
