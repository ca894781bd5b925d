//! Sessions, on both transports.

use potemkin_proto::v1::CloseCode;
use potemkin_sdk::Width;
use potemkin_session::front::Failure;
use potemkin_transport::TransportKind;

use crate::agent::{A, Agent, TRANSPORTS, bar0, connect, ticket};
use crate::bed::{Bed, RunningHost};
use crate::broker::{Broker, Registration};

const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;

struct Started {
    bed: Bed,
    _broker: Broker,
    host: RunningHost,
    registration: Registration,
    agent: Agent,
}

/// A session on `device`, at epoch 1.
async fn session(device: &'static str, kind: TransportKind) -> Started {
    let bed = Bed::new();
    let (broker, host, mut registration) = bed.start().await;
    assert_eq!(registration.fence(device, 1, Some(A)).await, "");
    let connection = connect(&bed, "broker", host.addresses.listen, kind).await;
    let ticket = ticket(device, 1, A, registration.incarnation());
    let agent = Agent::open(&connection, ticket).await;
    Started {
        bed,
        _broker: broker,
        host,
        registration,
        agent,
    }
}

#[tokio::test]
async fn edu_is_driven_over_each_transport() {
    for kind in TRANSPORTS {
        let mut started = session("edu-0", kind).await;
        let agent = &mut started.agent;
        let register = |offset| bar0(offset, Width::B4);

        assert_eq!(agent.read(register(0)).await, Ok(0x0100_00ed), "{kind}");
        agent.write(register(LIVENESS), 0x1234_5678);
        assert_eq!(agent.read(register(LIVENESS)).await, Ok(0xedcb_a987));
        agent.write(register(FACTORIAL), 10);
        while agent.read(register(STATUS)).await.unwrap() & 1 != 0 {}
        assert_eq!(agent.read(register(FACTORIAL)).await, Ok(3_628_800));
        assert_eq!(
            agent.read(bar0(0x81, Width::B2)).await,
            Err(Failure::Device)
        );
        agent.reset().await;
        assert_eq!(agent.read(register(LIVENESS)).await, Ok(0));
    }
}

#[tokio::test]
async fn thousand_posted_writes_and_a_read_arrive_in_order_in_few_frames() {
    for kind in TRANSPORTS {
        let mut started = session("edu-0", kind).await;
        let before = started.agent.frames();

        for value in 0..1_000 {
            started.agent.write(bar0(LIVENESS, Width::B4), value);
        }
        let last = started.agent.read(bar0(LIVENESS, Width::B4)).await;

        assert_eq!(last, Ok(u64::from(!999u32)));
        let after = started.agent.frames();
        assert!(after.0 - before.0 <= 4, "{kind}: {before:?} {after:?}");
        assert!(after.1 - before.1 <= 4, "{kind}: {before:?} {after:?}");
        // The log is written out at the latest when the device is reset at the session's end.
        started.agent.close().await;
        started.registration.session_ended(A).await;
        let log = std::fs::read_to_string(started.bed.path().join("edu-0.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = log
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &serde_json::Value| line["op"] != "reset")
            .collect();
        let values = |op: &str| {
            let of = lines.iter().filter(move |line| line["op"] == op);
            of.map(|line| line["value"].as_u64().unwrap()).collect()
        };
        let written: Vec<u64> = values("write");
        assert_eq!(written, (0..1_000).collect::<Vec<u64>>());
        assert_eq!(values("read"), [u64::from(!999u32)]);
        assert_eq!(lines.last().unwrap()["op"], "read");
    }
}

#[tokio::test]
async fn access_beyond_a_bar_is_refused_and_the_session_goes_on() {
    let mut started = session("scratch-0", TransportKind::Quic).await;
    let agent = &mut started.agent;

    let beyond = agent.read(bar0((64 << 10) - 2, Width::B4)).await;
    assert_eq!(beyond, Err(Failure::Device));

    assert_eq!(agent.read(bar0(0, Width::B8)).await, Ok(0));
}

#[tokio::test]
async fn detached_session_is_reported_and_its_device_reset() {
    for kind in TRANSPORTS {
        let mut started = session("scratch-0", kind).await;
        let incarnation = started.registration.incarnation();
        started.agent.write(bar0(0, Width::B4), 5);
        assert_eq!(started.agent.read(bar0(0, Width::B4)).await, Ok(5));

        started.agent.close().await;

        let reason = started.registration.session_ended(A).await;
        assert_eq!(reason, "closed by the agent");
        let connection = connect(&started.bed, "broker", started.host.addresses.listen, kind).await;
        let again = ticket("scratch-0", 1, A, incarnation);
        let refused = Agent::refused(&connection, again).await;
        assert_eq!(refused.code(), CloseCode::UnknownSession);
        let mut registration = started.registration;
        let next = crate::agent::B;
        assert_eq!(registration.fence("scratch-0", 2, Some(next)).await, "");
        let ticket = ticket("scratch-0", 2, next, incarnation);
        let mut agent = Agent::open(&connection, ticket).await;
        assert_eq!(agent.read(bar0(0, Width::B4)).await, Ok(0));
    }
}

#[tokio::test]
async fn stopping_host_closes_its_sessions_and_tells_the_broker() {
    for kind in TRANSPORTS {
        let mut started = session("scratch-0", kind).await;

        started.host.ask_to_stop();

        let close = started.agent.closed().await;
        assert_eq!(close.code(), CloseCode::Normal);
        assert_eq!(close.message, "host: stopping");
        started.registration.session_ended(A).await;
        assert!(started.registration.next().await.is_none());
        started.host.stop().await;
    }
}
