//! What travels on a stream.

use bytes::Bytes;
use potemkin_broker::ids::{Incarnation, PeerName, SessionId};
use potemkin_proto::v1::CloseCode;
use potemkin_session::ids::Path;

/// A message, or a stream's end.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Of a session's data path.
    Frame {
        bytes: Bytes,
        /// It is not as it was sent.
        garbled: bool,
    },
    /// Of the control plane.
    Control(Box<Control>),
    /// The other end has closed the stream, or is gone.
    Fin,
}

/// Of the control plane: what the real messages say, not encoded.
#[derive(Debug, Clone)]
pub(crate) enum Control {
    /// Host to broker: first message of a registration.
    Hello {
        incarnation: Incarnation,
        /// For each device the highest epoch on disk.
        epochs: Vec<u64>,
        sessions: Vec<Session>,
    },
    /// Broker to host.
    Accepted {
        /// Its devices, too.
        taken: bool,
    },
    /// Host to broker.
    Heartbeat,
    /// Broker to host.
    Fence {
        device: usize,
        epoch: u64,
        session: Option<SessionId>,
    },
    /// Host to broker.
    FenceDone {
        device: usize,
        epoch: u64,
        error: String,
    },
    /// Host to broker.
    SessionStarted(Session),
    /// Host to broker.
    SessionEnded { session: SessionId, code: CloseCode },
    /// Agent to broker.
    Claim { agent: PeerName, device: usize },
    /// Agent to broker.
    Attach {
        agent: PeerName,
        incarnation: Incarnation,
        device: usize,
    },
    /// Broker to agent.
    Attached {
        path: Path,
        host: Incarnation,
        device: usize,
    },
    /// Agent to broker.
    Detach { agent: PeerName, session: SessionId },
    /// Broker to agent: a claim or a detach is done.
    Done,
    /// Broker to agent: the request is refused. Why stands in the trace.
    Refused {
        #[allow(dead_code)]
        why: String,
    },
}

/// A session that lives on a host.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) device: usize,
    pub(crate) epoch: u64,
    pub(crate) agent: PeerName,
}
