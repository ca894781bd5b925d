//! What several test modules need.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use potemkin_proto::v1;
use tokio::time::Instant;

use crate::broker::Broker;
use crate::core::{Core, Limits, Times};
use crate::metrics::Metrics;
use crate::policy::Policy;

/// A broker that knows nobody.
pub(crate) fn idle_broker() -> Arc<Broker> {
    let second = Duration::from_secs(1);
    let times = Times {
        lease: second,
        drift: second,
        forget: second,
        grace: second,
        fence: second,
    };
    let limits = Limits {
        hosts: 1,
        devices: 1,
        sessions: 1,
        sessions_per_agent: 1,
        claims_per_agent: 1,
        requests_per_peer: 1,
    };
    let core = Core::new(Policy::default(), times, limits, Vec::new(), Duration::ZERO);
    Arc::new(Broker::new(core, 4, Instant::now(), Metrics::new()))
}

/// A descriptor of an educational device: one 32-bit BAR of 1 MiB, no capabilities.
pub(crate) fn descriptor() -> v1::DeviceDescriptor {
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
pub(crate) fn device_offer(device: &str) -> v1::DeviceOffer {
    v1::DeviceOffer {
        device_id: device.to_owned(),
        class: device.split('-').next().unwrap().to_owned(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        descriptor: Some(descriptor()),
        highest_epoch: 0,
    }
}
