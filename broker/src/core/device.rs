//! What the core knows of one device.

use super::{ConnId, Offer, RequestId};
use crate::ids::{ClaimId, DeviceId, PeerName, SessionId};
use crate::store::{ClaimRow, DeviceRow};

/// The most detaches and releases that wait for one device's fence.
const WAITING_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Device {
    /// The newest epoch; perhaps not durable yet.
    pub(super) epoch: u64,
    /// Who offers it, and what it is. `None`: known from the store or from former times only.
    pub(super) offered: Option<Offered>,
    pub(super) claim: Option<Claim>,
    /// The one session that may be; starting or live.
    pub(super) session: Option<SessionId>,
    pub(super) fence: Fence,
    /// Detaches and releases to be answered when the fence is confirmed.
    waiting: Vec<RequestId>,
}

#[derive(Debug)]
pub(super) struct Offered {
    pub(super) host: PeerName,
    pub(super) offer: Offer,
}

#[derive(Debug)]
pub(super) struct Claim {
    pub(super) id: ClaimId,
    pub(super) owner: PeerName,
    pub(super) implicit: bool,
    /// The claim request that is not answered yet.
    pub(super) request: Option<RequestId>,
    /// No fence with this epoch was sent yet: a session may use it as it is.
    pub(super) fresh: bool,
}

/// How far the host is in obeying the device's newest epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fence {
    /// Since the broker's start its host was not heard of: it may have a session from before.
    Unknown,
    /// The epoch is not durable yet.
    Committing,
    /// To be sent as soon as the host is connected.
    Due,
    /// Sent on this stream; not sent again on it before it is answered, so that an answer has one meaning.
    Sent(ConnId),
    /// The host answered that it could not.
    Failed,
    /// Confirmed, or there is nothing that could be fenced.
    Confirmed,
}

impl Device {
    pub(super) fn new(fence: Fence) -> Self {
        Self {
            epoch: 0,
            offered: None,
            claim: None,
            session: None,
            fence,
            waiting: Vec::new(),
        }
    }

    pub(super) fn row(&self, id: &DeviceId) -> DeviceRow {
        DeviceRow {
            device: id.clone(),
            epoch: self.epoch,
            claim: self.claim.as_ref().map(|claim| ClaimRow {
                id: claim.id,
                owner: claim.owner.clone(),
                implicit: claim.implicit,
            }),
        }
    }

    /// Nothing of it needs to be remembered.
    pub(super) fn is_blank(&self) -> bool {
        self.epoch == 0 && self.offered.is_none() && self.claim.is_none() && self.session.is_none()
    }

    /// `false`: too many wait already.
    pub(super) fn wait(&mut self, request: RequestId) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push(request);
        }
        room
    }

    pub(super) fn take_waiting(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn stop_waiting(&mut self, request: RequestId) {
        self.waiting.retain(|r| *r != request);
    }
}

impl Claim {
    /// As it comes from the store: whether it ever had a session is not known.
    pub(super) fn restored(row: ClaimRow) -> Self {
        Self {
            id: row.id,
            owner: row.owner,
            implicit: row.implicit,
            request: None,
            fresh: false,
        }
    }
}
