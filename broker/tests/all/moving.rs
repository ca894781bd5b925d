//! Sessions that outlive a broker: told to go elsewhere, taken up by another broker, or by the same one after its restart.

use std::time::{Duration, Instant};

use potemkin_proto::v1::{self, CloseCode, host_message};
use potemkin_transport::TransportKind;
use tonic::Code;

use crate::kit::agent::{
    AgentSession, KINDS, attach, attach_refused, attached, connect, dial, path, stream,
};
use crate::kit::frames::Path;
use crate::kit::host::{Host, hello_with, message, serve};
use crate::kit::offer::live_session;
use crate::kit::{Broker, in_time};

/// The session's path by its next dial.
fn redialled(path: Path) -> Path {
    Path {
        attach_number: path.attach_number + 1,
        ..path
    }
}

/// The host, registered with a session that lives on it.
async fn host_with(broker: &Broker, path: Path) -> Host {
    let (address, sessions) = serve(broker, "host").await;
    let hello = hello_with(address, path);
    Host::register(broker, "host", hello, sessions)
        .await
        .unwrap()
}

/// Frames pass in both directions.
async fn works(broker: &Broker, host: &mut Host, path: Path) {
    let (mut agent, mut far) = connect(broker, host, path, TransportKind::Quic).await;
    agent.send(&path.batch(5)).await;
    assert_eq!(far.recv().await.unwrap(), path.batch(5));
    far.send(&path.batch(6)).await;
    assert_eq!(agent.recv().await.unwrap(), path.batch(6));
}

async fn shown(broker: &Broker) -> Vec<v1::SessionInfo> {
    let mut client = broker.control("operator").await;
    let listed = client.list_sessions(v1::ListSessionsRequest {}).await;
    listed.unwrap().into_inner().sessions
}

#[tokio::test]
async fn a_broker_that_stops_sends_agents_elsewhere_at_once() {
    for kind in KINDS {
        let broker = Broker::start("[connections]\ndrain_timeout = \"20s\"\n");
        let mut host = Host::start(&broker, &["edu-0"]).await;
        let path = path(&attach(&broker, &mut host, "edu-0").await);
        let mut agent = dial(&broker, "agent", kind, &path.open_up_to(2)).await;
        let mut far = host.session().await;
        far.recv().await.unwrap();
        far.send(&path.accept()).await;
        agent.recv().await.unwrap();
        // A watcher that does not read holds the stop up.
        let mut operator = broker.control("operator").await;
        let watch = operator.watch(v1::WatchRequest {}).await.unwrap();
        // ... and so does a dial that has not come so far.
        let mut waiting = stream(&broker, "agent", kind).await;

        let began = Instant::now();
        // Drops the broker, which tells it to stop, and does not wait.
        drop(broker);

        assert_eq!(agent.closed().await.code(), CloseCode::GoingAway);
        let to_host = far.recv().await.unwrap().close.unwrap();
        assert_eq!(to_host.code(), CloseCode::Unreachable);
        assert_going_away(&mut waiting, path).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{kind}");
        drop(watch);
    }
}

async fn assert_going_away(late: &mut AgentSession, path: Path) {
    late.send(&redialled(path).open_up_to(2)).await;
    assert_eq!(late.closed().await.code(), CloseCode::GoingAway);
}

#[tokio::test]
async fn a_session_that_is_not_known_yet_may_be_dialled_again() {
    let broker = Broker::start("");
    let path = Path {
        session: 7,
        epoch: 3,
        attach_number: 2,
    };
    let mut early = dial(&broker, "agent", TransportKind::Quic, &path.open_up_to(2)).await;
    assert_eq!(early.closed().await.code(), CloseCode::Unreachable);

    let mut host = host_with(&broker, path).await;

    works(&broker, &mut host, redialled(path)).await;
}

#[tokio::test]
async fn a_restarted_broker_routes_the_session_that_its_host_tells_of() {
    let (mut broker, host, path) = attached("quic").await;
    drop(host);
    let mut broker = tokio::task::spawn_blocking(move || {
        broker.restart();
        broker
    })
    .await
    .unwrap();

    let mut host = host_with(&broker, path).await;
    works(&broker, &mut host, redialled(path)).await;

    host.was_left_alone().await;
    let sessions = shown(&broker).await;
    assert_eq!(sessions[0].agent, "spiffe://potemkin.dev/agent/dev");
    assert_eq!(sessions[0].epoch, path.epoch);
    // It is a session as any other: its agent can end it.
    let mut agent = broker.control("agent").await;
    let detach = v1::DetachRequest {
        session_id: sessions[0].session_id.clone(),
    };
    let (detached, fence) = tokio::join!(agent.detach(detach), host.obey());
    detached.unwrap();
    assert!(fence.epoch > path.epoch);
    in_time(tokio::task::spawn_blocking(move || broker.stop()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_broker_that_only_relays_takes_the_session_over() {
    let (broker, mut host, path) = attached("quic").await;
    let relay = broker.start_relay();
    let mut there = host_with(&relay, path).await;

    works(&broker, &mut host, path).await;
    works(&relay, &mut there, redialled(path)).await;

    // Where it was granted it goes on, too, without a stream.
    assert_eq!(shown(&broker).await.len(), 1);
    there.was_left_alone().await;
    host.was_left_alone().await;
}

#[tokio::test]
async fn a_broker_that_only_relays_hears_of_new_sessions_and_grants_none() {
    let broker = Broker::start("").start_relay();
    let (address, sessions) = serve(&broker, "host").await;
    let path = Path {
        session: 9,
        epoch: 4,
        attach_number: 1,
    };
    let mut hello = hello_with(address, path);
    hello.sessions.clear();
    let mut host = Host::register(&broker, "host", hello, sessions)
        .await
        .unwrap();
    assert_eq!(host.accepted.version, 2);
    let refused = attach_refused(&broker, "edu-0").await;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused.message().contains("grants"),
        "{}",
        refused.message()
    );

    let started = live_session("edu-0", path.session, path.epoch);
    let started = message(host_message::Kind::SessionStarted(started));
    host.outgoing.send(started).await.unwrap();
    while shown(&broker).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    works(&broker, &mut host, redialled(path)).await;
    host.was_left_alone().await;
}

#[tokio::test]
async fn a_host_that_tells_of_impossible_sessions_is_refused() {
    let broker = Broker::start("");
    let (address, sessions) = serve(&broker, "host").await;
    let path = Path {
        session: 9,
        epoch: 4,
        attach_number: 1,
    };
    let mut bad = hello_with(address, path);
    bad.sessions[0].device_id = "edu-9".into();
    let refused = Host::register(&broker, "host", bad, sessions).await;
    let status = refused.map(drop).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(
        status.message().starts_with("sessions[0].device_id:"),
        "{}",
        status.message()
    );
}
