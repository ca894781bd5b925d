//! The broker's configuration file.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use potemkin_service::config::{BadValue, ConfigPath, HumanDuration, LogSection, TlsSection};
use potemkin_service::{NoArgs, Settings};
use potemkin_transport::TransportKind;
use serde::{Deserialize, Serialize};

use crate::core::{Limits, Times};
use crate::policy::Policy;

/// Everything that can be set. Times are written as `"250ms"`, `"10s"`; paths are relative to the file's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the broker listens: gRPC on TCP, QUIC on UDP, one number. Port 0 takes a free one.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where `GET /metrics` is answered, plain HTTP.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// The folder of the store, `broker.redb` in it. Made if it is not there. Not used by a broker that only relays.
    #[serde(default = "default_state_dir")]
    pub state_dir: ConfigPath,
    /// The broker's certificate, and whom it trusts.
    pub tls: TlsSection,
    /// What the broker does with the pool.
    #[serde(default)]
    pub pool: PoolSection,
    /// Hosts.
    #[serde(default)]
    pub hosts: HostsSection,
    /// Sessions and requests.
    #[serde(default)]
    pub sessions: SessionsSection,
    /// Connections.
    #[serde(default)]
    pub connections: ConnectionsSection,
    /// Bounds of what the broker keeps.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Who may do what. Without rules nobody may do anything.
    #[serde(default)]
    pub policy: Policy,
    /// Logging.
    #[serde(default)]
    pub log: LogSection,
}

/// `[pool]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSection {
    /// The broker grants devices: attaches, claims, fences. Of the brokers that share hosts exactly one does. The others relay the sessions
    /// that the hosts tell of; they keep no store, and send away who wants a device.
    pub grants: bool,
}

/// `[hosts]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostsSection {
    /// A host without a heartbeat for this long has lost its devices' sessions.
    pub lease: HumanDuration,
    /// How much longer its devices stay its own, for a host whose clock is slow.
    pub drift: HumanDuration,
    /// A host that is away for this long is forgotten.
    pub forget: HumanDuration,
    /// What hosts are dialled on.
    pub transport: Transport,
}

/// A transport, as it is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC over UDP.
    #[default]
    Quic,
    /// gRPC over TCP.
    Grpc,
}

/// `[sessions]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsSection {
    /// How long a session lives without the agent's data path: until its host has accepted it, or, on hosts of version 1, always.
    pub grace: HumanDuration,
    /// How long an attach, a claim, a release or a detach waits for a host to fence the device.
    pub fence_timeout: HumanDuration,
    /// How long an agent may take for a stream's first frame, and a host for the first message of its registration.
    pub open_timeout: HumanDuration,
    /// How long a host may take to accept a session.
    pub accept_timeout: HumanDuration,
}

/// `[connections]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsSection {
    /// A sign of life is sent after so long a silence. `"0s"`: never; then an idle wire is silent.
    pub keep_alive: HumanDuration,
    /// A peer that was not heard for so long is gone. Must exceed `keep_alive`.
    pub idle_timeout: HumanDuration,
    /// Longest time for a connection to a host.
    pub connect_timeout: HumanDuration,
    /// How long sessions may take to end when the broker stops.
    pub drain_timeout: HumanDuration,
    /// Connections at a time, of all peers.
    pub max: usize,
    /// Streams at a time on one connection.
    pub streams_max: u32,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Hosts that are registered or were lately.
    pub hosts: usize,
    /// Devices known, offered or not.
    pub devices: usize,
    /// Bytes of a host's first message, in which it describes its devices.
    pub hello_bytes: usize,
    /// Sessions of all agents.
    pub sessions: usize,
    /// Sessions of one agent identity.
    pub sessions_per_agent: usize,
    /// Explicit claims of one agent identity.
    pub claims_per_agent: usize,
    /// Requests of one agent identity that wait for a host or the store.
    pub requests_per_agent: usize,
    /// Session streams of one agent identity that have no route yet.
    pub dials_per_agent: usize,
    /// Watches of all callers.
    pub watchers: usize,
    /// Bytes that may wait for one leg of a session; then the other leg is not read.
    pub queued_bytes: usize,
}

impl Default for PoolSection {
    fn default() -> Self {
        Self { grants: true }
    }
}

impl Default for HostsSection {
    fn default() -> Self {
        Self {
            lease: seconds(10),
            drift: seconds(1),
            forget: seconds(3600),
            transport: Transport::Quic,
        }
    }
}

impl Default for SessionsSection {
    fn default() -> Self {
        Self {
            grace: seconds(10),
            fence_timeout: seconds(5),
            open_timeout: seconds(5),
            accept_timeout: seconds(5),
        }
    }
}

impl Default for ConnectionsSection {
    fn default() -> Self {
        Self {
            keep_alive: seconds(3),
            idle_timeout: seconds(10),
            connect_timeout: seconds(3),
            drain_timeout: seconds(2),
            max: 4096,
            streams_max: 2048,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            hosts: 1024,
            devices: 16_384,
            hello_bytes: 32 << 20,
            sessions: 16_384,
            sessions_per_agent: 1024,
            claims_per_agent: 1024,
            requests_per_agent: 256,
            dials_per_agent: 256,
            watchers: 256,
            queued_bytes: 256 << 10,
        }
    }
}

impl From<Transport> for TransportKind {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Quic => Self::Quic,
            Transport::Grpc => Self::Grpc,
        }
    }
}

impl ConnectionsSection {
    /// As transports want it.
    pub(crate) fn keep_alive(&self) -> Option<Duration> {
        Some(self.keep_alive.0).filter(|time| !time.is_zero())
    }
}

impl Config {
    pub(crate) fn times(&self) -> Times {
        Times {
            lease: self.hosts.lease.0,
            drift: self.hosts.drift.0,
            forget: self.hosts.forget.0,
            grace: self.sessions.grace.0,
            fence: self.sessions.fence_timeout.0,
        }
    }

    pub(crate) fn core_limits(&self) -> Limits {
        Limits {
            hosts: self.limits.hosts,
            devices: self.limits.devices,
            sessions: self.limits.sessions,
            sessions_per_agent: self.limits.sessions_per_agent,
            claims_per_agent: self.limits.claims_per_agent,
            requests_per_peer: self.limits.requests_per_agent,
        }
    }

    /// Refuses values that cannot work.
    pub fn check(&self) -> Result<(), BadValue> {
        let positive = [
            ("hosts.lease", self.hosts.lease),
            ("sessions.grace", self.sessions.grace),
            ("sessions.fence_timeout", self.sessions.fence_timeout),
            ("sessions.open_timeout", self.sessions.open_timeout),
            ("sessions.accept_timeout", self.sessions.accept_timeout),
            (
                "connections.connect_timeout",
                self.connections.connect_timeout,
            ),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, time)| time.0.is_zero()) {
            return Err(BadValue::new(*key, "it must be longer than 0"));
        }
        if self.hosts.lease.0 > Duration::from_secs(86_400) {
            return Err(BadValue::new("hosts.lease", "it must be at most 24h"));
        }
        if self.connections.idle_timeout <= self.connections.keep_alive {
            return Err(BadValue::new(
                "connections.idle_timeout",
                "it must exceed connections.keep_alive",
            ));
        }
        let frames = 2 * potemkin_transport::MAX_FRAME_BYTES;
        if self.limits.queued_bytes < frames {
            return Err(BadValue::new(
                "limits.queued_bytes",
                format!("it must be at least {frames}"),
            ));
        }
        self.policy.check()
    }
}

impl Settings for Config {
    const ROLE: &'static str = "BROKER";
    type Args = NoArgs;

    fn log_mut(&mut self) -> &mut LogSection {
        &mut self.log
    }

    fn validate(&self, base: &Path) -> Result<(), BadValue> {
        self.check()?;
        crate::server::load_tls(&self.tls, base).map(drop)
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 7640))
}

fn default_metrics_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9640))
}

fn default_state_dir() -> ConfigPath {
    ConfigPath::from("state")
}

const fn seconds(count: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(count))
}
