//! What the broker counts. Names and labels stand here and nowhere else.

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};
use potemkin_proto::v1::CloseCode;
use potemkin_transport::{TransportError, TransportKind};
use tonic::Code;

use crate::core::{RejectCause, Tally};

const FRAMES: &str = "potemkin_broker_frames_total";
const BYTES: &str = "potemkin_broker_bytes_total";
const DEVICES: &str = "potemkin_broker_devices";
const SESSIONS: &str = "potemkin_broker_sessions";
const CLAIMS: &str = "potemkin_broker_claims";
const HOSTS: &str = "potemkin_broker_hosts";
const REQUESTS: &str = "potemkin_broker_requests_total";
const ATTACHES: &str = "potemkin_broker_attaches_total";
const TAKEOVERS: &str = "potemkin_broker_takeovers_total";
const REJECTED_PEERS: &str = "potemkin_broker_rejected_peers_total";
const REJECTED_DIALS: &str = "potemkin_broker_rejected_dials_total";
const REJECTED_DEVICES: &str = "potemkin_broker_rejected_devices_total";
const VIOLATIONS: &str = "potemkin_broker_violations_total";
const LOST_LEGS: &str = "potemkin_broker_lost_legs_total";
const COMMIT_FAILURES: &str = "potemkin_broker_commit_failures_total";

/// Handles for what is counted often; the rest is looked up when it happens.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By agent's transport and host's transport.
    meters: [[Meters; 2]; 2],
}

/// What one session's forwarding counts.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    /// Agent to host.
    pub(crate) forward: Meter,
    /// Host to agent.
    pub(crate) reverse: Meter,
}

/// Frames and bytes of one direction.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    frames: Counter,
    bytes: Counter,
}

impl Meter {
    fn new(direction: &'static str, transport: TransportKind) -> Self {
        let transport = transport_label(transport);
        Self {
            frames: counter!(FRAMES, "direction" => direction, "transport" => transport),
            bytes: counter!(BYTES, "direction" => direction, "transport" => transport),
        }
    }

    pub(crate) fn frame(&self, bytes: usize) {
        self.frames.increment(1);
        self.bytes.increment(bytes as u64);
    }
}

impl Meters {
    fn new(agent: TransportKind, host: TransportKind) -> Self {
        Self {
            forward: Meter::new("forward", agent),
            reverse: Meter::new("reverse", host),
        }
    }

    /// A peer broke the protocol.
    pub(crate) fn violation(&self, side: &'static str) {
        counter!(VIOLATIONS, "side" => side).increment(1);
    }

    /// A leg was lost.
    pub(crate) fn lost(&self, side: &'static str) {
        counter!(LOST_LEGS, "side" => side).increment(1);
    }
}

impl Metrics {
    /// Describes everything. The process's recorder has to be installed before.
    pub(crate) fn new() -> Self {
        describe();
        let kinds = [TransportKind::Quic, TransportKind::Grpc];
        Self {
            meters: kinds.map(|agent| kinds.map(|host| Meters::new(agent, host))),
        }
    }

    /// The meters of a session on these transports.
    pub(crate) fn meters(&self, agent: TransportKind, host: TransportKind) -> Meters {
        self.meters[index(agent)][index(host)].clone()
    }

    pub(crate) fn show(&self, tally: &Tally) {
        let states = [
            ("free", tally.free),
            ("claimed", tally.claimed),
            ("attached", tally.attached),
            ("away", tally.away),
        ];
        for (state, count) in states {
            gauge!(DEVICES, "state" => state).set(count_to_float(count));
        }
        gauge!(SESSIONS).set(count_to_float(tally.sessions));
        gauge!(CLAIMS).set(count_to_float(tally.claims));
        gauge!(HOSTS).set(count_to_float(tally.hosts));
    }

    pub(crate) fn request(&self, method: &'static str, code: Code) {
        let code = code_label(code);
        counter!(REQUESTS, "method" => method, "code" => code).increment(1);
        if method == "attach" {
            counter!(ATTACHES, "outcome" => code).increment(1);
        }
    }

    pub(crate) fn rejected_peer(&self, reason: &TransportError) {
        let reason = match reason {
            TransportError::Handshake { .. } | TransportError::Tls(_) => "handshake",
            TransportError::TimedOut { .. } => "timeout",
            TransportError::Limit { .. } => "limit",
            _ => "other",
        };
        counter!(REJECTED_PEERS, "reason" => reason).increment(1);
    }

    pub(crate) fn rejected_dial(&self, code: CloseCode) {
        let reason = match code {
            CloseCode::ProtocolViolation => "violation",
            // The only one that a dial is refused with.
            CloseCode::UnknownSession | CloseCode::Unreachable => "unknown_session",
            CloseCode::PathBroken => "path_broken",
            CloseCode::Superseded => "superseded",
            CloseCode::PermissionDenied => "permission_denied",
            CloseCode::Version => "version",
            CloseCode::ResourceExhausted => "resource_exhausted",
            CloseCode::Normal | CloseCode::Unspecified | CloseCode::GoingAway => "other",
        };
        counter!(REJECTED_DIALS, "reason" => reason).increment(1);
    }

    pub(crate) fn rejected_device(&self, cause: RejectCause) {
        let reason = match cause {
            RejectCause::Malformed => "malformed",
            RejectCause::Policy => "policy",
            RejectCause::Owned => "owned",
            RejectCause::Full => "full",
        };
        counter!(REJECTED_DEVICES, "reason" => reason).increment(1);
    }

    /// A newer process of an agent took a device from an older one.
    pub(crate) fn taken_over(&self) {
        counter!(TAKEOVERS).increment(1);
    }

    pub(crate) fn commit_failed(&self) {
        counter!(COMMIT_FAILURES).increment(1);
    }
}

fn describe() {
    describe_counter!(
        FRAMES,
        Unit::Count,
        "Frames forwarded, by direction (forward: agent to host) and by the transport that they came in on"
    );
    describe_counter!(
        BYTES,
        Unit::Bytes,
        "Bytes of frames forwarded, by direction and by the transport that they came in on"
    );
    describe_gauge!(DEVICES, Unit::Count, "Devices of the pool, by state");
    describe_gauge!(SESSIONS, Unit::Count, "Live sessions");
    describe_gauge!(CLAIMS, Unit::Count, "Claims, explicit and implicit");
    describe_gauge!(HOSTS, Unit::Count, "Hosts that are connected");
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "Control requests answered, by method and by gRPC status code"
    );
    describe_counter!(
        ATTACHES,
        Unit::Count,
        "Attaches answered, by outcome (gRPC status code)"
    );
    describe_counter!(
        TAKEOVERS,
        Unit::Count,
        "Sessions ended because a newer process of the same agent attached their device"
    );
    describe_counter!(
        REJECTED_PEERS,
        Unit::Count,
        "Connections refused, by reason"
    );
    describe_counter!(
        REJECTED_DIALS,
        Unit::Count,
        "Session streams refused, by reason"
    );
    describe_counter!(
        REJECTED_DEVICES,
        Unit::Count,
        "Devices that hosts offered and that were not taken, by reason (malformed, policy, owned by another host, pool full)"
    );
    describe_counter!(
        VIOLATIONS,
        Unit::Count,
        "Sessions ended because a peer broke the protocol, by side (agent, host)"
    );
    describe_counter!(
        LOST_LEGS,
        Unit::Count,
        "Sessions' legs lost without a close frame, by side (agent, host)"
    );
    describe_counter!(
        COMMIT_FAILURES,
        Unit::Count,
        "Commits that the store failed"
    );
}

const fn index(kind: TransportKind) -> usize {
    match kind {
        TransportKind::Quic => 0,
        TransportKind::Grpc => 1,
    }
}

/// A transport, as metrics and messages name it.
pub(crate) const fn transport_label(kind: TransportKind) -> &'static str {
    match kind {
        TransportKind::Quic => "quic",
        TransportKind::Grpc => "grpc",
    }
}

/// Counts stay far below 2^53.
#[allow(clippy::cast_precision_loss)]
const fn count_to_float(count: usize) -> f64 {
    count as f64
}

const fn code_label(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::InvalidArgument => "invalid_argument",
        Code::NotFound => "not_found",
        Code::FailedPrecondition => "failed_precondition",
        Code::PermissionDenied => "permission_denied",
        Code::Unauthenticated => "unauthenticated",
        Code::ResourceExhausted => "resource_exhausted",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "deadline_exceeded",
        _ => "other",
    }
}
