//! The agent's configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use potemkin_front_core::{
    AfterLoss, BrokerAddress, DEFAULT_DEADLINE, DEFAULT_IDLE_TIMEOUT, DEFAULT_KEEP_ALIVE,
    DEFAULT_RESUME_WINDOW, MAX_BROKERS, RemoteOptions,
};
use potemkin_service::{
    Settings,
    admin::AfterLoss as AfterLossSetting,
    config::{BadValue, ConfigPath, HumanDuration, LogSection, TlsSection, check_socket},
};
use potemkin_transport::{
    DialOptions, IdentityError, IdentityPattern, Role, TlsMaterial, TransportKind, UnknownTransport,
};
use serde::{Deserialize, Serialize};

use crate::checks::{self, MAX_DEVICES};

/// `potemkin-front`'s configuration file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrontSettings {
    /// UNIX socket for `potemkin attach`, `detach` and `status`.
    pub admin_socket: ConfigPath,
    /// Group (its number) whose members may use the sockets that the agent makes, which have mode 0660 then; without, they have 0600.
    pub socket_group: Option<u32>,
    /// The brokers.
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
    /// Only say which agents this program can take over from.
    #[serde(skip)]
    pub(crate) upgrade_check: bool,
}

/// Arguments of `potemkin-front`'s own.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct FrontArgs {
    /// Check the configuration, print which running agents this program can take over from, and exit; an agent that is to be upgraded asks
    /// this of the program that is to take its place
    #[arg(long)]
    upgrade_check: bool,
}

/// `[broker]`: where it is, or they are, and who it must be.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerSection {
    /// `host:port`: TCP for the control plane and gRPC, UDP for QUIC. Neither this nor `addrs`: 127.0.0.1:7640.
    pub addr: Option<String>,
    /// In place of `addr`, the brokers of a pool that has several, the preferred one first: a device is attached through the first that
    /// grants it, and a session whose path is lost goes on through any.
    pub addrs: Vec<String>,
    /// The identity of each; none: any broker of our own trust domain.
    pub identity: Option<String>,
    /// What the session's leg to the broker runs on: `quic` or `grpc`. When a path is lost, the other is tried too.
    pub transport: String,
}

/// `[session]`: limits of the data path.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSection {
    /// How long an access may stay unanswered; then reads give all-ones and writes are dropped. 50 ms to 4 s: QEMU gives up
    /// after 5 s.
    pub deadline: HumanDuration,
    /// How long another path is looked for when one is lost and no access waits for it; `0s`: a session ends with its path.
    pub resume_window: HumanDuration,
    /// What comes after a session that is lost: `remove` (the VMM is asked to unplug the function) or `reset` (the device is attached again, and
    /// the guest finds it failed until it resets it).
    pub after_loss: AfterLossSetting,
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
    /// As `session.after_loss`, for this device.
    #[serde(default)]
    pub after_loss: Option<AfterLossSetting>,
}

impl Default for FrontSettings {
    fn default() -> Self {
        Self {
            admin_socket: ConfigPath::from("/run/potemkin/admin.sock"),
            socket_group: None,
            broker: BrokerSection::default(),
            tls: None,
            session: SessionSection::default(),
            metrics_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9642),
            devices: Vec::new(),
            log: LogSection::default(),
            upgrade_check: false,
        }
    }
}

impl Default for BrokerSection {
    fn default() -> Self {
        Self {
            addr: None,
            addrs: Vec::new(),
            identity: None,
            transport: TransportKind::Quic.to_string(),
        }
    }
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            deadline: HumanDuration::from(DEFAULT_DEADLINE),
            resume_window: HumanDuration::from(DEFAULT_RESUME_WINDOW),
            after_loss: AfterLossSetting::default(),
            keep_alive: HumanDuration::from(DEFAULT_KEEP_ALIVE),
            idle_timeout: HumanDuration::from(DEFAULT_IDLE_TIMEOUT),
        }
    }
}

/// Deadlines that are allowed.
const DEADLINE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_secs(4);

/// Longest search for another path.
const RESUME_WINDOW_MAX: Duration = Duration::from_secs(600);

/// Where a broker is if nothing is said.
const DEFAULT_BROKER: &str = "127.0.0.1:7640";

impl Settings for FrontSettings {
    const ROLE: &'static str = "FRONT";
    type Args = FrontArgs;

    fn log_mut(&mut self) -> &mut LogSection {
        &mut self.log
    }

    fn apply(&mut self, args: FrontArgs) {
        self.upgrade_check = args.upgrade_check;
    }

    fn validate(&self, base: &Path) -> Result<(), BadValue> {
        self.remote_options(base)?;
        self.check_devices()?;
        self.check_sockets(base)
    }
}

impl FrontSettings {
    /// What the data path needs, checked.
    pub(crate) fn remote_options(&self, base: &Path) -> Result<RemoteOptions, BadValue> {
        let tls = self.load_tls(base)?;
        let identity = match &self.broker.identity {
            Some(pattern) => pattern
                .parse()
                .map_err(|e: IdentityError| BadValue::new("broker.identity", e.to_string()))?,
            None => IdentityPattern::same_domain(tls.identity(), Role::Broker),
        };
        let transport = self
            .broker
            .transport
            .parse()
            .map_err(|e: UnknownTransport| BadValue::new("broker.transport", e.to_string()))?;
        let brokers = self.broker.addresses()?;
        let brokers = brokers.into_iter().map(|address| BrokerAddress {
            address,
            identity: identity.clone(),
        });
        let deadline = Duration::from(self.session.deadline);
        if !DEADLINE.contains(&deadline) {
            let problem = format!("{deadline:?} is not within 50ms to 4s");
            return Err(BadValue::new("session.deadline", problem));
        }
        let resume_window = Duration::from(self.session.resume_window);
        if resume_window > RESUME_WINDOW_MAX {
            let problem = format!("{resume_window:?} is longer than {RESUME_WINDOW_MAX:?}");
            return Err(BadValue::new("session.resume_window", problem));
        }
        Ok(RemoteOptions {
            tls,
            brokers: brokers.collect(),
            transport,
            deadline,
            resume_window,
            after_loss: after_loss(self.session.after_loss),
            dial: self.dial_options()?,
            version_max: potemkin_session::VERSION,
        })
    }

    /// Certificates and key, which must be an agent's.
    fn load_tls(&self, base: &Path) -> Result<TlsMaterial, BadValue> {
        let missing =
            "missing: give `ca`, `cert` and `key` (potemkin certs dev DIR makes some for a trial)";
        let tls = self.tls.as_ref();
        tls.ok_or_else(|| BadValue::new("tls", missing))?
            .load(base, &[Role::Agent])
    }

    fn dial_options(&self) -> Result<DialOptions, BadValue> {
        let keep_alive = Duration::from(self.session.keep_alive);
        let idle_timeout = Duration::from(self.session.idle_timeout);
        if keep_alive >= idle_timeout {
            let problem =
                format!("{idle_timeout:?} must be longer than session.keep_alive ({keep_alive:?})");
            return Err(BadValue::new("session.idle_timeout", problem));
        }
        Ok(DialOptions {
            keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
            idle_timeout,
            ..DialOptions::default()
        })
    }

    fn check_devices(&self) -> Result<(), BadValue> {
        if self.devices.len() > MAX_DEVICES {
            let problem = format!("{} given: at most {MAX_DEVICES}", self.devices.len());
            return Err(BadValue::new("devices", problem));
        }
        let mut names = BTreeSet::new();
        for (index, device) in self.devices.iter().enumerate() {
            let bad = |problem| BadValue::new(format!("devices[{index}].name"), problem);
            checks::check_name(&device.name).map_err(bad)?;
            if !names.insert(&device.name) {
                return Err(bad(format!("`{}` is given twice", device.name)));
            }
            checks::target(device.device.as_deref(), device.selector.as_deref())
                .map_err(|problem| BadValue::new(device.target_key(index), problem))?;
        }
        Ok(())
    }

    /// Each must be possible, and have a path of its own.
    fn check_sockets(&self, base: &Path) -> Result<(), BadValue> {
        let admin = ("admin_socket".to_owned(), &self.admin_socket);
        let devices = self.devices.iter().enumerate();
        let devices = devices.map(|(index, d)| (format!("devices[{index}].socket"), &d.socket));
        let mut taken = BTreeMap::new();
        for (key, written) in iter::once(admin).chain(devices) {
            let path = absolute(written, base);
            check_socket(&key, &path)?;
            if let Some(other) = taken.insert(path.clone(), key.clone()) {
                let problem = format!("{} is given as {other} already", path.display());
                return Err(BadValue::new(key, problem));
            }
        }
        Ok(())
    }
}

impl BrokerSection {
    /// All brokers, the preferred one first.
    fn addresses(&self) -> Result<Vec<String>, BadValue> {
        let all = &self.addrs;
        if all.is_empty() {
            let only = self.addr.as_deref().unwrap_or(DEFAULT_BROKER);
            check_host_port("broker.addr", only)?;
            return Ok(vec![only.to_owned()]);
        }
        if self.addr.is_some() {
            let problem = "give either `addr`, of one broker, or `addrs`, of several";
            return Err(BadValue::new("broker.addrs", problem));
        }
        if all.len() > MAX_BROKERS {
            let problem = format!("{} given: at most {MAX_BROKERS}", all.len());
            return Err(BadValue::new("broker.addrs", problem));
        }
        for (index, address) in all.iter().enumerate() {
            let key = format!("broker.addrs[{index}]");
            check_host_port(&key, address)?;
            if all[..index].contains(address) {
                return Err(BadValue::new(key, format!("{address} is given twice")));
            }
        }
        Ok(all.clone())
    }
}

impl DeviceSection {
    /// The key to blame for which device it is.
    fn target_key(&self, index: usize) -> String {
        match (&self.device, &self.selector) {
            (Some(_), None) => format!("devices[{index}].device"),
            (None, Some(_)) => format!("devices[{index}].selector"),
            _ => format!("devices[{index}]"),
        }
    }
}

/// The policy that the settings and the admin socket name.
pub(crate) fn after_loss(setting: AfterLossSetting) -> AfterLoss {
    match setting {
        AfterLossSetting::Remove => AfterLoss::Remove,
        AfterLossSetting::Reset => AfterLoss::Reset,
    }
}

/// What settings and the admin socket call the policy.
pub(crate) fn after_loss_name(policy: AfterLoss) -> AfterLossSetting {
    match policy {
        AfterLoss::Remove => AfterLossSetting::Remove,
        AfterLoss::Reset => AfterLossSetting::Reset,
    }
}

/// Where a socket is, whatever folder is current later.
pub(crate) fn absolute(written: &ConfigPath, base: &Path) -> PathBuf {
    let path = written.resolve(base);
    // It fails for an empty path and in a folder that was removed: then the path is refused as it is.
    std::path::absolute(&path).unwrap_or(path)
}

fn check_host_port(key: &str, text: &str) -> Result<(), BadValue> {
    let port = text
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    match port {
        Some(1_u16..) => Ok(()),
        _ => Err(BadValue::new(
            key,
            format!("`{text}` is not of the form host:port"),
        )),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
