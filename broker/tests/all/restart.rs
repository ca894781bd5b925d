//! What a restarted broker still knows.

use potemkin_proto::v1;
use tonic::Code;

use crate::kit::Broker;
use crate::kit::agent::{attach, by_id, device};
use crate::kit::host::{Host, hello, serve};
use crate::kit::offer::device_offer;

#[tokio::test]
async fn an_explicit_claim_and_the_epochs_survive() {
    let mut broker = Broker::start("[connections]\ndrain_timeout = \"100ms\"\n");
    let mut host = Host::start(&broker, &["edu-0", "edu-1"]).await;
    let claim = v1::ClaimRequest {
        target: by_id("edu-0"),
        ..v1::ClaimRequest::default()
    };
    let mut agent = broker.control("agent").await;
    let claimed = agent.claim(claim).await.unwrap().into_inner();
    let attached = attach(&broker, &mut host, "edu-1").await;
    drop((host, agent));

    broker.restart();

    // The host has not seen the claim's epoch, and has that of the session.
    let (address, sessions) = serve(&broker, "host").await;
    let mut again = hello(address, &[]);
    again.devices = vec![device_offer("edu-0"), device_offer("edu-1")];
    again.devices[1].highest_epoch = attached.epoch;
    let mut host = Host::register(&broker, "host", again, sessions)
        .await
        .unwrap();
    let fences = [host.obey().await, host.obey().await];
    assert!(fences.iter().all(|f| f.session_id.is_empty()));
    let of = |id: &str| fences.iter().find(|f| f.device_id == id).unwrap().epoch;
    assert!(of("edu-0") > claimed.epoch);
    assert!(of("edu-1") > attached.epoch);

    let mut stranger = broker.control("agent-two").await;
    let refused = stranger.attach(device("edu-0")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let request = v1::AttachRequest {
        target: None,
        claim_id: claimed.claim_id,
        ..device("edu-0")
    };
    let mut agent = broker.control("agent").await;
    let (attached, _) = tokio::join!(agent.attach(request), host.obey());
    assert!(attached.unwrap().into_inner().epoch > of("edu-0"));
}

#[tokio::test]
async fn the_state_folder_is_for_the_broker_only() {
    use std::os::unix::fs::PermissionsExt;
    let broker = Broker::start("");
    let folder = broker.folder().join("state");
    let mode = std::fs::metadata(folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
