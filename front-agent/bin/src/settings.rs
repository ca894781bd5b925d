//! The agent's configuration.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use potemkin_front_core::{BrokerAddress, RemoteOptions};
use potemkin_service::{
    BoxError, NoArgs, Settings,
    config::{ConfigPath, HumanDuration, LogSection, TlsSection},
};
use potemkin_transport::{DialOptions, IdentityPattern, Role, TransportKind};
use serde::{Deserialize, Serialize};

/// `potemkin-front`'s configuration file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrontSettings {
    /// UNIX socket for `potemkin attach`, `detach` and `status`.
    pub admin_socket: ConfigPath,
    /// Group (its number) whose members may use the sockets that the agent makes, which have mode 0660 then; without, they have 0600.
    pub socket_group: Option<u32>,
    /// The broker.
    pub broker: BrokerSection,
    /// Certificates.
    pub tls: Option<TlsSection>,
    /// Limits of the data path.
    pub session: SessionSection,
    /// Where Prometheus scrapes, plain HTTP.
    pub metrics_listen: SocketAddr,
    /// Devices to attach at the start, or as soon as they can be had.
    pub devices: Vec<DeviceSection>,
    /// Logging.
    pub log: LogSection,
}

/// `[broker]`: where it is, and who it must be.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSection {
    /// `host:port`: TCP for the control plane and gRPC, UDP for QUIC.
    pub addr: String,
    /// Its identity; none: any broker of our own trust domain.
    pub identity: Option<String>,
    /// What the session's leg to the broker runs on: `quic` or `grpc`.
    pub transport: String,
}

/// `[session]`: limits of the data path.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSection {
    /// How long an access may stay unanswered; then reads give all-ones and writes are dropped. 50 ms to 4 s: QEMU gives up
    /// after 5 s.
    pub deadline: HumanDuration,
    /// A sign of life on a silent wire; `0s` sends none.
    pub keep_alive: HumanDuration,
    /// A broker that was not heard for so long is gone.
    pub idle_timeout: HumanDuration,
}

/// `[[devices]]`: one device to attach at the start, or as soon as it can be had.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSection {
    /// What it is called at this agent.
    pub name: String,
    /// Its id in the pool; or else `selector`.
    pub device: Option<String>,
    /// Any free device that fits: `class=edu,zone=a`.
    pub selector: Option<String>,
    /// Where to create its vfio-user socket.
    pub socket: ConfigPath,
}

impl Default for FrontSettings {
    fn default() -> Self {
        Self {
            admin_socket: ConfigPath::from("/run/potemkin/front.sock"),
            socket_group: None,
            broker: BrokerSection::default(),
            tls: None,
            session: SessionSection::default(),
            metrics_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9642),
            devices: Vec::new(),
            log: LogSection::default(),
        }
    }
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self {
            addr: "127.0.0.1:7640".to_owned(),
            identity: None,
            transport: TransportKind::Quic.to_string(),
        }
    }
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            deadline: HumanDuration::from(potemkin_front_core::DEFAULT_DEADLINE),
            keep_alive: HumanDuration::from(Duration::from_secs(5)),
            idle_timeout: HumanDuration::from(Duration::from_secs(30)),
        }
    }
}

/// Deadlines that are allowed.
const DEADLINE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(4);

impl Settings for FrontSettings {
    const ROLE: &'static str = "FRONT";
    type Args = NoArgs;

    fn log_mut(&mut self) -> &mut LogSection {
        &mut self.log
    }

    fn validate(&self, base: &Path) -> Result<(), BoxError> {
        self.remote_options(base)?;
        for device in &self.devices {
            if device.device.is_some() == device.selector.is_some() {
                let name = &device.name;
                return Err(
                    format!("devices: `{name}`: give one of `device` and `selector`").into(),
                );
            }
        }
        Ok(())
    }
}

impl FrontSettings {
    /// What the data path needs, checked.
    pub(crate) fn remote_options(&self, base: &Path) -> Result<RemoteOptions, BoxError> {
        let tls = self
            .tls
            .as_ref()
            .ok_or("[tls]: missing: give `ca`, `cert` and `key` (potemkin certs dev DIR makes some for a trial)")?
            .load(base)?;
        let identity = match &self.broker.identity {
            Some(pattern) => pattern
                .parse()
                .map_err(|e| format!("broker.identity: {e}"))?,
            None => IdentityPattern::same_domain(tls.identity(), Role::Broker),
        };
        let transport = self
            .broker
            .transport
            .parse()
            .map_err(|e| format!("broker.transport: {e}"))?;
        check_host_port("broker.addr", &self.broker.addr)?;
        let deadline = Duration::from(self.session.deadline);
        if !DEADLINE.contains(&deadline) {
            return Err(format!("session.deadline: {deadline:?} is not within 50ms to 4s").into());
        }
        Ok(RemoteOptions {
            tls,
            broker: BrokerAddress {
                address: self.broker.addr.clone(),
                identity,
            },
            transport,
            deadline,
            dial: self.dial_options()?,
        })
    }

    fn dial_options(&self) -> Result<DialOptions, BoxError> {
        let keep_alive = Duration::from(self.session.keep_alive);
        let idle_timeout = Duration::from(self.session.idle_timeout);
        if keep_alive >= idle_timeout {
            return Err(format!(
                "session.idle_timeout: {idle_timeout:?} must be longer than session.keep_alive ({keep_alive:?})"
            )
            .into());
        }
        Ok(DialOptions {
            keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
            idle_timeout,
            ..DialOptions::default()
        })
    }
}

fn check_host_port(key: &str, text: &str) -> Result<(), BoxError> {
    let port = text
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    match port {
        Some(1_u16..) => Ok(()),
        _ => Err(format!("{key}: `{text}` is not of the form host:port").into()),
    }
}
