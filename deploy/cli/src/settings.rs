//! The tool's own settings, under what the command line says.

use std::path::{Path, PathBuf};

use potemkin_service::config::{
    self, BadValue, ConfigError, ConfigPath, Loaded, LogSection, TlsSection,
};
use potemkin_service::telemetry;
use potemkin_transport::{IdentityError, IdentityPattern, Role, TlsMaterial};
use serde::{Deserialize, Serialize};

use crate::args::{AgentArgs, BrokerArgs, LogArgs};
use crate::error::CliError;
use crate::output::Output;

/// The name in environment variables, as in `POTEMKIN_CLI__BROKER`.
const ROLE: &str = "CLI";

/// `cli.toml`. Every key may be missing: the command line can say it all.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CliSettings {
    /// The broker's address, `HOST:PORT`.
    pub(crate) broker: Option<String>,
    /// The identity to expect of the broker.
    pub(crate) identity: Option<String>,
    /// The front agent's admin socket.
    pub(crate) agent: Option<ConfigPath>,
    /// The operator's certificate.
    pub(crate) tls: Option<TlsSection>,
    pub(crate) log: LogSection,
}

impl Default for CliSettings {
    fn default() -> Self {
        Self {
            broker: None,
            identity: None,
            agent: None,
            tls: None,
            log: LogSection {
                // A tool for people: its results are on standard output.
                filter: "warn".to_owned(),
                ..LogSection::default()
            },
        }
    }
}

/// Whose certificates the tool may act with: what the broker lets each of them see and do differs.
const ROLES: [Role; 3] = [Role::Operator, Role::Agent, Role::Host];

/// Loads the file given, or the one in its usual place if it exists, and starts logging.
pub(crate) fn load(file: Option<&Path>, log: &LogArgs) -> Result<Loaded<CliSettings>, CliError> {
    let usual = usual_file().filter(|usual| file.is_none() && usual.exists());
    let mut loaded = config::load::<CliSettings>(ROLE, file.or(usual.as_deref()))?;
    let settings = &mut loaded.settings;
    if let Some(format) = log.log_format {
        settings.log.format = format;
    }
    if let Some(filter) = &log.log_filter {
        settings.log.filter.clone_from(filter);
    }
    telemetry::init(&settings.log).map_err(|bad| match log.log_filter {
        Some(_) => ConfigError::in_argument("--log-filter", bad),
        None => loaded.places.blame(bad),
    })?;
    Ok(loaded)
}

fn usual_file() -> Option<PathBuf> {
    let folder = match std::env::var_os("XDG_CONFIG_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".config"),
    };
    Some(folder.join("potemkin/cli.toml"))
}

/// `--check-config`: what is set must be usable.
pub(crate) fn check(loaded: &Loaded<CliSettings>, output: Output) -> Result<(), CliError> {
    loaded.check(|settings, base| {
        if let Some(identity) = &settings.identity {
            configured_identity(identity)?;
        }
        if let Some(tls) = &settings.tls {
            tls.load(base, &ROLES)?;
        }
        Ok(())
    })?;
    output.print(&loaded.settings, |settings| {
        let summary = serde_json::to_value(settings).unwrap_or_default();
        let mut text = "configuration OK\n".to_owned();
        flatten("", &summary, &mut text);
        text
    })
}

/// One line `section.key = value` for each value.
fn flatten(prefix: &str, value: &serde_json::Value, text: &mut String) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, text);
            }
        }
        serde_json::Value::Null => {}
        value => text.push_str(&format!("\n{prefix} = {value}")),
    }
}

/// How a broker is reached, from the command line or else the settings.
#[derive(Debug)]
pub(crate) struct BrokerAccess {
    pub(crate) address: String,
    pub(crate) tls: TlsMaterial,
    pub(crate) expect: IdentityPattern,
    pub(crate) timeout: std::time::Duration,
}

impl BrokerAccess {
    pub(crate) fn new(args: BrokerArgs, loaded: &Loaded<CliSettings>) -> Result<Self, CliError> {
        let settings = &loaded.settings;
        let address = args
            .broker
            .clone()
            .or_else(|| settings.broker.clone())
            .ok_or_else(|| {
                CliError::usage(
                    "which broker? pass --broker HOST:PORT, or set POTEMKIN_BROKER or `broker` in cli.toml",
                )
            })?;
        let tls = load_tls(&args, loaded)?;
        let expect = match (&args.identity, &settings.identity) {
            (Some(text), _) => parse_identity(text)?,
            (None, Some(text)) => loaded.check(|_, _| configured_identity(text))?,
            (None, None) => IdentityPattern::same_domain(tls.identity(), Role::Broker),
        };
        Ok(Self {
            address,
            tls,
            expect,
            timeout: args.timeout,
        })
    }
}

impl BrokerArgs {
    fn names_files(&self) -> bool {
        self.tls_dir.is_some() || self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }
}

fn load_tls(args: &BrokerArgs, loaded: &Loaded<CliSettings>) -> Result<TlsMaterial, CliError> {
    if args.names_files() {
        return tls_files(args)?
            .load(Path::new("."), &ROLES)
            .map_err(CliError::Tls);
    }
    let Some(tls) = &loaded.settings.tls else {
        return Err(CliError::usage(
            "which certificates? pass --tls-dir DIR (`potemkin certs dev DIR` makes it), or set POTEMKIN_TLS_DIR or \
             [tls] in cli.toml",
        ));
    };
    Ok(loaded.check(|_, base| tls.load(base, &ROLES))?)
}

fn tls_files(args: &BrokerArgs) -> Result<TlsSection, CliError> {
    let pick = |file: &Option<PathBuf>, name: &str, option: &str| {
        let in_dir = args.tls_dir.as_ref().map(|dir| dir.join(name));
        file.clone()
            .or(in_dir)
            .map(ConfigPath::from)
            .ok_or_else(|| {
                CliError::usage(format!(
                    "--ca, --cert and --key go together: {option} is missing"
                ))
            })
    };
    Ok(TlsSection {
        ca: pick(&args.ca, "ca.pem", "--ca")?,
        cert: pick(&args.cert, "operator.pem", "--cert")?,
        key: pick(&args.key, "operator.key", "--key")?,
    })
}

fn configured_identity(text: &str) -> Result<IdentityPattern, BadValue> {
    text.parse()
        .map_err(|error: IdentityError| BadValue::new("identity", format!("{text:?}: {error}")))
}

fn parse_identity(text: &str) -> Result<IdentityPattern, CliError> {
    text.parse().map_err(|source| CliError::Identity {
        text: text.to_owned(),
        source,
    })
}

/// The admin socket, from the command line or else the settings.
pub(crate) fn agent_path(
    args: &AgentArgs,
    loaded: &Loaded<CliSettings>,
) -> Result<PathBuf, CliError> {
    find_agent_path(args, loaded).ok_or_else(|| {
        CliError::usage(
            "which front agent? pass --agent PATH (its admin socket), or set POTEMKIN_AGENT or `agent` in cli.toml",
        )
    })
}

/// As [`agent_path`], for commands that can do without.
pub(crate) fn find_agent_path(args: &AgentArgs, loaded: &Loaded<CliSettings>) -> Option<PathBuf> {
    let agent = loaded.settings.agent.as_ref();
    let configured = || agent.map(|path| path.resolve(&loaded.base));
    args.agent.clone().or_else(configured)
}

#[cfg(test)]
mod tests;
