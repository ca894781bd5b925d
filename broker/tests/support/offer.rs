//! A device to offer. Unit tests (`src/testing.rs`) and integration tests (`tests/all`) share this file.

#![allow(clippy::unwrap_used, unreachable_pub)]

use potemkin_proto::v1;

/// A descriptor of an educational device: one 32-bit BAR of 1 MiB, no capabilities.
pub fn descriptor() -> v1::DeviceDescriptor {
    let mut image = vec![0; 256];
    image[..4].copy_from_slice(&[0x34, 0x12, 0xe8, 0x11]);
    image[0x0b] = 0xff;
    v1::DeviceDescriptor {
        config_image: image.into(),
        bars: vec![v1::Bar {
            index: 0,
            kind: v1::BarKind::Memory32.into(),
            size: 1 << 20,
            prefetchable: false,
        }],
        interrupts: Some(v1::Interrupts::default()),
        ..v1::DeviceDescriptor::default()
    }
}

/// An offer of a good device; its class is its id up to the dash.
pub fn device_offer(device: &str) -> v1::DeviceOffer {
    v1::DeviceOffer {
        device_id: device.to_owned(),
        class: device.split('-').next().unwrap().to_owned(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        descriptor: Some(descriptor()),
        highest_epoch: 0,
    }
}

/// A session of the development agent's on a device.
pub fn live_session(device: &str, session: u128, epoch: u64) -> v1::LiveSession {
    v1::LiveSession {
        session_id: session.to_be_bytes().to_vec().into(),
        device_id: device.to_owned(),
        epoch,
        agent: "spiffe://potemkin.dev/agent/dev".to_owned(),
    }
}
