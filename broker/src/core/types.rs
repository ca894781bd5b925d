//! What goes into the core and what comes out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use potemkin_proto::v1;

use crate::ids::{ClaimId, DeviceId, Incarnation, PeerName, SessionId};

/// Time since an origin that the driver chooses. Never goes back.
pub type Time = Duration;

/// Names one Register stream; given by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Names one request whose answer comes as [`Action::Reply`]; given by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one dial of a session's data path; given by the driver, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

/// Durations that the core keeps.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// A host without a heartbeat for this long has lost its lease.
    pub lease: Duration,
    /// How far a host's clock may drift from ours within a lease: how much longer its devices stay its own.
    pub drift: Duration,
    /// How long a host may be away before its devices are forgotten.
    pub forget: Duration,
    /// How long a session lives without the agent's data leg, while that is ours to decide.
    pub grace: Duration,
    /// How long a request waits for a host to confirm a fence.
    pub fence: Duration,
}

/// Bounds of the core's tables.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Hosts that are registered or were lately.
    pub hosts: usize,
    /// Devices known, offered or not.
    pub devices: usize,
    /// Sessions of all agents.
    pub sessions: usize,
    /// Sessions of one agent identity.
    pub sessions_per_agent: usize,
    /// Explicit claims of one agent identity.
    pub claims_per_agent: usize,
    /// Requests of one identity that wait for a host or the store.
    pub requests_per_peer: usize,
}

/// What a host says of itself, checked.
#[derive(Debug, Clone)]
pub struct Hello {
    /// The protocol version that the host and this broker share.
    pub version: u32,
    /// The run of the host process.
    pub incarnation: Incarnation,
    /// Where its data plane is.
    pub data_address: SocketAddr,
    /// Its devices, each at most once.
    pub offers: Vec<Offer>,
    /// Devices that were not taken already when the message was read.
    pub rejected: Vec<Rejected>,
    /// The sessions that live on it, at most one for each device.
    pub sessions: Vec<LiveSession>,
}

/// A session that lives on a host, as the host tells of it, checked.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// The session.
    pub session: SessionId,
    /// On which device.
    pub device: DeviceId,
    /// Its epoch.
    pub epoch: u64,
    /// Whose it is.
    pub agent: PeerName,
    /// A fresh id for the implicit claim, if one has to be made for it.
    pub claim: ClaimId,
}

/// A device that a host offers, checked.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The device.
    pub device: DeviceId,
    /// For selectors.
    pub class: Arc<str>,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// What the guest will see; known to be good.
    pub descriptor: Arc<v1::DeviceDescriptor>,
    /// PCI vendor id.
    pub vendor_id: u16,
    /// PCI device id.
    pub device_code: u16,
    /// The highest epoch that the host knows for it.
    pub highest_epoch: u64,
}

/// A device that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// As the host wrote it; perhaps no device id.
    pub device: String,
    /// What kind of reason.
    pub cause: RejectCause,
    /// Which field, and what is wrong with it.
    pub reason: String,
}

/// Kinds of reasons for which a device is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectCause {
    /// Its offer cannot be understood.
    Malformed,
    /// No rule allows it to the host.
    Policy,
    /// Another host offers it, or did until lately.
    Owned,
    /// The pool has as many devices as it may.
    Full,
}

/// Which device is asked for.
#[derive(Debug, Clone)]
pub enum Target {
    /// This one.
    Device(DeviceId),
    /// The first free one, by id, that fits.
    Fitting {
        /// `None`: any.
        class: Option<String>,
        /// All must be there.
        labels: BTreeMap<String, String>,
    },
    /// The one that this claim holds.
    Claim(ClaimId),
}

/// The agent that attaches.
#[derive(Debug, Clone, Copy)]
pub struct Attacher<'a> {
    /// Its identity.
    pub agent: &'a PeerName,
    /// The run of its process, if it says so: without, it takes nothing over and nothing of its own is taken over.
    pub incarnation: Option<Incarnation>,
}

/// Who asks for a session or a claim to end.
#[derive(Debug, Clone, Copy)]
pub enum Requester<'a> {
    /// An agent: what is its own.
    Agent(&'a PeerName),
    /// An operator: anything.
    Operator(&'a PeerName),
}

impl Requester<'_> {
    /// May this one end what is `agent`'s?
    pub(super) fn may_end(self, agent: &PeerName) -> bool {
        match self {
            Self::Agent(name) => name == agent,
            Self::Operator(_) => true,
        }
    }

    /// Why a session ended that this one asked to end, for its agent's logs.
    pub(super) fn words(self, by_its_agent: &str) -> String {
        match self {
            Self::Agent(_) => by_its_agent.to_owned(),
            Self::Operator(name) => format!("ended by operator {name}"),
        }
    }
}

/// What the driver must do.
#[derive(Debug, Clone)]
pub enum Action {
    /// First message on a Register stream.
    Accept {
        /// The stream.
        conn: ConnId,
        /// The version to speak on it.
        version: u32,
        /// Devices that were not taken.
        rejected: Vec<Rejected>,
        /// Without a heartbeat for this long the host's devices are away.
        lease: Duration,
    },
    /// Fence a device on its host.
    Fence {
        /// The host's stream.
        conn: ConnId,
        /// The device.
        device: DeviceId,
        /// From now on only this counts.
        epoch: u64,
        /// The one session allowed; `None`: none.
        session: Option<SessionId>,
    },
    /// End a Register stream.
    CloseHost {
        /// The stream.
        conn: ConnId,
        /// For the host's operator.
        reason: &'static str,
    },
    /// End both legs of a dial.
    CloseLeg {
        /// The dial.
        leg: LegId,
        /// For the peers' programs.
        code: v1::CloseCode,
        /// For people.
        message: String,
    },
    /// Answer a request.
    Reply {
        /// The request.
        request: RequestId,
        /// Its answer.
        outcome: Result<Reply, Refusal>,
    },
    /// A newer process of an agent took a device from an older one of the same identity: for the operator to know, since
    /// two that live would do so in turn.
    TakenOver {
        /// The device.
        device: DeviceId,
        /// The identity of both.
        agent: PeerName,
        /// The session that was ended.
        session: SessionId,
        /// The process that had it.
        older: Incarnation,
        /// The process that has the device now.
        newer: Incarnation,
    },
    /// A session that this broker did not begin goes on here: its host told of it. For the operator to know.
    Adopted(SessionId),
    /// A device's visible state changed.
    DeviceChanged(DeviceId),
    /// A device is no longer offered. Its class, so that the driver can tell who might have seen it.
    DeviceGone {
        /// The device.
        device: DeviceId,
        /// Its class.
        class: Arc<str>,
        /// Who offered it.
        host: PeerName,
    },
    /// A session's visible state changed.
    SessionChanged(SessionId),
    /// A session ended.
    SessionGone {
        /// The session.
        session: SessionId,
        /// Whose it was.
        agent: PeerName,
        /// On which host.
        host: PeerName,
    },
}

/// The good answer to a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To a claim.
    Claimed {
        /// The device.
        device: DeviceId,
        /// The claim.
        claim: ClaimId,
        /// Its epoch.
        epoch: u64,
    },
    /// To an attach.
    Attached {
        /// The device.
        device: DeviceId,
        /// The session.
        session: SessionId,
        /// Its epoch.
        epoch: u64,
        /// Of the device's host.
        incarnation: Incarnation,
        /// What the guest will see.
        descriptor: Arc<v1::DeviceDescriptor>,
    },
    /// To a release or a detach.
    Ended,
}

/// Why a request is refused. The messages are for people and end up in gRPC statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is there, but not in a state for this.
    #[error("{0}")]
    Precondition(String),
    /// Not to this peer.
    #[error("{0}")]
    Denied(String),
    /// A limit was reached.
    #[error("{0}")]
    Exhausted(String),
    /// Try again.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a dial is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialRefusal {
    /// For programs.
    pub code: v1::CloseCode,
    /// For people.
    pub message: String,
}

/// What an accepted dial leads to.
#[derive(Debug, Clone)]
pub struct Route {
    /// The device.
    pub device: DeviceId,
    /// Identity of its host.
    pub host: PeerName,
    /// The run of the host process that the session is on.
    pub incarnation: Incarnation,
    /// Where the host's data plane is.
    pub address: SocketAddr,
    /// Counts what is forwarded.
    pub traffic: Arc<super::Traffic>,
}
