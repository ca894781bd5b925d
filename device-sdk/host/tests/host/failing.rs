//! Devices of an author's own, and devices that panic.

use potemkin_devices::Scratch;
use potemkin_host::{HostBuilder, Offer};
use potemkin_proto::v1::CloseCode;
use potemkin_sdk::{AccessError, Descriptor, Device, DeviceHandle, Register, ResetKind, Width};
use potemkin_session::front::Failure;
use potemkin_transport::TransportKind;

use crate::agent::{A, Agent, B, bar0, connect, ticket};
use crate::bed::Bed;
use crate::broker::Broker;

const SCRATCH: &str = r#"
    [[devices]]
    id = "scratch-0"
    kind = "scratch"
"#;

/// A scratch device that panics when offset 8 is read.
struct Fragile(Scratch);

impl Device for Fragile {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        assert_ne!(at.offset, 8, "this register is cursed");
        self.0.read(at)
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        self.0.write(at, value)
    }

    fn reset(&mut self, kind: ResetKind) {
        self.0.reset(kind);
    }
}

/// A scratch device that notifies itself of each write, and panics when it hears of it.
struct Nervous(Scratch, Option<DeviceHandle>);

impl Device for Nervous {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.1 = Some(handle);
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        self.0.read(at)
    }

    fn write(&mut self, _: Register, _: u64) -> Result<(), AccessError> {
        self.1.as_ref().unwrap().notify();
        Ok(())
    }

    fn notified(&mut self) {
        panic!("not a good time");
    }

    fn reset(&mut self, kind: ResetKind) {
        self.0.reset(kind);
    }
}

#[tokio::test]
async fn device_that_fails_by_itself_ends_its_session_without_an_access() {
    let bed = Bed::new();
    let mut broker = Broker::start(&bed).await;
    let settings = bed.settings(&broker, "");
    let device = Box::new(Nervous(Scratch::new(64).unwrap(), None));
    let builder = HostBuilder::new(settings, bed.path()).offer(Offer::new("n", "nervous", device));
    let host = bed.run(builder).await;
    let mut registration = broker.next_registration().await;
    let connection = connect(&bed, "broker", host.addresses.listen, TransportKind::Quic).await;
    let incarnation = registration.incarnation();
    assert_eq!(registration.fence("n", 1, Some(A)).await, "");
    let mut agent = Agent::open(&connection, ticket("n", 1, A, incarnation)).await;

    agent.write(bar0(0, Width::B4), 1);
    agent.transmit().await;

    let close = agent.closed().await;
    assert_eq!(close.code(), CloseCode::UnknownSession);
    registration.session_ended(A).await;
}

#[tokio::test]
async fn panicking_device_ends_its_own_session_only() {
    let bed = Bed::new();
    let mut broker = Broker::start(&bed).await;
    let settings = bed.settings(&broker, SCRATCH);
    let fragile = Offer::new(
        "fragile-0",
        "fragile",
        Box::new(Fragile(Scratch::new(64).unwrap())),
    );
    let builder = HostBuilder::new(settings, bed.path()).offer(fragile.label("zone", "b"));
    let host = bed.run(builder).await;
    let mut registration = broker.next_registration().await;
    assert_eq!(registration.hello.devices[0].device_id, "fragile-0");
    assert_eq!(registration.hello.devices[0].labels["zone"], "b");
    let connection = connect(&bed, "broker", host.addresses.listen, TransportKind::Quic).await;
    let incarnation = registration.incarnation();
    assert_eq!(registration.fence("fragile-0", 1, Some(A)).await, "");
    assert_eq!(registration.fence("scratch-0", 1, Some(B)).await, "");
    let mut victim = Agent::open(&connection, ticket("fragile-0", 1, A, incarnation)).await;
    let mut other = Agent::open(&connection, ticket("scratch-0", 1, B, incarnation)).await;
    assert_eq!(victim.read(bar0(0, Width::B4)).await, Ok(0));

    assert_eq!(victim.read(bar0(8, Width::B4)).await, Err(Failure::Device));

    let close = victim.closed().await;
    assert_eq!(close.code(), CloseCode::UnknownSession);
    assert!(close.message.contains("fragile-0"), "{}", close.message);
    registration.session_ended(A).await;
    other.write(bar0(0, Width::B4), 5);
    assert_eq!(other.read(bar0(0, Width::B4)).await, Ok(5));
    let error = registration.fence("fragile-0", 2, Some(B)).await;
    assert!(error.contains("failed"), "{error}");
}
