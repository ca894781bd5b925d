//! Agents that ask the control plane for what is not theirs, not there, or nonsense.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use potemkin_proto::v1::{self, target};
use potemkin_transport::TransportKind;
use prost::Message;

use crate::{
    dice::Dice,
    kind::{Kind, Verdict, Who, expect},
    scene::Scene,
    tls::Shown,
    wire::{End, Told, announced, framed, grpc},
};

const ATTACH: &str = "/potemkin.v1.Control/Attach";
const DETACH: &str = "/potemkin.v1.Control/Detach";
const RELEASE: &str = "/potemkin.v1.Control/Release";
const CLAIM: &str = "/potemkin.v1.Control/Claim";
const REGISTER: &str = "/potemkin.v1.Control/Register";
/// Between two tries to attach a device whose last session is just being ended.
const RETRY_EVERY: Duration = Duration::from_millis(5);

/// An agent that speaks to the control plane without a library of ours.
pub(crate) struct Agent<'a> {
    broker: SocketAddr,
    shown: &'a Shown,
}

impl<'a> Agent<'a> {
    pub(crate) fn new(broker: SocketAddr, shown: &'a Shown) -> Self {
        Self { broker, shown }
    }

    /// Attaches a device once its last session is over. Whoever calls bounds the wait.
    pub(crate) async fn attach_when_free(&self, device: &str) -> v1::AttachReply {
        let request = attach_request(device).encode_to_vec();
        loop {
            let told = call(self.broker, self.shown, ATTACH, &request).await;
            if let Some(reply) = told.messages.first() {
                return v1::AttachReply::decode(reply.clone()).unwrap();
            }
            let busy = told.end.contains("status 9:") || told.end.contains("status 14:");
            assert!(busy, "{told:?}");
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Ends a session, if it has not ended by itself.
    pub(crate) async fn detach(&self, session: &Bytes) {
        let request = v1::DetachRequest {
            session_id: session.clone(),
        };
        let told = call(self.broker, self.shown, DETACH, &request.encode_to_vec()).await;
        let gone = told.end.contains("status 0:") || told.end.contains("status 5:");
        assert!(gone, "{told:?}");
    }
}

fn attach_request(device: &str) -> v1::AttachRequest {
    v1::AttachRequest {
        version_min: 1,
        version_max: 1,
        target: Some(v1::Target {
            kind: Some(target::Kind::DeviceId(device.to_owned())),
        }),
        ..v1::AttachRequest::default()
    }
}

/// Calls a unary method.
async fn call(to: SocketAddr, shown: &Shown, method: &str, request: &[u8]) -> Told {
    let body = framed(TransportKind::Grpc, request);
    grpc(to, shown, method, body, End::AtOnce).await
}

/// What is asked, and words of the answer.
struct Request {
    method: &'static str,
    body: Vec<u8>,
    answer: &'static str,
}

pub(crate) fn kinds() -> Vec<Kind> {
    let malformed: Arc<[Request]> = malformed().into();
    let not_theirs: Arc<[Request]> = not_theirs().into();
    vec![
        Kind::new(
            "broker: attaches a device that no host offers",
            |scene, dice| async move {
                let device = format!("no-such-{}", dice.number);
                let request = attach_request(&device).encode_to_vec();
                let agent = scene.welcome(Who::Broker);
                let told = call(scene.stack.broker_address, agent, ATTACH, &request).await;
                expect(&told.end, "gRPC status 5:")?;
                expect(&told.end, &device)
            },
        )
        .logged(Who::Broker, &["attach", "no-such-"]),
        Kind::new("broker: malformed requests", move |scene, dice| {
            let requests = Arc::clone(&malformed);
            async move { ask(&scene, &dice, &requests).await }
        })
        .logged(Who::Broker, &["attach", "target.device_id"]),
        Kind::new("broker: asks for what is not theirs", move |scene, dice| {
            let requests = Arc::clone(&not_theirs);
            async move { ask(&scene, &dice, &requests).await }
        })
        .logged(Who::Broker, &["detach", "refused"]),
        Kind::new(
            "broker: requests of the wrong role",
            |scene, dice| async move { wrong_role(&scene, &dice).await },
        )
        .logged(
            Who::Broker,
            &["spiffe://potemkin.dev/agent/bad has the role agent"],
        ),
    ]
}

async fn ask(scene: &Scene, dice: &Dice, requests: &[Request]) -> Verdict {
    let request = dice.in_turn(requests);
    let (broker, agent) = (scene.stack.broker_address, scene.welcome(Who::Broker));
    let told = grpc(
        broker,
        agent,
        request.method,
        request.body.clone(),
        End::AtOnce,
    )
    .await;
    expect(&told.end, request.answer)
}

fn malformed() -> Vec<Request> {
    let request = |method, body: Vec<u8>, answer| Request {
        method,
        body: framed(TransportKind::Grpc, &body),
        answer,
    };
    let raw = |body, answer| Request {
        method: ATTACH,
        body,
        answer,
    };
    let attach = |change: fn(&mut v1::AttachRequest), answer| {
        let mut message = attach_request("edu-0");
        change(&mut message);
        request(ATTACH, message.encode_to_vec(), answer)
    };
    let short = Bytes::from_static(&[7; 15]);
    let detach = v1::DetachRequest {
        session_id: short.clone(),
    };
    let release = v1::ReleaseRequest { claim_id: short };
    vec![
        attach(|r| r.target = None, "status 3: target:"),
        attach(|r| r.version_min = 2, "status 3: version_min:"),
        attach(
            |r| r.claim_id = Bytes::from_static(&[1]),
            "status 3: target:",
        ),
        request(
            ATTACH,
            attach_request("No Such").encode_to_vec(),
            "status 3: target.device_id:",
        ),
        request(DETACH, detach.encode_to_vec(), "status 3: session_id:"),
        request(RELEASE, release.encode_to_vec(), "status 3: claim_id:"),
        request(
            CLAIM,
            v1::ClaimRequest::default().encode_to_vec(),
            "status 3: target:",
        ),
        request(ATTACH, vec![0xff; 40], "gRPC status"),
        request(ATTACH, vec![0; 70_000], "gRPC status"),
        raw(announced(TransportKind::Grpc, 100, &[0; 10]), "gRPC status"),
        raw(vec![9; 10], "gRPC status"),
        raw(Vec::new(), "gRPC status"),
        request(
            "/potemkin.v1.Control/NoSuchMethod",
            Vec::new(),
            "gRPC status 12",
        ),
    ]
}

fn not_theirs() -> Vec<Request> {
    let request = |method, body: Vec<u8>, answer| Request {
        method,
        body: framed(TransportKind::Grpc, &body),
        answer,
    };
    let unknown = Bytes::from_static(&[7; 16]);
    let detach = v1::DetachRequest {
        session_id: unknown.clone(),
    };
    let release = v1::ReleaseRequest {
        claim_id: unknown.clone(),
    };
    let mut by_claim = attach_request("");
    (by_claim.target, by_claim.claim_id) = (None, unknown);
    vec![
        request(DETACH, detach.encode_to_vec(), "status 5:"),
        request(RELEASE, release.encode_to_vec(), "status 5:"),
        request(ATTACH, by_claim.encode_to_vec(), "status 5:"),
        // The good guest's.
        request(ATTACH, attach_request("edu-0").encode_to_vec(), "status 9:"),
    ]
}

async fn wrong_role(scene: &Scene, dice: &Dice) -> Verdict {
    let shown = &scene.certificates;
    let calls = [
        (&shown.agent, REGISTER, "Register is for the role host"),
        (&shown.host, ATTACH, "Attach is for the role agent"),
        (&shown.broker, ATTACH, "Attach is for the role agent"),
        (&shown.operator, CLAIM, "Claim is for the role agent"),
    ];
    let (shown, method, words) = dice.in_turn(&calls);
    let told = call(scene.stack.broker_address, shown, method, &[]).await;
    expect(&told.end, "gRPC status 7:")?;
    expect(&told.end, words)
}
