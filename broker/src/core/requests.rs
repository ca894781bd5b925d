//! Requests that wait for the store or for a host.

use super::{Action, Core, Refusal, Reply, RequestId, Time, Timer};
use crate::ids::{DeviceId, PeerName};

#[derive(Debug)]
pub(super) struct Pending {
    /// Who asked.
    pub(super) peer: PeerName,
    pub(super) device: DeviceId,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Claim,
    Attach,
    /// Detach or release.
    End,
}

impl Core {
    /// Lets a request wait, for a bounded time.
    pub(super) fn wait(&mut self, now: Time, request: RequestId, pending: Pending) {
        self.requests.insert(request, pending);
        let over = now.saturating_add(self.times.fence);
        self.timers.arm(Timer::Request(request), over);
    }

    /// Refuses a peer that has too much waiting already.
    pub(super) fn check_requests(&self, peer: &PeerName) -> Result<(), Refusal> {
        let waiting = self.requests.values().filter(|p| p.peer == *peer).count();
        if waiting < self.limits.requests_per_peer {
            return Ok(());
        }
        Err(Refusal::Exhausted(format!(
            "{peer} has {waiting} requests waiting already: wait for their answers"
        )))
    }

    /// Answers a request, whether it waited or not.
    pub(super) fn reply(&mut self, request: RequestId, outcome: Result<Reply, Refusal>) {
        if let Some(pending) = self.requests.remove(&request) {
            self.timers.disarm(&Timer::Request(request));
            if let Some(device) = self.devices.get_mut(&pending.device) {
                device.stop_waiting(request);
            }
        }
        self.actions.push_back(Action::Reply { request, outcome });
    }

    /// A request has waited long enough.
    pub(super) fn request_over(&mut self, now: Time, request: RequestId) {
        let Some(pending) = self.requests.get(&request) else {
            return;
        };
        let device = pending.device.clone();
        match pending.kind {
            // The right is gone already; the fence will follow.
            Kind::End => self.reply(request, Ok(Reply::Ended)),
            Kind::Claim | Kind::Attach => {
                let why = format!(
                    "the host of {device} did not confirm its fence in {} ms: try again",
                    self.times.fence.as_millis()
                );
                self.fail_requests_of(now, &device, &why);
            }
        }
    }

    /// Undoes the claim and the attach that wait for this device, and tells them why. Detaches and releases go on waiting.
    pub(super) fn fail_requests_of(&mut self, now: Time, device: &DeviceId, why: &str) {
        let Some(known) = self.devices.get(device) else {
            return;
        };
        let claiming = known.claim.as_ref().and_then(|claim| claim.request);
        if let Some(request) = claiming {
            self.reply(request, Err(Refusal::Unavailable(why.to_owned())));
            self.drop_claim(device);
        }
        self.undo_start(now, device, why);
    }
}
