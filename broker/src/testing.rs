//! What several test modules need.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::Broker;
use crate::core::{Core, Limits, Times};
use crate::metrics::Metrics;
use crate::policy::Policy;

#[path = "../tests/support/offer.rs"]
mod offer;

pub(crate) use offer::{descriptor, device_offer, live_session};

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
    let core = Core::new(Policy::default(), times, limits, Vec::new());
    Arc::new(Broker::new(core, 4, Instant::now(), Metrics::new()))
}
