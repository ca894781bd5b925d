//! The configuration of a device host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use potemkin_devices::{OptionValue, Options, catalog};
use potemkin_sdk::Device;
use potemkin_service::NoArgs;
use potemkin_service::config::{BadValue, ConfigPath, HumanDuration, LogSection, TlsSection};
use potemkin_transport::{IdentityPattern, Role, TlsMaterial};
use serde::{Deserialize, Serialize};

use crate::names::{check_labels, check_name};

/// Most brokers that a host registers with.
const BROKERS_MAX: usize = 16;
/// How long a session is kept without a path, by default: longer than an agent's connection takes to be given up for its silence.
const GRACE: Duration = Duration::from_secs(10);
/// The most of it: a device that nobody can reach is nobody's.
const GRACE_MAX: Duration = Duration::from_secs(600);
/// Most devices that a host may offer (see `HostHello.devices`).
pub(crate) const DEVICES_MAX: usize = 1_024;

/// The configuration of `potemkin-host`, and of hosts that serve devices of their own.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostSettings {
    /// Where brokers reach the data plane: TCP and UDP.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The address that brokers are told to dial. By default the bound one or, if that is unspecified (`0.0.0.0`), the one from
    /// which this host reaches the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<SocketAddr>,
    /// Whose sessions are served: an identity of role broker whose name may be `*`. By default every broker of this host's trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Where epochs are remembered. Two hosts must not share one.
    #[serde(default = "default_state_dir")]
    pub state_dir: ConfigPath,
    /// Where Prometheus scrapes, plain HTTP.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// Certificates.
    pub tls: TlsSection,
    /// Logs.
    #[serde(default)]
    pub log: LogSection,
    /// Limits of sessions.
    #[serde(default)]
    pub session: SessionSection,
    /// Brokers to register with, all of them.
    #[serde(default)]
    pub brokers: Vec<BrokerSection>,
    /// Devices of the catalog to serve.
    #[serde(default)]
    pub devices: Vec<DeviceSection>,
}

/// `[session]`: limits of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSection {
    /// How long a session, and the state of its device, is kept without a path to its agent. `0s`: it ends with its path.
    pub grace: HumanDuration,
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            grace: HumanDuration::from(GRACE),
        }
    }
}

/// `[[brokers]]`: a broker to register with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSection {
    /// `host:port`.
    pub addr: String,
    /// The identity expected of it; the name may be `*`. By default every broker of this host's trust domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// `[[devices]]`: a device of the catalog.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceSection {
    /// Unique in the pool.
    pub id: String,
    /// Which kind of the catalog; also the class by which selectors find it.
    pub kind: String,
    /// For selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the kind takes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, SettingValue>,
    /// A file to which each access is appended, as a line of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<ConfigPath>,
}

/// The value of a device's option.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "true or false, a whole number, or a text")]
pub enum SettingValue {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
}

impl HostSettings {
    /// Checks everything that can be checked without touching the machine.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self) -> Result<(), BadValue> {
        if let Some(pattern) = &self.accept {
            check_broker_pattern("accept", pattern)?;
        }
        if self
            .advertise
            .is_some_and(|addr| addr.ip().is_unspecified())
        {
            return Err(BadValue::new(
                "advertise",
                "brokers cannot dial an unspecified address",
            ));
        }
        if Duration::from(self.session.grace) > GRACE_MAX {
            let problem = format!("longer than {} s", GRACE_MAX.as_secs());
            return Err(BadValue::new("session.grace", problem));
        }
        self.check_brokers()?;
        self.check_devices()
    }

    /// Certificates and key, which must be a host's.
    pub(crate) fn load_tls(&self, base: &Path) -> Result<TlsMaterial, BadValue> {
        self.tls.load(base, &[Role::Host])
    }

    fn check_brokers(&self) -> Result<(), BadValue> {
        if self.brokers.is_empty() || self.brokers.len() > BROKERS_MAX {
            let problem = format!("{} given: give 1 to {BROKERS_MAX}", self.brokers.len());
            return Err(BadValue::new("brokers", problem));
        }
        let mut seen = BTreeSet::new();
        for (index, broker) in self.brokers.iter().enumerate() {
            let key = format!("brokers[{index}].addr");
            let port = broker.addr.rsplit_once(':').map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0)) {
                let problem = format!("{:?} is not of the form host:port", broker.addr);
                return Err(BadValue::new(key, problem));
            }
            if !seen.insert(&broker.addr) {
                return Err(BadValue::new(
                    key,
                    format!("{} is given twice", broker.addr),
                ));
            }
            if let Some(pattern) = &broker.identity {
                check_broker_pattern(&format!("brokers[{index}].identity"), pattern)?;
            }
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), BadValue> {
        if self.devices.len() > DEVICES_MAX {
            let problem = format!("{} given: at most {DEVICES_MAX}", self.devices.len());
            return Err(BadValue::new("devices", problem));
        }
        let mut ids = BTreeSet::new();
        for (index, device) in self.devices.iter().enumerate() {
            let key = |field: &str| format!("devices[{index}].{field}");
            check_name(&device.id).map_err(|bad| BadValue::new(key("id"), bad.to_string()))?;
            if !ids.insert(&device.id) {
                let problem = format!("{:?} is given twice", device.id);
                return Err(BadValue::new(key("id"), problem));
            }
            check_labels(&device.labels)
                .map_err(|problem| BadValue::new(key("labels"), problem.to_string()))?;
            device.build(index)?;
        }
        Ok(())
    }
}

impl DeviceSection {
    /// Makes the device. `index` is its place in the list, for errors.
    pub(crate) fn build(&self, index: usize) -> Result<Box<dyn Device>, BadValue> {
        let options = self
            .options
            .iter()
            .map(|(key, value)| (key.clone(), OptionValue::from(value.clone())));
        catalog::build(&self.kind, Options::from_iter(options)).map_err(|source| {
            let key = format!("devices[{index}].{}", source.key());
            BadValue::new(key, source.to_string()).because(source)
        })
    }
}

impl potemkin_service::Settings for HostSettings {
    const ROLE: &'static str = "HOST";
    type Args = NoArgs;

    fn log_mut(&mut self) -> &mut LogSection {
        &mut self.log
    }

    fn validate(&self, base: &Path) -> Result<(), BadValue> {
        self.check()?;
        self.load_tls(base).map(drop)
    }
}

impl From<SettingValue> for OptionValue {
    fn from(value: SettingValue) -> Self {
        match value {
            SettingValue::Boolean(value) => Self::Boolean(value),
            SettingValue::Integer(value) => Self::Integer(value),
            SettingValue::Text(value) => Self::Text(value),
        }
    }
}

fn check_broker_pattern(key: &str, pattern: &str) -> Result<(), BadValue> {
    let sound = pattern.parse::<IdentityPattern>();
    sound.map_err(|error| BadValue::new(key, format!("{pattern:?}: {error}")))?;
    // spiffe://<trust domain>/<role>/<name>
    if pattern.split('/').nth(3) == Some(Role::Broker.as_str()) {
        Ok(())
    } else {
        Err(BadValue::new(
            key,
            format!("{pattern:?} is no broker's identity"),
        ))
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 7641).into()
}

fn default_metrics_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9641).into()
}

fn default_state_dir() -> ConfigPath {
    ConfigPath::from("/var/lib/potemkin-host")
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
