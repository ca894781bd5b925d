//! Hosts on their Register streams.

use potemkin_proto::v1::{self, host_message};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use crate::kit::agent::{attach, attach_refused};
use crate::kit::host::{Host, hello, message, serve};
use crate::kit::{Broker, in_time};

#[tokio::test]
async fn a_broken_device_is_rejected_by_field_and_the_others_are_served() {
    let broker = Broker::start("");
    let (address, sessions) = serve(&broker, "host").await;
    let mut hello = hello(address, &["edu-0", "edu-1"]);
    hello.devices[0].descriptor.as_mut().unwrap().bars[0].size = 12_345;

    let mut host = Host::register(&broker, "host", hello, sessions)
        .await
        .unwrap();

    let rejected = &host.accepted.rejected;
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].device_id, "edu-0");
    assert!(
        rejected[0].reason.contains("bars[0]"),
        "{}",
        rejected[0].reason
    );
    attach(&broker, &mut host, "edu-1").await;
}

#[tokio::test]
async fn hosts_that_do_not_introduce_themselves_are_refused() {
    let broker = Broker::start("[sessions]\nopen_timeout = \"50ms\"\n");
    let mut client = broker.control("host").await;
    let heartbeat = message(host_message::Kind::Heartbeat(v1::Heartbeat {}));
    let wrong_first = client.register(tokio_stream::once(heartbeat)).await;
    let silent = client.register(tokio_stream::pending()).await;
    let status = wrong_first.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("hello:"));
    assert_eq!(silent.unwrap_err().code(), Code::DeadlineExceeded);

    let (_, sessions) = mpsc::channel(1);
    let mut bad = hello("192.0.2.1:1".parse().unwrap(), &[]);
    bad.data_address = "nowhere".into();
    let refused = Host::register(&broker, "host", bad, sessions).await;
    let status = refused.map(drop).unwrap_err();
    assert!(
        status.message().starts_with("data_address:"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn the_lease_is_told_and_its_end_takes_the_devices_away() {
    let broker = Broker::start("[hosts]\nlease = \"200ms\"\n");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    assert_eq!(host.accepted.lease_ms, 200);

    let ended = in_time(host.incoming.message()).await;

    assert_eq!(ended.unwrap_err().code(), Code::Aborted);
    assert_eq!(
        attach_refused(&broker, "edu-0").await.code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn a_second_message_of_introduction_ends_the_stream() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let again = hello("192.0.2.1:1".parse().unwrap(), &[]);
    let again = message(host_message::Kind::Hello(again));
    host.outgoing.send(again).await.unwrap();
    assert!(in_time(host.incoming.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_device_belongs_to_the_host_that_offered_it_first() {
    let broker = Broker::start("");
    let _first = Host::start(&broker, &["edu-0"]).await;
    let (address, sessions) = serve(&broker, "host-two").await;
    let second = Host::register(
        &broker,
        "host-two",
        hello(address, &["edu-0", "edu-1"]),
        sessions,
    );
    let second = second.await.unwrap();
    assert_eq!(second.accepted.rejected.len(), 1);
    assert!(second.accepted.rejected[0].reason.contains("host/dev"));
}

#[tokio::test]
async fn bad_fence_answers_end_only_their_hosts_stream() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let bad = v1::FenceDone {
        device_id: "\u{0}".into(),
        ..v1::FenceDone::default()
    };
    let bad = message(host_message::Kind::FenceDone(bad));
    host.outgoing.send(bad).await.unwrap();
    assert!(in_time(host.incoming.message()).await.unwrap().is_none());
    let mut host = Host::start(&broker, &["edu-0"]).await;
    attach(&broker, &mut host, "edu-0").await;
}

#[tokio::test]
async fn register_streams_end_when_the_broker_stops() {
    let mut broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let stopping = tokio::task::spawn_blocking(move || broker.stop());
    let status: Status = in_time(host.incoming.message()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    drop(host);
    in_time(stopping).await.unwrap();
}
