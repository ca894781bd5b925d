//! What callers may see of the pool.

use bytes::Bytes;
use potemkin_proto::v1::{DeviceInfo, DeviceState, SessionInfo};

use super::Core;
use super::device::{Claim, Device};
use super::sessions::Session;
use crate::ids::{DeviceId, PeerName, SessionId};

/// Who looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    /// Sees everything.
    Operator,
    /// Sees the devices that it may claim, and its own sessions.
    Agent(PeerName),
    /// Sees the devices that it offers, and the sessions on them.
    Host(PeerName),
}

/// How many there are, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Hosts that are connected.
    pub hosts: usize,
    /// Live sessions.
    pub sessions: usize,
    /// Explicit and implicit claims.
    pub claims: usize,
    /// Free devices.
    pub free: usize,
    /// Claimed devices without a live session.
    pub claimed: usize,
    /// Devices with a live session.
    pub attached: usize,
    /// Devices whose host is away.
    pub away: usize,
}

impl Core {
    /// The devices that `viewer` may see, by id.
    #[must_use]
    pub fn list_devices(&self, viewer: &Viewer) -> Vec<DeviceInfo> {
        let ids = self.devices.keys();
        ids.filter_map(|id| self.device_info(id, viewer)).collect()
    }

    /// The sessions that `viewer` may see, by id.
    #[must_use]
    pub fn list_sessions(&self, viewer: &Viewer) -> Vec<SessionInfo> {
        let ids = self.sessions.keys();
        ids.filter_map(|id| self.session_info(*id, viewer))
            .collect()
    }

    /// One device, if it is offered and `viewer` may see it.
    #[must_use]
    pub fn device_info(&self, id: &DeviceId, viewer: &Viewer) -> Option<DeviceInfo> {
        let device = self.devices.get(id)?;
        let offered = device.offered.as_ref()?;
        let offer = &offered.offer;
        if !self.sees_device(viewer, id, &offer.class, &offered.host) {
            return None;
        }
        let claim = device.claim.as_ref();
        let claim_shown = claim.filter(|claim| claim.shown_to(viewer));
        // Where another broker grants there are no claims, but sessions.
        let session = device.session.and_then(|s| self.sessions.get(&s));
        let holder = claim.map(|c| &c.owner).or(session.map(|s| &s.agent));
        Some(DeviceInfo {
            device_id: id.as_str().to_owned(),
            class: offer.class.as_ref().to_owned(),
            labels: offer
                .labels
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            host: offered.host.as_ref().to_owned(),
            state: self.state_of(id, device).into(),
            epoch: device.epoch,
            claimed_by: holder.map_or_else(String::new, |name| name.as_ref().to_owned()),
            claim_id: claim_shown.map_or_else(Bytes::new, |c| c.id.to_bytes()),
            claim_implicit: claim.is_some_and(|c| c.implicit),
            vendor_id: offer.vendor_id.into(),
            device_code: offer.device_code.into(),
        })
    }

    /// One session, if it is live and `viewer` may see it.
    #[must_use]
    pub fn session_info(&self, id: SessionId, viewer: &Viewer) -> Option<SessionInfo> {
        let session = self.sessions.get(&id)?;
        if session.starting.is_some() || !viewer.sees_session(&session.agent, &session.host) {
            return None;
        }
        Some(session.info(id))
    }

    /// May `viewer` see this device?
    #[must_use]
    pub fn sees_device(&self, viewer: &Viewer, id: &DeviceId, class: &str, host: &str) -> bool {
        match viewer {
            Viewer::Operator => true,
            Viewer::Agent(agent) => self.policy.may_claim(agent, id, Some(class)),
            Viewer::Host(name) => **name == *host,
        }
    }

    /// Counts everything.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally {
            hosts: self.conns.len(),
            claims: self.claims.len(),
            ..Tally::default()
        };
        let live = |session: &&Session| session.starting.is_none();
        tally.sessions = self.sessions.values().filter(live).count();
        let offered = |(_, device): &(&DeviceId, &Device)| device.offered.is_some();
        for (id, device) in self.devices.iter().filter(offered) {
            match self.state_of(id, device) {
                DeviceState::Free => tally.free += 1,
                DeviceState::Claimed => tally.claimed += 1,
                DeviceState::Attached => tally.attached += 1,
                DeviceState::Away | DeviceState::Unspecified => tally.away += 1,
            }
        }
        tally
    }

    fn state_of(&self, id: &DeviceId, device: &Device) -> DeviceState {
        let session = device.session.and_then(|s| self.sessions.get(&s));
        if !self.is_host_connected(id) {
            DeviceState::Away
        } else if session.is_some_and(|s| s.starting.is_none()) {
            DeviceState::Attached
        } else if device.claim.is_some() {
            DeviceState::Claimed
        } else {
            DeviceState::Free
        }
    }
}

impl Viewer {
    /// May this one see a session of `agent` on `host`?
    #[must_use]
    pub fn sees_session(&self, agent: &str, host: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Agent(name) => **name == *agent,
            Self::Host(name) => **name == *host,
        }
    }
}

impl Claim {
    fn shown_to(&self, viewer: &Viewer) -> bool {
        match viewer {
            Viewer::Operator => true,
            Viewer::Agent(agent) => *agent == self.owner,
            Viewer::Host(_) => false,
        }
    }
}

impl Session {
    fn info(&self, id: SessionId) -> SessionInfo {
        let transports = self.leg.as_ref().and_then(|leg| leg.transports);
        let (agent_transport, host_transport) = transports.unwrap_or_default();
        SessionInfo {
            session_id: id.to_bytes(),
            device_id: self.device.as_str().to_owned(),
            agent: self.agent.as_ref().to_owned(),
            host: self.host.as_ref().to_owned(),
            epoch: self.epoch,
            attach_number: self.attach_number,
            connected: transports.is_some(),
            agent_transport: agent_transport.to_owned(),
            host_transport: host_transport.to_owned(),
            frames_forward: self.traffic.forward.frames(),
            frames_reverse: self.traffic.reverse.frames(),
            bytes_forward: self.traffic.forward.bytes(),
            bytes_reverse: self.traffic.reverse.bytes(),
        }
    }
}
