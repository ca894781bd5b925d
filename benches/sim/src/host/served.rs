//! A device that is served: who may use it, who does, and the device itself.

use potemkin_broker::ids::PeerName;
use potemkin_session::{
    gate::Gate,
    host::Host,
    ids::{Epoch, SessionId},
};

use crate::{clock::Micros, device::Device, net::ConnId, oracle::LogId};

#[derive(Debug)]
pub(super) struct Served {
    pub(super) gate: Gate,
    pub(super) device: Device,
    pub(super) live: Option<Live>,
    /// Nothing that was received is left to do.
    pub(super) drained: bool,
    /// The device does nothing until then, by the host's clock.
    pub(super) busy_until: Micros,
}

/// The session that uses the device.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) core: Host,
    pub(super) log: LogId,
    /// Whose it is, as its broker says.
    pub(super) agent: PeerName,
    /// The stream of its path.
    pub(super) conn: Option<ConnId>,
    /// Streams of older paths that a careless driver still hears.
    pub(super) older: Vec<ConnId>,
    /// Without a path it ends then, by the host's clock.
    pub(super) grace_until: Option<Micros>,
}

impl Served {
    pub(super) fn new(highest: u64, device: Device) -> Self {
        Self {
            gate: Gate::new(Epoch(highest)),
            device,
            live: None,
            drained: true,
            busy_until: 0,
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        Some(self.live.as_ref()?.core.path().session)
    }
}
