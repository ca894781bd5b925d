//! Hosts that describe their devices wrongly, or offer what is another's.

use std::sync::Arc;

use potemkin_proto::v1::{self, host_message};
use potemkin_transport::TransportKind::Grpc;
use prost::Message;

use crate::{
    dice::Dice,
    kind::{Kind, Verdict, Who, expect},
    scene::Scene,
    wire::{End, Told, announced, framed, grpc},
};

const REGISTER: &str = "/potemkin.v1.Control/Register";

/// What is wrong with the one device that a host offers, and the words of its rejection.
struct Broken {
    name: &'static str,
    change: fn(&mut v1::DeviceOffer),
    told: &'static str,
}

const fn broken(
    name: &'static str,
    told: &'static str,
    change: fn(&mut v1::DeviceOffer),
) -> Broken {
    Broken { name, change, told }
}

const BROKEN: &[Broken] = &[
    broken("no descriptor", "descriptor: ", |d| d.descriptor = None),
    broken("size of a BAR", "descriptor.bars[0].size", |d| {
        descriptor(d).bars[0].size = 3
    }),
    broken("kind of a BAR", "descriptor.bars[0].kind", |d| {
        descriptor(d).bars[0].kind = 77
    }),
    broken("index of a BAR", "descriptor.bars[0]", |d| {
        descriptor(d).bars[0].index = 9
    }),
    broken("two BARs in one place", "descriptor.bars[1]", |d| {
        let bar = descriptor(d).bars[0];
        descriptor(d).bars.push(bar);
    }),
    broken("length of the image", "descriptor.config_image", |d| {
        descriptor(d).config_image.truncate(100);
    }),
    broken("capabilities in a loop", "descriptor.config_image", |d| {
        let image = &mut descriptor(d).config_image;
        let mut bytes = image.to_vec();
        let first = usize::from(bytes[0x34]);
        bytes[first + 1] = bytes[0x34];
        *image = bytes.into();
    }),
    broken("length of a mask", "descriptor.config_writable", |d| {
        descriptor(d).config_writable = vec![0; 3].into();
    }),
    broken("size of the ROM", "descriptor.rom", |d| {
        descriptor(d).rom = vec![0; 3000].into()
    }),
    broken("a range beyond its BAR", "descriptor.ranges[0]", |d| {
        descriptor(d).ranges = vec![v1::RegisterRange {
            length: u64::MAX,
            ..v1::RegisterRange::default()
        }];
    }),
    broken("interrupts", "descriptor.interrupts", |d| {
        descriptor(d).interrupts.get_or_insert_default().msi_vectors = 33;
    }),
    broken("device id", "device_id: ", |d| {
        d.device_id = "No Such".into()
    }),
    broken("class", "class: ", |d| d.class = String::new()),
    broken("epoch", "highest_epoch: ", |d| d.highest_epoch = u64::MAX),
    broken("label", "labels: ", |d| {
        drop(d.labels.insert("k".repeat(64), String::new()))
    }),
    broken(
        "a device of another host",
        "is offered by spiffe://potemkin.dev/host/dev",
        |d| {
            d.device_id = "edu-0".into();
        },
    ),
];

fn descriptor(offer: &mut v1::DeviceOffer) -> &mut v1::DeviceDescriptor {
    offer.descriptor.as_mut().unwrap()
}

pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds: Vec<_> = BROKEN.iter().map(kind).collect();
    kinds.push(
        Kind::new("registration: malformed", |scene, dice| {
            malformed(scene, dice)
        })
        .at_a_time(1),
    );
    kinds
}

/// Of one host identity only the newest stream counts, so they come one after the other.
fn kind(broken: &'static Broken) -> Kind {
    Kind::new(format!("registration: {}", broken.name), move |scene, _| {
        register(scene, broken)
    })
    .at_a_time(1)
    .logged(
        Who::Broker,
        &["spiffe://potemkin.dev/host/bad", "host registers"],
    )
}

async fn register(scene: Arc<Scene>, broken: &Broken) -> Verdict {
    let mut offer = v1::DeviceOffer {
        device_id: "broken-0".into(),
        class: "edu".into(),
        descriptor: Some(scene.descriptor.clone()),
        ..v1::DeviceOffer::default()
    };
    (broken.change)(&mut offer);
    let mut hello = hello();
    hello.devices = vec![offer];
    let told = say(&scene, framed(Grpc, &message(hello))).await;
    let first = told.messages.first().cloned().unwrap_or_default();
    let accepted = match v1::BrokerMessage::decode(first).map(|m| m.kind) {
        Ok(Some(v1::broker_message::Kind::Accepted(accepted))) => accepted,
        _ => return Err(format!("the host was not accepted: {told:?}")),
    };
    let reasons = accepted
        .rejected
        .iter()
        .map(|rejected| rejected.reason.as_str());
    expect(&reasons.collect::<Vec<_>>().join("; "), broken.told)
}

fn hello() -> v1::HostHello {
    v1::HostHello {
        version_min: 1,
        version_max: 1,
        incarnation: vec![5; 16].into(),
        data_address: "127.0.0.1:9".into(),
        devices: Vec::new(),
        sessions: Vec::new(),
    }
}

fn message(hello: v1::HostHello) -> Vec<u8> {
    v1::HostMessage {
        kind: Some(host_message::Kind::Hello(hello)),
    }
    .encode_to_vec()
}

async fn say(scene: &Scene, bytes: Vec<u8>) -> Told {
    let (broker, host) = (scene.stack.broker_address, &scene.certificates.host);
    grpc(broker, host, REGISTER, bytes, End::AtOnce).await
}

/// Hosts that are refused as a whole.
async fn malformed(scene: Arc<Scene>, dice: Dice) -> Verdict {
    let changed = |change: fn(&mut v1::HostHello)| {
        let mut hello = hello();
        change(&mut hello);
        framed(Grpc, &message(hello))
    };
    let heartbeat = v1::HostMessage {
        kind: Some(host_message::Kind::Heartbeat(v1::Heartbeat {})),
    };
    let hellos = [
        (changed(|h| h.version_min = 2), "status 3: version_min:"),
        (
            changed(|h| h.incarnation = vec![1; 3].into()),
            "status 3: incarnation:",
        ),
        (
            changed(|h| h.data_address = "nowhere".into()),
            "status 3: data_address:",
        ),
        (
            changed(|h| h.devices = vec![v1::DeviceOffer::default(); 1025]),
            "status 3: devices:",
        ),
        (framed(Grpc, &heartbeat.encode_to_vec()), "status 3: hello:"),
        (framed(Grpc, &[]), "status 3: hello:"),
        (framed(Grpc, &[0xff; 40]), "gRPC status"),
        (announced(Grpc, 1 << 30, &[0; 40]), "gRPC status"),
        (announced(Grpc, 1000, &[0; 40]), "gRPC status"),
        (Vec::new(), "gRPC status"),
    ];
    let (bytes, words) = dice.in_turn(&hellos);
    let told = say(&scene, bytes.clone()).await;
    expect(&told.end, words)
}
