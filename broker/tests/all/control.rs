//! The control service for agents and operators.

use potemkin_proto::v1::{self, CloseCode, DeviceState, host_message};
use potemkin_transport::TransportKind;
use tonic::Code;

use crate::kit::agent::{attach, attach_refused, by_id, connect, device, path};
use crate::kit::host::{Host, hello, message};
use crate::kit::offer::device_offer;
use crate::kit::{Broker, in_time};

#[tokio::test]
async fn an_attach_gives_session_epoch_incarnation_and_descriptor() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;

    let attached = attach(&broker, &mut host, "edu-0").await;

    assert_eq!(attached.version, 1);
    assert_eq!(attached.device_id, "edu-0");
    assert_eq!(attached.session_id.len(), 16);
    assert!(attached.epoch >= 1);
    assert_eq!(&attached.host_incarnation[..], [7; 16]);
    assert_eq!(attached.descriptor, device_offer("edu-0").descriptor);
}

#[tokio::test]
async fn an_attach_waits_for_the_fence_and_names_the_session_in_it() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let mut client = broker.control("agent").await;
    let attaching = tokio::spawn(async move { client.attach(device("edu-0")).await });

    let fence = host.fence().await;
    assert!(!attaching.is_finished());
    let done = v1::FenceDone {
        device_id: fence.device_id.clone(),
        epoch: fence.epoch,
        error: String::new(),
    };
    let done = message(host_message::Kind::FenceDone(done));
    host.outgoing.send(done).await.unwrap();

    let attached = in_time(attaching).await.unwrap().unwrap().into_inner();
    assert_eq!(attached.session_id, fence.session_id);
    assert_eq!(attached.epoch, fence.epoch);
}

#[tokio::test]
async fn a_host_that_does_not_fence_in_time_makes_the_attach_unavailable() {
    let broker = Broker::start("[sessions]\nfence_timeout = \"100ms\"\n");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let status = attach_refused(&broker, "edu-0").await;
    assert_eq!(status.code(), Code::Unavailable);
    let first = host.fence().await;
    let second = host.fence().await;
    assert!(second.epoch > first.epoch);
    assert!(second.session_id.is_empty());
}

#[tokio::test]
async fn a_device_that_no_host_offers_is_not_found_by_name() {
    let broker = Broker::start("");
    let status = attach_refused(&broker, "edu-77").await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("edu-77"), "{}", status.message());
}

#[tokio::test]
async fn a_device_outside_the_policy_is_denied() {
    let broker = Broker::start("");
    let _host = Host::start(&broker, &["nvme-0"]).await;
    let status = attach_refused(&broker, "nvme-0").await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("policy.claim"));
}

#[tokio::test]
async fn malformed_requests_name_their_field() {
    let broker = Broker::start("");
    let mut client = broker.control("agent").await;
    let bad_id = client.attach(device("No Such Id")).await;
    let bad_version = client
        .attach(v1::AttachRequest {
            version_min: 9,
            version_max: 9,
            ..device("edu-0")
        })
        .await;
    let bad_session = client
        .detach(v1::DetachRequest {
            session_id: vec![1; 3].into(),
        })
        .await;
    let fields = [
        (bad_id.map(drop), "target.device_id:"),
        (bad_version.map(drop), "version_min:"),
        (bad_session.map(drop), "session_id:"),
    ];
    for (result, field) in fields {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{}", status.message());
    }
}

#[tokio::test]
async fn a_request_beyond_its_size_is_refused() {
    let broker = Broker::start("");
    let mut client = broker.control("agent").await;
    let huge = v1::ReleaseRequest {
        claim_id: vec![0; 100_000].into(),
    };
    let status = client.release(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn each_method_is_for_its_roles() {
    let broker = Broker::start("");
    let mut host = broker.control("host").await;
    let mut agent = broker.control("agent").await;
    let mut operator = broker.control("operator").await;
    let hello = hello("192.0.2.1:1".parse().unwrap(), &[]);
    let first = message(host_message::Kind::Hello(hello));
    let claim = v1::ClaimRequest {
        target: by_id("edu-0"),
        ..v1::ClaimRequest::default()
    };

    let denied = [
        agent.register(tokio_stream::once(first)).await.map(drop),
        host.attach(device("edu-0")).await.map(drop),
        operator.attach(device("edu-0")).await.map(drop),
        operator.claim(claim).await.map(drop),
        host.detach(v1::DetachRequest::default()).await.map(drop),
        host.release(v1::ReleaseRequest::default()).await.map(drop),
    ];

    for result in denied {
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("role"), "{}", status.message());
    }
}

#[tokio::test]
async fn a_claim_is_taken_attached_and_released() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let mut agent = broker.control("agent").await;
    let claim = v1::ClaimRequest {
        target: by_id("edu-0"),
        ..v1::ClaimRequest::default()
    };
    let claimed = agent.claim(claim).await.unwrap().into_inner();
    let foreign = broker
        .control("agent-two")
        .await
        .attach(device("edu-0"))
        .await;
    assert_eq!(foreign.unwrap_err().code(), Code::FailedPrecondition);

    let request = v1::AttachRequest {
        target: None,
        claim_id: claimed.claim_id.clone(),
        ..device("edu-0")
    };
    let (attached, _) = tokio::join!(agent.attach(request), host.obey());
    assert_eq!(attached.unwrap().into_inner().epoch, claimed.epoch);

    let release = v1::ReleaseRequest {
        claim_id: claimed.claim_id,
    };
    let (released, fence) = tokio::join!(agent.release(release), host.obey());
    released.unwrap();
    assert!(fence.epoch > claimed.epoch);
    assert!(fence.session_id.is_empty());
}

#[tokio::test]
async fn an_operator_claims_for_an_agent_which_attaches_and_releases_it() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let mut operator = broker.control("operator").await;
    let claim = v1::ClaimRequest {
        target: by_id("edu-0"),
        agent: "spiffe://potemkin.dev/agent/dev".into(),
    };

    let claimed = operator.claim(claim).await.unwrap().into_inner();

    let foreign = broker
        .control("agent-two")
        .await
        .attach(device("edu-0"))
        .await;
    assert_eq!(foreign.unwrap_err().code(), Code::FailedPrecondition);
    let attached = attach(&broker, &mut host, "edu-0").await;
    assert_eq!(attached.epoch, claimed.epoch);
    let path = path(&attached);
    let (mut agent, _far) = connect(&broker, &mut host, path, TransportKind::Quic).await;

    let release = v1::ReleaseRequest {
        claim_id: claimed.claim_id,
    };
    let (released, fence) = tokio::join!(operator.release(release), host.obey());
    released.unwrap();
    assert!(fence.epoch > claimed.epoch);
    let told = agent.closed().await.message;
    assert_eq!(told, "ended by operator spiffe://potemkin.dev/operator/dev");
}

#[tokio::test]
async fn a_claim_for_an_agent_needs_an_operator_and_the_agents_own_right() {
    let broker = Broker::start("");
    let _host = Host::start(&broker, &["edu-0", "nvme-0"]).await;
    let mut operator = broker.control("operator").await;
    let mut agent = broker.control("agent").await;
    let claim = |device: &str, agent: &str| v1::ClaimRequest {
        target: by_id(device),
        agent: agent.into(),
    };
    let (own, other) = (
        "spiffe://potemkin.dev/agent/dev",
        "spiffe://potemkin.dev/agent/two",
    );

    let by_policy = operator.claim(claim("nvme-0", own)).await.unwrap_err();
    let for_stranger = operator
        .claim(claim("edu-0", "spiffe://else.where/agent/dev"))
        .await
        .unwrap_err();
    let for_host = operator
        .claim(claim("edu-0", "spiffe://potemkin.dev/host/dev"))
        .await
        .unwrap_err();
    let for_nobody = operator.claim(claim("edu-0", "")).await.unwrap_err();
    let by_agent = agent.claim(claim("edu-0", other)).await.unwrap_err();

    assert_eq!(by_policy.code(), Code::PermissionDenied);
    assert!(by_policy.message().contains("policy.claim"));
    assert_eq!(for_stranger.code(), Code::PermissionDenied);
    assert_eq!(for_host.code(), Code::InvalidArgument);
    assert!(for_host.message().starts_with("agent:"));
    assert_eq!(for_nobody.code(), Code::PermissionDenied);
    assert_eq!(by_agent.code(), Code::PermissionDenied);
    assert!(by_agent.message().contains(other));
    agent.claim(claim("edu-0", own)).await.unwrap();
}

#[tokio::test]
async fn an_operator_sees_and_detaches_what_is_an_agents() {
    let broker = Broker::start("");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let attached = attach(&broker, &mut host, "edu-0").await;
    let path = path(&attached);
    let (mut agent, mut far) = connect(&broker, &mut host, path, TransportKind::Quic).await;
    agent.send(&path.batch(100)).await;
    far.recv().await.unwrap();
    let mut operator = broker.control("operator").await;

    let listed = operator.list_sessions(v1::ListSessionsRequest {}).await;
    let sessions = listed.unwrap().into_inner().sessions;
    assert_eq!(sessions.len(), 1);
    let session = &sessions[0];
    assert_eq!(session.agent, "spiffe://potemkin.dev/agent/dev");
    assert_eq!(session.host, "spiffe://potemkin.dev/host/dev");
    assert!(session.connected);
    assert_eq!(session.agent_transport, "quic");
    // The open frame and the batch; the accept frame.
    assert_eq!((session.frames_forward, session.frames_reverse), (2, 1));
    let stranger = broker
        .control("agent-two")
        .await
        .list_sessions(v1::ListSessionsRequest {})
        .await;
    assert!(stranger.unwrap().into_inner().sessions.is_empty());

    let detach = v1::DetachRequest {
        session_id: attached.session_id,
    };
    let (detached, fence) = tokio::join!(operator.detach(detach), host.obey());
    detached.unwrap();
    assert!(fence.epoch > attached.epoch);
    let close = agent.closed().await;
    assert_eq!(close.code(), CloseCode::Normal);
    let operators_name = "spiffe://potemkin.dev/operator/dev";
    assert_eq!(close.message, format!("ended by operator {operators_name}"));
    let devices = operator
        .list_devices(v1::ListDevicesRequest {})
        .await
        .unwrap();
    assert_eq!(devices.into_inner().devices[0].state(), DeviceState::Free);
}

#[tokio::test]
async fn a_newer_process_of_an_agent_takes_the_device_and_the_older_hears_why() {
    let broker = Broker::start("[sessions]\ngrace = \"1h\"\n");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let from = |process: u8| v1::AttachRequest {
        agent_incarnation: vec![process; 16].into(),
        ..device("edu-0")
    };
    let mut client = broker.control("agent").await;
    let (attached, _) = tokio::join!(in_time(client.attach(from(1))), host.obey());
    let older = path(&attached.unwrap().into_inner());
    let (mut agent, _far) = connect(&broker, &mut host, older, TransportKind::Quic).await;

    let same = in_time(client.attach(from(1))).await.unwrap_err();
    let (newer, fence) = tokio::join!(in_time(client.attach(from(2))), host.obey());

    assert_eq!(same.code(), Code::FailedPrecondition);
    let newer = newer.unwrap().into_inner();
    assert!(newer.epoch > older.epoch);
    assert_eq!(newer.session_id, fence.session_id);
    let close = agent.closed().await;
    assert_eq!(close.code(), CloseCode::Superseded);
    assert_eq!(
        close.message,
        "superseded by a newer process of the same agent"
    );
}

#[tokio::test]
async fn sessions_end_when_the_agent_stays_away_for_the_grace() {
    let broker = Broker::start("[sessions]\ngrace = \"100ms\"\n");
    let mut host = Host::start(&broker, &["edu-0"]).await;
    let attached = attach(&broker, &mut host, "edu-0").await;

    let fence = host.obey().await;

    assert!(fence.epoch > attached.epoch);
    attach(&broker, &mut host, "edu-0").await;
}
