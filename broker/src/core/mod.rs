//! The broker's decisions, without I/O: who has which device at which epoch, and where its sessions lead.
//!
//! No clock, no socket, no randomness: calls bring events, the time and fresh ids in; [`Core::poll_action`] and
//! [`Core::next_commit`] say what must be done. A driver calls, does what is asked, and reports back.
//!
//! The rule that everything here serves: *an epoch is handed out only after it is durable, and a session only after the
//! host confirmed that nothing older than its epoch counts any more.* Each device goes through
//! raise (epoch + 1, in memory) -> commit (durable) -> fence (sent to its host) -> confirmed, for each change of who may use
//! it. Whoever loses a device loses it at the raise; whoever gains it gains it at the confirmation.

mod adopting;
mod authority;
mod claims;
mod device;
mod dial;
mod fencing;
mod hosts;
mod placement;
mod planted;
mod requests;
mod sessions;
#[cfg(test)]
mod tests;
mod timers;
mod traffic;
mod types;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::ids::{ClaimId, DeviceId, PeerName, SessionId};
use crate::policy::Policy;
use crate::store::DeviceRow;

use device::{Claim, Device, Fence};
use hosts::Host;
use planted::Bug;
use requests::Pending;
use sessions::Session;
use timers::Timers;

pub use dial::Dial;
pub use sessions::FreshIds;
pub use traffic::{Traffic, Way};
pub use types::*;
pub use view::{Tally, Viewer};

/// The most rows of one commit.
const COMMIT_ROWS_MAX: usize = 256;
/// How long the core waits before it gives a failed commit to the store again.
const COMMIT_RETRY: Duration = Duration::from_secs(1);

/// The broker's state. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    policy: Policy,
    times: Times,
    limits: Limits,
    /// `false`: it only relays.
    grants: bool,
    devices: BTreeMap<DeviceId, Device>,
    hosts: BTreeMap<PeerName, Host>,
    /// Which host a Register stream belongs to.
    conns: BTreeMap<ConnId, PeerName>,
    claims: BTreeMap<ClaimId, DeviceId>,
    sessions: BTreeMap<SessionId, Session>,
    requests: BTreeMap<RequestId, Pending>,
    /// Devices whose row differs from what was last given to the store.
    dirty: BTreeSet<DeviceId>,
    /// A commit is with the store.
    committing: bool,
    /// The store failed: it is left alone until then.
    commit_not_before: Option<Time>,
    timers: Timers<Timer>,
    actions: VecDeque<Action>,
}

/// What a deadline is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A host's lease.
    Lease(PeerName),
    /// A host that is away for long.
    Forget(PeerName),
    /// A session without data leg.
    Grace(SessionId),
    /// A request that waits.
    Request(RequestId),
    /// A host could not fence a device.
    Refence(DeviceId),
    /// An implicit claim from before the broker's start.
    Orphan(DeviceId),
    /// The store failed.
    Commit,
}

impl Core {
    /// Starts with what the store kept.
    #[must_use]
    pub fn new(policy: Policy, times: Times, limits: Limits, rows: Vec<DeviceRow>) -> Self {
        let mut core = Self {
            policy,
            times,
            limits,
            grants: true,
            devices: BTreeMap::new(),
            hosts: BTreeMap::new(),
            conns: BTreeMap::new(),
            claims: BTreeMap::new(),
            sessions: BTreeMap::new(),
            requests: BTreeMap::new(),
            dirty: BTreeSet::new(),
            committing: false,
            commit_not_before: None,
            timers: Timers::new(),
            actions: VecDeque::new(),
        };
        for mut row in rows {
            if planted::is(Bug::BrokerForgetsClaims) {
                row.claim = None;
            }
            core.restore(row);
        }
        core
    }

    /// The next thing to do. The driver takes them all after each call, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Core::handle_timeout`] wants to be called, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Lease(host) => self.lease_over(now, &host),
                Timer::Forget(host) => self.forget(now, &host),
                Timer::Grace(session) => self.grace_over(now, session),
                Timer::Request(request) => self.request_over(now, request),
                Timer::Refence(device) => self.refence(&device),
                Timer::Orphan(device) => self.orphan_over(now, &device),
                Timer::Commit => self.commit_not_before = None,
            }
        }
    }

    /// Rows to commit, if there are any and no commit is under way. The driver answers with [`Core::committed`].
    pub fn next_commit(&mut self) -> Option<Vec<DeviceRow>> {
        if !self.wants_commit() {
            return None;
        }
        let mut rows = Vec::new();
        while rows.len() < COMMIT_ROWS_MAX
            && let Some(id) = self.dirty.pop_first()
        {
            if let Some(device) = self.devices.get(&id) {
                rows.push(device.row(&id));
            }
        }
        self.committing = true;
        Some(rows)
    }

    /// [`Core::next_commit`] would give something.
    #[must_use]
    pub fn wants_commit(&self) -> bool {
        !self.committing && self.commit_not_before.is_none() && !self.dirty.is_empty()
    }

    /// The commit of `rows` succeeded, or failed as a whole.
    pub fn committed(&mut self, now: Time, rows: &[DeviceRow], succeeded: bool) {
        self.committing = false;
        if !succeeded {
            self.commit_not_before = Some(now.saturating_add(COMMIT_RETRY));
            self.timers
                .arm(Timer::Commit, now.saturating_add(COMMIT_RETRY));
        }
        for row in rows {
            if !succeeded {
                self.dirty.insert(row.device.clone());
                self.fail_requests_of(now, &row.device, "the broker's store failed");
            } else if !self.dirty.contains(&row.device) {
                self.durable(&row.device);
            }
        }
    }

    fn restore(&mut self, row: DeviceRow) {
        if let Some(claim) = &row.claim {
            self.claims.insert(claim.id, row.device.clone());
        }
        let mut device = Device::new(Fence::Unknown);
        device.epoch = row.epoch;
        device.claim = row.claim.map(Claim::restored);
        self.devices.insert(row.device, device);
    }
}
