//! The first frame of a stream: who may use which device.

use std::sync::Arc;

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, Grant};
use potemkin_session::Violation;
use potemkin_session::host::{Host, Opening};
use potemkin_session::ids::{AttachNumber, Epoch, Incarnation, Path, SessionId};
use potemkin_transport::{Identity, IdentityPattern, Role};
use tokio::sync::mpsc;

use crate::pool::Pool;
use crate::running::NewPath;
use crate::served::{Admission, Dial, NotAdmitted, Seating, Served};
use potemkin_session::gate::AdmitError;

/// A stream that was let in.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It begins a session.
    First(Box<Begun>),
    /// It is a newer path of one that lives.
    Again {
        /// For its session.
        opening: Box<Opening>,
        /// Takes the path.
        session: mpsc::Sender<NewPath>,
    },
}

/// A session that begins.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) core: Host,
    pub(crate) served: Arc<Served>,
    pub(crate) admission: Admission,
    /// Whose session it is, as the broker says.
    pub(crate) agent: Identity,
}

/// Why a stream is refused, for the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    path: Path,
    pub(crate) code: CloseCode,
    pub(crate) message: String,
}

impl Refusal {
    /// Of a stream whose first frame could not be read.
    pub(crate) fn unread(code: CloseCode, message: String) -> Self {
        let path = Path {
            session: SessionId::from_halves(0, 0),
            epoch: Epoch(0),
            attach_number: AttachNumber(0),
        };
        Self {
            path,
            code,
            message,
        }
    }

    fn of(path: Path, code: CloseCode, message: impl Into<String>) -> Self {
        Self {
            path,
            code,
            message: message.into(),
        }
    }

    /// The frame that says so.
    pub(crate) fn frame(&self) -> Bytes {
        Opening::refuse(self.path, self.code, format!("host: {}", self.message))
    }
}

/// What a host is, to whoever dials it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) accept: &'a IdentityPattern,
    pub(crate) incarnation: Incarnation,
    /// Now.
    pub(crate) beat: u64,
}

/// Decides on a stream's first frame.
pub(crate) fn decide(door: Door<'_>, peer: &Identity, frame: Bytes) -> Result<Opened, Refusal> {
    let opening = Opening::decode(frame).map_err(|violation| {
        let code = match violation {
            Violation::Version { .. } => CloseCode::Version,
            _ => CloseCode::ProtocolViolation,
        };
        Refusal::unread(code, format!("{peer}: {violation}"))
    })?;
    let path = opening.path;
    let refuse = |code, message: String| Refusal::of(path, code, message);
    if peer.role() != Role::Broker || !door.accept.matches(peer) {
        let message = format!(
            "{peer} may not open sessions here: this host serves {}",
            door.accept
        );
        return Err(refuse(CloseCode::PermissionDenied, message));
    }
    let (device, agent) = read_grant(opening.open.grant.as_ref())
        .map_err(|problem| refuse(CloseCode::PermissionDenied, format!("{peer}: {problem}")))?;
    if Incarnation::from_slice(&opening.open.host_incarnation) != Some(door.incarnation) {
        let message = "open.host_incarnation: not this run of the host: attach anew";
        return Err(refuse(CloseCode::UnknownSession, message.into()));
    }
    let served = door.pool.get(device).ok_or_else(|| {
        let message = format!("open.grant.device_id: this host has no device {device:?}");
        refuse(CloseCode::UnknownSession, message)
    })?;
    // Before the device hears of it: a session that cannot be served must not end the one that is.
    let core = Host::accept(&opening, door.incarnation, door.beat);
    let dial = Dial {
        path,
        agent: &agent,
        resumable: core.as_ref().is_ok_and(Host::is_resumable),
        unfit: core.as_ref().err(),
    };
    let seating = served
        .admit(dial)
        .map_err(|error| refuse(code_of(&error), format!("{device}: {agent}: {error}")))?;
    match (seating, core) {
        (Seating::Again(session), _) => Ok(Opened::Again {
            opening: Box::new(opening),
            session,
        }),
        (Seating::First(admission), Ok(core)) => Ok(Opened::First(Box::new(Begun {
            core,
            served: Arc::clone(served),
            admission,
            agent,
        }))),
        (Seating::First(_), Err(violation)) => {
            let message = violation.to_string();
            Err(refuse(CloseCode::ProtocolViolation, message))
        }
    }
}

fn read_grant(grant: Option<&Grant>) -> Result<(&str, Identity), String> {
    let grant = grant.ok_or("open.grant: missing: a host takes sessions from brokers only")?;
    let agent: Identity = grant
        .agent
        .parse()
        .map_err(|error| format!("open.grant.agent: {error}"))?;
    if agent.role() != Role::Agent {
        return Err(format!("open.grant.agent: {agent} is no agent"));
    }
    Ok((&grant.device_id, agent))
}

fn code_of(error: &NotAdmitted) -> CloseCode {
    match error {
        NotAdmitted::Gate(AdmitError::OldEpoch { .. } | AdmitError::OldAttach { .. }) => {
            CloseCode::Superseded
        }
        NotAdmitted::Unfit(_) => CloseCode::ProtocolViolation,
        NotAdmitted::OtherAgent => CloseCode::PermissionDenied,
        NotAdmitted::Gate(_) => CloseCode::UnknownSession,
        NotAdmitted::Failed => CloseCode::Unreachable,
    }
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
