//! Bytes that no sound peer sends.

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, SessionClose};
use potemkin_sdk::Width;
use potemkin_session::frame::{Body, Frame, encode};
use potemkin_session::ids::Path;
use potemkin_transport::{Connection, TransportKind};

use crate::agent::{A, Agent, B, TRANSPORTS, Ticket, bar0, connect, ticket};
use crate::bed::{Bed, RunningHost};
use crate::broker::{Broker, Registration};

struct Started {
    _broker: Broker,
    _host: RunningHost,
    registration: Registration,
    connection: Connection,
    bystander: Agent,
}

/// A host with a session on `scratch-0` that must not notice what happens elsewhere.
async fn start(bed: &Bed, kind: TransportKind) -> Started {
    let (broker, host, mut registration) = bed.start().await;
    let connection = connect(bed, "broker", host.addresses.listen, kind).await;
    assert_eq!(registration.fence("scratch-0", 1, Some(B)).await, "");
    let ticket = ticket("scratch-0", 1, B, registration.incarnation());
    let bystander = Agent::open(&connection, ticket).await;
    Started {
        _broker: broker,
        _host: host,
        registration,
        connection,
        bystander,
    }
}

impl Started {
    async fn bystander_is_well(&mut self) {
        let agent = &mut self.bystander;
        agent.write(bar0(0, Width::B4), 5);
        assert_eq!(agent.read(bar0(0, Width::B4)).await, Ok(5));
    }

    /// A session on `edu-0` at the next epoch.
    async fn victim(&mut self, epoch: u64) -> Agent {
        assert_eq!(self.registration.fence("edu-0", epoch, Some(A)).await, "");
        let incarnation = self.registration.incarnation();
        Agent::open(&self.connection, ticket("edu-0", epoch, A, incarnation)).await
    }
}

/// Makes an unsound frame of the session at this epoch.
type Spoil = fn(u64) -> Bytes;

/// A sound header of the session, to be spoilt.
fn header(epoch: u64) -> potemkin_proto::v1::FrameHeader {
    let (session_hi, session_lo) = A.halves();
    potemkin_proto::v1::FrameHeader {
        session_hi,
        session_lo,
        epoch,
        attach_number: 1,
        first_sequence: 1,
        ..Default::default()
    }
}

#[tokio::test]
async fn unsound_frames_close_their_session_by_field_and_no_other() {
    for kind in TRANSPORTS {
        let bed = Bed::new();
        let mut started = start(&bed, kind).await;
        let frames: [(&str, Spoil); 2] = [
            ("header.posted", |epoch| {
                let header = potemkin_proto::v1::FrameHeader {
                    posted: 3,
                    ..header(epoch)
                };
                spoilt(header, Body::Empty)
            }),
            ("batch.", |epoch| {
                let batch = Bytes::from_static(&[0x0a, 0x01, 0x00]);
                spoilt(header(epoch), Body::Batch(batch))
            }),
        ];
        for (epoch, (field, frame)) in (1..).zip(frames) {
            let mut victim = started.victim(epoch).await;

            victim.send(frame(epoch)).await;

            let close = victim.closed().await;
            assert_eq!(close.code(), CloseCode::ProtocolViolation, "{kind} {field}");
            assert!(close.message.contains(field), "{kind}: {}", close.message);
            let reason = started.registration.session_ended(A).await;
            assert!(reason.contains(field), "{kind}: {reason}");
        }
        started.bystander_is_well().await;
    }
}

#[tokio::test]
async fn frames_that_a_path_has_spoilt_cost_the_path_and_not_the_session() {
    for kind in TRANSPORTS {
        let bed = Bed::new();
        let mut started = start(&bed, kind).await;
        let mut victim = started.victim(1).await;
        victim.write(bar0(4, Width::B4), 5);
        assert_eq!(victim.read(bar0(4, Width::B4)).await, Ok(u64::from(!5u32)));
        let of_path = |epoch, path: Path| potemkin_proto::v1::FrameHeader {
            attach_number: path.attach_number.0,
            ..header(epoch)
        };
        for field in ["frame", "header: missing", "header.epoch", "accept"] {
            let frame = match field {
                "frame" => Bytes::from_static(b"\x0a\x05not"),
                "header.epoch" => spoilt(of_path(2, victim.path()), Body::Empty),
                "accept" => spoilt(of_path(1, victim.path()), Body::Accept(Default::default())),
                _ => Bytes::new(),
            };
            victim.send(frame).await;

            let close = victim.closed_path().await;
            assert_eq!(close.code(), CloseCode::PathBroken, "{kind} {field}");
            assert!(close.message.contains(field), "{kind}: {}", close.message);
            victim.resume(&started.connection, "edu-0").await;
            assert_eq!(victim.read(bar0(4, Width::B4)).await, Ok(u64::from(!5u32)));
        }
        started.bystander_is_well().await;
    }
}

fn spoilt(header: potemkin_proto::v1::FrameHeader, body: Body) -> Bytes {
    encode(header, body)
}

#[tokio::test]
async fn peers_of_other_roles_get_no_session() {
    for kind in TRANSPORTS {
        let bed = Bed::new();
        let (_broker, host, mut registration) = bed.start().await;
        assert_eq!(registration.fence("edu-0", 1, Some(A)).await, "");
        let ticket = ticket("edu-0", 1, A, registration.incarnation());
        for role in ["agent", "operator", "host"] {
            let close = refused(&bed, role, &host, kind, ticket.clone()).await;

            assert_eq!(close.code(), CloseCode::PermissionDenied);
            assert!(close.message.contains(role), "{}", close.message);
        }
    }
}

async fn refused(
    bed: &Bed,
    role: &str,
    host: &RunningHost,
    kind: TransportKind,
    ticket: Ticket,
) -> SessionClose {
    let connection = connect(bed, role, host.addresses.listen, kind).await;
    Agent::refused(&connection, ticket).await
}

#[tokio::test]
async fn stream_without_an_opening_is_closed_with_a_reason() {
    for kind in TRANSPORTS {
        let bed = Bed::new();
        let (_broker, host, _registration) = bed.start().await;
        let connection = connect(&bed, "broker", host.addresses.listen, kind).await;
        let mut stream = connection.open().await.unwrap();

        stream.sender.finish().await;

        let frame = stream.receiver.recv().await.unwrap().unwrap();
        let Body::Close(close) = Frame::decode(frame).unwrap().body else {
            panic!("no close frame");
        };
        assert_eq!(close.code(), CloseCode::ProtocolViolation);
        assert!(close.message.contains("before the first one"));
    }
}
