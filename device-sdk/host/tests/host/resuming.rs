//! Sessions that lose their path, on both transports.

use std::time::Duration;

use potemkin_proto::v1::CloseCode;
use potemkin_sdk::Width;
use potemkin_session::access::Location;
use potemkin_session::ids::{AttachNumber, Path};
use potemkin_transport::{Connection, TransportKind};

use crate::agent::{A, Agent, B, TRANSPORTS, Ticket, bar0, connect, ticket};
use crate::bed::{Bed, RunningHost, TWO_DEVICES};
use crate::broker::{Broker, Registration};

const LIVENESS: u64 = 0x04;
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

struct Started {
    bed: Bed,
    _broker: Broker,
    host: RunningHost,
    registration: Registration,
    connection: Connection,
    agent: Agent,
}

/// A session on edu-0, at epoch 1.
async fn session(kind: TransportKind, grace: Duration) -> Started {
    let bed = Bed::new();
    let mut broker = Broker::start(&bed).await;
    let host = bed.host_with_grace(&broker, TWO_DEVICES, grace).await;
    let mut registration = broker.next_registration().await;
    assert_eq!(registration.fence("edu-0", 1, Some(A)).await, "");
    let connection = connect(&bed, "broker", host.addresses.listen, kind).await;
    let ticket = ticket("edu-0", 1, A, registration.incarnation());
    let agent = Agent::open(&connection, ticket).await;
    Started {
        bed,
        _broker: broker,
        host,
        registration,
        connection,
        agent,
    }
}

impl Started {
    fn ticket(&self, attach_number: u32) -> Ticket {
        let ticket = ticket("edu-0", 1, A, self.registration.incarnation());
        Ticket {
            path: Path {
                attach_number: AttachNumber(attach_number),
                ..ticket.path
            },
            ..ticket
        }
    }
}

fn liveness() -> Location {
    bar0(LIVENESS, Width::B4)
}

fn inverted(value: u32) -> u64 {
    u64::from(!value)
}

#[tokio::test]
async fn session_goes_on_over_another_stream_with_its_devices_state() {
    for kind in TRANSPORTS {
        let mut started = session(kind, LONG).await;
        started.agent.write(liveness(), 7);
        assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));

        // Of the first path nothing is left; what was written on the way to the next is done there.
        started.agent.write(liveness(), 9);
        started.agent.resume(&started.connection, "edu-0").await;

        assert_eq!(started.agent.read(liveness()).await, Ok(inverted(9)));
        assert_eq!(started.agent.path().attach_number, AttachNumber(2));
    }
}

#[tokio::test]
async fn session_goes_on_over_the_other_transport() {
    let mut started = session(TransportKind::Quic, LONG).await;
    started.agent.write(liveness(), 7);
    assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));
    let address = started.host.addresses.listen;
    let other = connect(&started.bed, "broker", address, TransportKind::Grpc).await;

    started.agent.resume(&other, "edu-0").await;

    assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));
}

#[tokio::test]
async fn dial_that_is_not_newer_is_refused_and_the_session_goes_on() {
    for kind in TRANSPORTS {
        let mut started = session(kind, LONG).await;
        started.agent.resume(&started.connection, "edu-0").await;

        for number in [1, 2] {
            let refused = Agent::refused(&started.connection, started.ticket(number)).await;
            assert_eq!(refused.code(), CloseCode::Superseded, "{}", refused.message);
        }

        started.agent.write(liveness(), 7);
        assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));
    }
}

#[tokio::test]
async fn dial_that_lost_its_memory_ends_the_session() {
    let mut started = session(TransportKind::Quic, LONG).await;
    started.agent.write(liveness(), 7);
    assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));
    assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));

    // As if it began anew, under the session's id: it would lack what it has acknowledged.
    let refused = Agent::refused(&started.connection, started.ticket(2)).await;

    assert_eq!(refused.code(), CloseCode::ProtocolViolation);
    assert!(
        refused.message.contains("next_reverse"),
        "{}",
        refused.message
    );
    let reason = started.registration.session_ended(A).await;
    assert!(reason.contains("next_reverse"), "{reason}");
}

#[tokio::test]
async fn session_without_a_path_ends_with_its_grace() {
    for kind in TRANSPORTS {
        let mut started = session(kind, Duration::from_millis(50)).await;
        started.agent.vanish();

        let reason = started.registration.session_ended(A).await;

        assert_eq!(reason, "host: no path for 50 ms", "{kind}");
        let refused =
            Agent::refused(&started.connection, ticket_again(&started.registration)).await;
        assert_eq!(refused.code(), CloseCode::UnknownSession);
    }
}

fn ticket_again(registration: &Registration) -> Ticket {
    let ticket = ticket("edu-0", 1, A, registration.incarnation());
    Ticket {
        path: Path {
            attach_number: AttachNumber(2),
            ..ticket.path
        },
        ..ticket
    }
}

#[tokio::test]
async fn without_grace_a_session_ends_with_its_stream() {
    for kind in TRANSPORTS {
        let mut started = session(kind, Duration::ZERO).await;

        started.agent.vanish();

        let reason = started.registration.session_ended(A).await;
        assert!(reason.contains("stream"), "{kind}: {reason}");
    }
}

#[tokio::test]
async fn fence_ends_a_session_that_waits_for_a_path() {
    let mut started = session(TransportKind::Quic, LONG).await;
    started.agent.write(liveness(), 7);
    assert_eq!(started.agent.read(liveness()).await, Ok(inverted(7)));
    started.agent.vanish();

    assert_eq!(started.registration.fence("edu-0", 2, Some(B)).await, "");

    let reason = started.registration.session_ended(A).await;
    assert!(reason.contains("epoch 2"), "{reason}");
    let incarnation = started.registration.incarnation();
    let ticket = ticket("edu-0", 2, B, incarnation);
    let mut next = Agent::open(&started.connection, ticket).await;
    assert_eq!(next.read(liveness()).await, Ok(0), "the device was reset");
}

#[tokio::test]
async fn stopping_host_ends_a_session_that_waits_for_a_path() {
    let mut started = session(TransportKind::Quic, LONG).await;
    started.agent.vanish();

    started.host.ask_to_stop();

    let reason = started.registration.session_ended(A).await;
    assert_eq!(reason, "host: stopping");
    started.host.stop().await;
}
