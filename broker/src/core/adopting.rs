//! Sessions that hosts tell of: a session outlives the broker that began it, and any broker that knows its host can route it.
//!
//! A session that this broker does not know is adopted if nothing speaks against it: no newer epoch, no claim of another
//! agent, no rule of the policy, and no fence on its way to the device. It is not fenced then: the host obeys its epoch already,
//! and whoever had the device before was fenced off when that epoch was handed out. If something speaks against it, the
//! device is fenced, as one is whose host has a session from before; that ends the session at the host.
//!
//! A session without a claim gets an implicit one. The rows of the store cannot lead here: what gives a claim up raises
//! the epoch in the same commit. So the store was lost or is an old copy, and the host is the one that knows.

use std::sync::Arc;

use potemkin_proto::v1::CloseCode;

use super::device::{Claim, Fence};
use super::sessions::{Session, Up};
use super::{Action, ConnId, Core, LiveSession, Time, Timer};
use crate::ids::{DeviceId, PeerName, SessionId};

/// From this version on hosts tell which sessions live, and decide when one has been without a stream for too long.
const HOST_DECIDES_FROM: u32 = 2;

impl Core {
    /// A host has accepted a session's first stream.
    pub fn session_started(&mut self, now: Time, conn: ConnId, live: &LiveSession) {
        let Some(host) = self.conns.get(&conn).cloned() else {
            return;
        };
        if !self.is_offered_by(&host, &live.device) || self.take_up(now, &host, live) {
            return;
        }
        // One that is older has ended here: its fence is on its way, or the host has obeyed it already.
        let device = self.devices.get_mut(&live.device);
        if self.grants
            && let Some(device) = device.filter(|d| d.epoch <= live.epoch)
        {
            device.epoch = live.epoch;
            self.lose_session_for_epoch(now, &live.device);
            self.raise(&live.device);
        }
    }

    /// A session lives on a host. `true`: we know it, now at least.
    pub(super) fn take_up(&mut self, now: Time, host: &PeerName, live: &LiveSession) -> bool {
        if !self.knows(host, live) {
            self.forget_older(now, live);
            if !self.may_adopt(live) {
                return false;
            }
            self.adopt(host, live);
        }
        if let Some(session) = self.sessions.get_mut(&live.session) {
            session.up = Up::Told;
        }
        self.timers.disarm(&Timer::Grace(live.session));
        true
    }

    /// A host has registered and does not know this device's session, or not any more. If it would tell of one, that is over.
    pub(super) fn end_if_missing(&mut self, now: Time, device: &DeviceId) {
        let Some(id) = self.devices.get(device).and_then(|d| d.session) else {
            return;
        };
        let tells = self
            .sessions
            .get(&id)
            .map(|s| self.tells_of_sessions(&s.host));
        let Some(session) = self.sessions.get_mut(&id).filter(|_| tells == Some(true)) else {
            return;
        };
        match session.up {
            Up::Told => {
                let why = "it ended at its host while that was not registered here";
                self.end_session(now, id, CloseCode::Unreachable, why);
            }
            // It came up after the host wrote this, and the host will tell; or it has ended since, and never will.
            Up::Accepted => {
                session.up = Up::NotYet;
                if session.leg.is_none() {
                    self.arm_grace(now, id);
                }
            }
            Up::NotYet => {}
        }
    }

    /// The host tells when the session ends; it needs no grace here.
    pub(super) fn host_decides(&self, id: SessionId) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|s| s.up != Up::NotYet && self.tells_of_sessions(&s.host))
    }

    pub(super) fn tells_of_sessions(&self, host: &PeerName) -> bool {
        let host = self.hosts.get(host);
        host.is_some_and(|h| h.version >= HOST_DECIDES_FROM)
    }

    /// No fence is on its way to the device, which would take it from whoever has it.
    pub(super) fn is_quiet(&self, device: &DeviceId) -> bool {
        let fence = self.devices.get(device).map(|d| d.fence);
        matches!(fence, Some(Fence::Unknown | Fence::Confirmed))
    }

    fn is_offered_by(&self, host: &PeerName, device: &DeviceId) -> bool {
        let offered = self.devices.get(device).and_then(|d| d.offered.as_ref());
        offered.is_some_and(|offered| offered.host == *host)
    }

    fn knows(&self, host: &PeerName, live: &LiveSession) -> bool {
        self.sessions.get(&live.session).is_some_and(|known| {
            known.starting.is_none()
                && known.host == *host
                && known.device == live.device
                && known.epoch == live.epoch
        })
    }

    /// Where another broker grants, a session with a newer epoch is the end of the one known here.
    fn forget_older(&mut self, now: Time, live: &LiveSession) {
        let known = self.devices.get(&live.device);
        let newer = known.is_some_and(|device| device.epoch < live.epoch);
        if !self.grants && newer {
            self.lose_session_for_epoch(now, &live.device);
        }
    }

    fn may_adopt(&self, live: &LiveSession) -> bool {
        let Some(device) = self.devices.get(&live.device) else {
            return false;
        };
        let claim = device.claim.as_ref();
        let own = claim.is_none_or(|c| c.owner == live.agent && c.request.is_none());
        let class = device.offered.as_ref().map(|o| &*o.offer.class);
        self.is_quiet(&live.device)
            && own
            && device.session.is_none()
            && device.epoch <= live.epoch
            && !self.sessions.contains_key(&live.session)
            && self.policy.may_claim(&live.agent, &live.device, class)
    }

    fn adopt(&mut self, host: &PeerName, live: &LiveSession) {
        let Some(incarnation) = self.hosts.get(host).map(|h| h.incarnation) else {
            return;
        };
        self.claim_for(live);
        let Some(device) = self.devices.get_mut(&live.device) else {
            return;
        };
        device.epoch = live.epoch;
        device.fence = Fence::Confirmed;
        device.session = Some(live.session);
        let adopted = Session {
            device: live.device.clone(),
            agent: live.agent.clone(),
            agent_incarnation: None,
            host: host.clone(),
            incarnation,
            epoch: live.epoch,
            attach_number: 0,
            starting: None,
            up: Up::Told,
            leg: None,
            traffic: Arc::default(),
        };
        self.sessions.insert(live.session, adopted);
        self.keep(&live.device);
        self.actions.push_back(Action::Adopted(live.session));
        self.actions.push_back(Action::SessionChanged(live.session));
        self.actions
            .push_back(Action::DeviceChanged(live.device.clone()));
    }

    /// The claim that the session stands on: its agent's, or one that is made for it.
    fn claim_for(&mut self, live: &LiveSession) {
        self.timers.disarm(&Timer::Orphan(live.device.clone()));
        let claim = self.devices.get_mut(&live.device);
        if let Some(claim) = claim.and_then(|d| d.claim.as_mut()) {
            claim.fresh = false;
        } else if self.grants {
            let claim = Claim {
                id: live.claim,
                owner: live.agent.clone(),
                implicit: true,
                request: None,
                fresh: false,
            };
            self.set_claim(&live.device, claim);
        }
    }
}
