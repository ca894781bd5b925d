//! The control plane as an agent uses it: attach and detach.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    net::SocketAddr,
    time::Duration,
};

use potemkin_pci::Descriptor;
use potemkin_proto::{
    descriptor::{self, DescriptorFieldError},
    v1::{
        AttachReply, AttachRequest, DetachRequest, Selector, Target as TargetMessage,
        control_client::ControlClient, target::Kind,
    },
};
use potemkin_session::{
    VERSION, VERSION_MIN,
    front::FrontConfig,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};
use potemkin_transport::{
    DialOptions, IdentityPattern, TlsMaterial, TransportError, control_channel, lost_connection,
    status_words,
};
use thiserror::Error;
use tonic::{Code, Status, transport::Channel};

use crate::{incarnation::of_this_process, remote::Takeover};

/// Longest a control request may take: an attach waits for the host to fence and reset the device.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a broker is, and who it must be.
#[derive(Debug, Clone)]
pub struct BrokerAddress {
    /// `host:port`: TCP for the control plane and gRPC legs, UDP with the same number for QUIC legs.
    pub address: String,
    /// The identity that its certificate must show.
    pub identity: IdentityPattern,
}

impl BrokerAddress {
    /// The addresses that the name has: one at least.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, AttachError> {
        let error = |source| AttachError::Resolve {
            address: self.address.clone(),
            source,
        };
        let addresses = tokio::net::lookup_host(&self.address)
            .await
            .map_err(error)?;
        let addresses: Vec<_> = addresses.collect();
        if addresses.is_empty() {
            return Err(error(no_address()));
        }
        Ok(addresses)
    }
}

/// The name is known, and has none.
pub(crate) fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address")
}

/// Which device to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This one.
    Device(String),
    /// Any free one that fits.
    Selector {
        /// The device's class; empty: any.
        class: String,
        /// Labels that it must have.
        labels: HashMap<String, String>,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(id) => f.write_str(id),
            Self::Selector { class, labels } => {
                write!(f, "class={class}")?;
                let labels: BTreeMap<_, _> = labels.iter().collect();
                labels.iter().try_for_each(|(k, v)| write!(f, ",{k}={v}"))
            }
        }
    }
}

impl Target {
    fn to_message(&self) -> TargetMessage {
        let kind = match self.clone() {
            Self::Device(id) => Kind::DeviceId(id),
            Self::Selector { class, labels } => Kind::Selector(Selector { class, labels }),
        };
        TargetMessage { kind: Some(kind) }
    }
}

/// Why a device was not attached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The broker's name has no address.
    #[error("broker {address}: cannot resolve the name")]
    Resolve {
        /// What was to be resolved, `host:port`.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The broker could not be reached, or is not who it should be.
    #[error("broker {address}")]
    Connect {
        /// Its address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Box<TransportError>,
    },
    /// The connection went before the broker answered.
    #[error("broker {address}: {what}: {reason}")]
    Lost {
        /// Its address.
        address: SocketAddr,
        /// What was asked.
        what: String,
        /// What became of the connection, and what to look at.
        reason: String,
    },
    /// The broker said no.
    #[error("broker {address}: {what}: {}: {message}", code_name(*code))]
    Refused {
        /// Its address.
        address: SocketAddr,
        /// What was asked.
        what: String,
        /// The gRPC status.
        code: Code,
        /// The broker's words.
        message: String,
    },
    /// The broker's answer is not sound.
    #[error("broker {address}: attach reply: {field}: {problem}")]
    BadReply {
        /// Its address.
        address: SocketAddr,
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The descriptor in the broker's answer is not sound.
    #[error("broker {address}: attach reply: descriptor")]
    BadDescriptor {
        /// Its address.
        address: SocketAddr,
        /// Which field.
        #[source]
        source: Box<DescriptorFieldError>,
    },
    /// The session's stream could not be opened.
    #[error("session's stream through broker {address}")]
    Stream {
        /// Its address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Box<TransportError>,
    },
    /// The host, or the broker for it, did not accept the session.
    #[error("session not accepted: {0}")]
    NotAccepted(String),
    /// No broker was given.
    #[error("no broker was given: give one at least")]
    NoBroker,
    /// None of several brokers could be reached, or would grant it; in their order.
    #[error("none of {} brokers: {}", .0.len(), each(.0))]
    NoneOf(Vec<AttachError>),
}

fn each(errors: &[AttachError]) -> String {
    let lines: Vec<_> = errors.iter().map(|error| chain(error)).collect();
    lines.join("; ")
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

impl AttachError {
    /// Whether the same attach may succeed later, with nothing changed at this end. Not so when the broker is another than it
    /// should be, does not take us for who we are, or refuses by its rules.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => !matches!(
                code,
                Code::InvalidArgument
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::Unimplemented
            ),
            Self::Connect { source, .. } => connect_may_pass(source),
            Self::BadReply { .. } | Self::BadDescriptor { .. } => false,
            // The control plane has worked with the same certificates just before the stream.
            Self::Resolve { .. } | Self::Stream { .. } | Self::NotAccepted(_) => true,
            // A certificate that the broker refuses now it may accept once it knows our authority.
            Self::Lost { .. } => true,
            Self::NoBroker => false,
            Self::NoneOf(errors) => errors.iter().any(Self::may_pass),
        }
    }

    /// What came of asking one broker after the other.
    pub(crate) fn of_all(mut errors: Vec<Self>) -> Self {
        match errors.pop() {
            None => Self::NoBroker,
            Some(only) if errors.is_empty() => only,
            Some(last) => {
                errors.push(last);
                Self::NoneOf(errors)
            }
        }
    }

    /// Whether another broker of the same pool may grant what this one did not: it cannot be reached, or only relays. What a broker refuses
    /// by its rules, every broker does.
    pub(crate) fn another_may(&self) -> bool {
        match self {
            Self::Resolve { .. } | Self::Connect { .. } | Self::Lost { .. } => true,
            Self::Stream { .. } => true,
            Self::Refused { code, .. } => *code == Code::Unavailable,
            _ => false,
        }
    }
}

/// A handshake fails in passing when the connection broke; what TLS itself finds wrong stays wrong.
fn connect_may_pass(error: &TransportError) -> bool {
    match error {
        TransportError::Handshake { cause, .. } => cause
            .as_ref()
            .and_then(|cause| cause.downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() != io::ErrorKind::InvalidData),
        TransportError::Tls(_) | TransportError::Option { .. } => false,
        _ => true,
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid argument",
        Code::NotFound => "not found",
        Code::FailedPrecondition => "not possible now",
        Code::PermissionDenied => "permission denied",
        Code::Unauthenticated => "not authenticated",
        Code::ResourceExhausted => "a limit of the broker was reached",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "timed out",
        _ => "failed",
    }
}

/// A session that the broker has granted.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The device, as its host registered it.
    pub device_id: String,
    /// The session.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The host process that serves it.
    pub host_incarnation: Incarnation,
    /// What the guest will see.
    pub descriptor: Descriptor,
}

impl Attachment {
    /// What the session's front half is made of, on its first dial.
    pub fn front_config(&self, deadline: Duration) -> FrontConfig {
        FrontConfig {
            path: Path {
                session: self.session,
                epoch: self.epoch,
                attach_number: AttachNumber(1),
            },
            host_incarnation: self.host_incarnation,
            deadline,
        }
    }
}

/// A connection to a broker's control plane.
#[derive(Debug, Clone)]
pub struct Broker {
    address: SocketAddr,
    client: ControlClient<Channel>,
}

impl Broker {
    /// Dials a broker and checks who it is; of several addresses that its name has, the first that answers.
    ///
    /// # Errors
    /// When it cannot be reached, or is not who it should be.
    pub async fn connect(
        tls: &TlsMaterial,
        broker: &BrokerAddress,
        options: &DialOptions,
    ) -> Result<Self, AttachError> {
        let mut last = None;
        for address in broker.resolve().await? {
            match Self::connect_at(tls, broker, address, options).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last = Some(error),
            }
        }
        // There was one address at least.
        Err(last.unwrap_or(AttachError::NoBroker))
    }

    async fn connect_at(
        tls: &TlsMaterial,
        broker: &BrokerAddress,
        address: SocketAddr,
        options: &DialOptions,
    ) -> Result<Self, AttachError> {
        let (tls, identity) = (tls.clone(), broker.identity.clone());
        let channel = control_channel(tls, identity, address, options.clone()).await;
        let channel = channel.map_err(|source| AttachError::Connect {
            address,
            source: Box::new(source),
        })?;
        Ok(Self {
            address,
            client: ControlClient::new(channel),
        })
    }

    /// Where the broker was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks for a session on a device. If an older process with our identity has one on it, that ends: the newest process of an
    /// agent wins, so two that live must not share an identity.
    ///
    /// # Errors
    /// What the broker says, or what is wrong with its answer.
    pub async fn attach(&mut self, target: &Target) -> Result<Attachment, AttachError> {
        self.attach_as(target, Takeover::OlderProcess).await
    }

    pub(crate) async fn attach_as(
        &mut self,
        target: &Target,
        takeover: Takeover,
    ) -> Result<Attachment, AttachError> {
        let incarnation = match takeover {
            Takeover::OlderProcess => of_this_process(),
            Takeover::Never => None,
        };
        let request = AttachRequest {
            version_min: VERSION_MIN,
            version_max: VERSION,
            target: Some(target.to_message()),
            claim_id: Vec::new().into(),
            agent_incarnation: incarnation.map(Incarnation::to_bytes).unwrap_or_default(),
        };
        let reply = self
            .client
            .attach(bounded(request))
            .await
            .map_err(|status| self.failed(format!("attach {target}"), &status))?
            .into_inner();
        self.parse(reply)
    }

    /// Gives the session back.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn detach(&mut self, session: SessionId) -> Result<(), AttachError> {
        let request = DetachRequest {
            session_id: session.to_bytes().to_vec().into(),
        };
        self.client
            .detach(bounded(request))
            .await
            .map_err(|status| self.failed(format!("detach session {session}"), &status))?;
        Ok(())
    }

    fn failed(&self, what: String, status: &Status) -> AttachError {
        let address = self.address;
        if let Some(reason) = lost_connection(status) {
            return AttachError::Lost {
                address,
                what,
                reason,
            };
        }
        AttachError::Refused {
            address,
            what,
            code: status.code(),
            message: status_words(status),
        }
    }

    fn parse(&self, reply: AttachReply) -> Result<Attachment, AttachError> {
        let address = self.address;
        let bad = |field, problem: &str| AttachError::BadReply {
            address,
            field,
            problem: problem.to_owned(),
        };
        if !(VERSION_MIN..=VERSION).contains(&reply.version) {
            let version = reply.version;
            let problem = format!("{version}; this agent speaks {VERSION_MIN} to {VERSION}");
            return Err(bad("version", &problem));
        }
        let descriptor = reply
            .descriptor
            .ok_or_else(|| bad("descriptor", "missing"))?;
        Ok(Attachment {
            device_id: reply.device_id,
            session: SessionId::from_slice(&reply.session_id)
                .ok_or_else(|| bad("session_id", "not 16 bytes"))?,
            epoch: Epoch(reply.epoch),
            host_incarnation: Incarnation::from_slice(&reply.host_incarnation)
                .ok_or_else(|| bad("host_incarnation", "not 16 bytes"))?,
            descriptor: descriptor::decode(descriptor).map_err(|source| {
                AttachError::BadDescriptor {
                    address,
                    source: Box::new(source),
                }
            })?,
        })
    }
}

fn bounded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(REQUEST_TIMEOUT);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code) -> AttachError {
        AttachError::Refused {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            what: "attach edu-0".to_owned(),
            code,
            message: String::new(),
        }
    }

    fn handshake(source: Option<io::Error>) -> AttachError {
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        AttachError::Connect {
            address: peer,
            source: Box::new(TransportError::Handshake {
                peer,
                kind: potemkin_transport::TransportKind::Grpc,
                reason: String::new(),
                cause: source.map(Into::into),
            }),
        }
    }

    #[test]
    fn refusals_by_rule_do_not_pass_and_others_do() {
        for code in [
            Code::PermissionDenied,
            Code::InvalidArgument,
            Code::Unauthenticated,
        ] {
            assert!(!refused(code).may_pass(), "{code:?}");
        }
        for code in [
            Code::Unavailable,
            Code::NotFound,
            Code::FailedPrecondition,
            Code::AlreadyExists,
            Code::ResourceExhausted,
            Code::DeadlineExceeded,
        ] {
            assert!(refused(code).may_pass(), "{code:?}");
        }
    }

    #[test]
    fn a_broken_handshake_passes_and_a_wrong_certificate_does_not() {
        assert!(handshake(Some(io::ErrorKind::ConnectionReset.into())).may_pass());
        assert!(!handshake(Some(io::ErrorKind::InvalidData.into())).may_pass());
        assert!(!handshake(None).may_pass());
    }
}
