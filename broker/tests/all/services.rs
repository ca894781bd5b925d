//! Watches, and what else is on the control service's port.

use potemkin_proto::v1::{self, DeviceState, watch_event::Kind as Event};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

use crate::kit::agent::attach;
use crate::kit::host::{Host, hello};
use crate::kit::{Broker, in_time};

async fn next(events: &mut Streaming<v1::WatchEvent>) -> Event {
    in_time(events.message())
        .await
        .unwrap()
        .unwrap()
        .kind
        .unwrap()
}

#[tokio::test]
async fn a_watch_tells_the_state_of_today_and_then_each_change() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let mut operator = broker.control("operator").await;
    let mut events = operator
        .watch(v1::WatchRequest {})
        .await
        .unwrap()
        .into_inner();

    assert!(matches!(next(&mut events).await, Event::Device(d) if d.state() == DeviceState::Free));
    assert_eq!(next(&mut events).await, Event::InSync(true));

    let attached = attach(&broker, &mut host, "edu-0").await;
    loop {
        if let Event::Session(session) = next(&mut events).await {
            assert_eq!(session.session_id, attached.session_id);
            break;
        }
    }

    // Another incarnation of the host without the device.
    let (_, sessions) = mpsc::channel(1);
    let mut reborn = hello("192.0.2.1:1".parse().unwrap(), &[]);
    reborn.incarnation = vec![8; 16].into();
    let _host = Host::register(&broker, "host", reborn, sessions)
        .await
        .unwrap();
    let mut session_gone = false;
    loop {
        match next(&mut events).await {
            Event::SessionGone(id) => session_gone = id == attached.session_id,
            Event::DeviceGone(device) => {
                assert_eq!(device, "edu-0");
                break;
            }
            _ => {}
        }
    }
    assert!(session_gone);
}

#[tokio::test]
async fn watchers_beyond_the_limit_are_refused_until_one_goes() {
    let broker = Broker::start("[limits]\nwatchers = 1\n");
    let mut operator = broker.control("operator").await;
    let first = operator.watch(v1::WatchRequest {}).await.unwrap();
    let second = operator.watch(v1::WatchRequest {}).await;
    assert_eq!(second.unwrap_err().code(), Code::ResourceExhausted);

    drop(first);

    // The broker hears of it with the next frames on the connection.
    let again = async {
        while operator.watch(v1::WatchRequest {}).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    in_time(again).await;
}

#[tokio::test]
async fn health_says_serving() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let broker = Broker::start("");
    let mut health = HealthClient::new(broker.channel("operator").await);
    for service in ["", "potemkin.v1.Control", "potemkin.v1.Data"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{service:?} is not SERVING");
    }
}

#[tokio::test]
async fn health_says_not_serving_before_the_connections_of_a_broker_that_stops_are_closed() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let mut broker = Broker::start("");
    let mut health = HealthClient::new(broker.channel("operator").await);
    let mut watches = Vec::new();
    for service in ["", "potemkin.v1.Control", "potemkin.v1.Data"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        let first = in_time(watch.message()).await.unwrap().unwrap();
        assert_eq!(first.status, 1, "{service:?} is not SERVING");
        watches.push(watch);
    }

    let stopping = tokio::task::spawn_blocking(move || broker.stop());

    for watch in &mut watches {
        let last = in_time(watch.message()).await.unwrap().unwrap();
        assert_eq!(last.status, 2, "not NOT_SERVING");
    }
    drop((watches, health));
    in_time(stopping).await.unwrap();
}

/// Asks one version of the reflection service, which is a module of tonic_reflection, for the services.
macro_rules! services_by_reflection {
    ($version:ident) => {{
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let broker = Broker::start("");
        let mut client = ServerReflectionClient::new(broker.channel("operator").await);
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await
            .unwrap()
            .into_inner();
        let answer = in_time(answers.message()).await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("not a list: {answer:?}");
        };
        list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn reflection_of_both_versions_knows_the_services() {
    for names in [
        services_by_reflection!(v1),
        services_by_reflection!(v1alpha),
    ] {
        for name in [
            "potemkin.v1.Control",
            "potemkin.v1.Data",
            "grpc.health.v1.Health",
        ] {
            assert!(
                names.iter().any(|n| n == name),
                "{name} is not in {names:?}"
            );
        }
    }
}
