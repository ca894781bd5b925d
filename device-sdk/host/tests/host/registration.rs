//! Registering, and coming back.

use potemkin_host::HostBuilder;
use potemkin_proto::v1::host_message::Kind;

use crate::agent::A;
use crate::bed::{Bed, TWO_DEVICES};
use crate::broker::Broker;

#[tokio::test]
async fn host_offers_its_devices_and_keeps_its_lease() {
    let bed = Bed::new();
    let (_broker, host, mut registration) = bed.start().await;

    assert_eq!(registration.peer.as_str(), "spiffe://potemkin.dev/host/dev");
    assert_eq!(registration.data_address(), host.addresses.listen);
    let offers = &registration.hello.devices;
    assert_eq!(offers[0].device_id, "edu-0");
    assert_eq!(offers[0].class, "edu");
    assert_eq!(offers[0].labels["zone"], "a");
    assert_eq!(offers[1].device_id, "scratch-0");
    for _ in 0..3 {
        let message = registration.next_of_any_kind().await;
        assert!(matches!(message, Some(Kind::Heartbeat(_))), "{message:?}");
    }
}

#[tokio::test]
async fn host_comes_back_after_its_broker_was_away() {
    let bed = Bed::new();
    let (broker, _host, registration) = bed.start().await;
    let incarnation = registration.incarnation();

    drop(registration);
    let addr = broker.stop().await;
    let mut broker = Broker::start_at(&bed, addr).await;
    let registration = broker.next_registration().await;

    assert_eq!(registration.incarnation(), incarnation);
}

#[tokio::test]
async fn host_registers_when_its_broker_starts_later() {
    let bed = Bed::new();
    let early = Broker::start(&bed).await;
    let settings = bed.settings(&early, TWO_DEVICES);
    let addr = early.stop().await;
    let _host = bed.run(HostBuilder::new(settings, bed.path())).await;

    let mut broker = Broker::start_at(&bed, addr).await;

    assert_eq!(broker.next_registration().await.hello.devices.len(), 2);
}

#[tokio::test]
async fn highest_epoch_is_offered_after_a_restart_under_a_new_incarnation() {
    let bed = Bed::new();
    let (mut broker, host, mut registration) = bed.start().await;
    assert_eq!(registration.fence("edu-0", 7, Some(A)).await, "");
    host.stop().await;

    let _host = bed.host(&broker, TWO_DEVICES).await;
    let again = broker.next_registration().await;

    assert_eq!(again.hello.devices[0].highest_epoch, 7);
    assert_eq!(again.hello.devices[1].highest_epoch, 0);
    assert_ne!(again.incarnation(), registration.incarnation());
}

#[tokio::test]
async fn stopped_host_ends_its_registration() {
    let bed = Bed::new();
    let (_broker, host, mut registration) = bed.start().await;

    host.stop().await;

    assert!(registration.next().await.is_none());
}
