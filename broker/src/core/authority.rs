//! What only a broker does that grants: it hands out epochs and keeps them. One that only relays must leave both alone.
//!
//! Until several brokers share a store exactly one grants. The others learn from hosts which sessions live, and route them.
//! These few functions are all that tells the two kinds apart; [`Core::raise`] is the third.

use super::{Core, Limits, Refusal, Times};
use crate::ids::DeviceId;
use crate::policy::Policy;

impl Core {
    /// A core that only relays: it routes the sessions that hosts tell of, and forgets them when the host says that they
    /// ended, or is gone. It refuses whoever wants a device, fences nothing and keeps nothing.
    #[must_use]
    pub fn relaying(policy: Policy, times: Times, limits: Limits) -> Self {
        Self {
            grants: false,
            ..Self::new(policy, times, limits, Vec::new())
        }
    }

    /// Refuses what only a broker can do that grants.
    pub(super) fn check_grants(&self) -> Result<(), Refusal> {
        if self.grants {
            return Ok(());
        }
        Err(Refusal::Unavailable(
            "this broker only relays (pool.grants = false): ask one that grants".to_owned(),
        ))
    }

    /// The device's row has changed and has to be stored.
    pub(super) fn keep(&mut self, device: &DeviceId) {
        if self.grants {
            self.dirty.insert(device.clone());
        }
    }
}
