//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use potemkin_service::admin::AfterLoss;
use potemkin_service::config::{LogFormat, parse_duration};
use potemkin_service::selector::Selector;
use potemkin_transport::Role;

use crate::probe::ReadSpec;

#[derive(Debug, Parser)]
#[command(
    name = "potemkin",
    bin_name = "potemkin",
    version,
    about = "Operates Potemkin: devices on other machines that guests see as ordinary PCI functions",
    after_help = "Examples:\n  \
        potemkin certs dev certs\n  \
        potemkin devices --broker 127.0.0.1:7640 --tls-dir certs\n  \
        potemkin attach edu0 --device edu-0 --socket /run/potemkin/edu0.sock --agent /run/potemkin/admin.sock\n  \
        potemkin probe /run/potemkin/edu0.sock --agent /run/potemkin/admin.sock\n\n\
        Settings may stand in ~/.config/potemkin/cli.toml (broker, agent, identity, [tls], [log])\n\
        or in environment variables such as POTEMKIN_CLI__BROKER and POTEMKIN_CLI__TLS__CA."
)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct GlobalArgs {
    /// Configuration file (TOML) [default: ~/.config/potemkin/cli.toml if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Check the configuration, print what it comes to, and exit: 0 if it is good, 2 if not
    #[arg(long)]
    pub(crate) check_config: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// How log lines look [default: text, or as configured]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: a level, or a list of module=level [default: warn, or as configured]
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log_filter: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one JSON document
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make development certificates
    #[command(subcommand)]
    Certs(CertsCommand),
    /// List the devices of the pool
    #[command(
        after_help = "Examples:\n  potemkin devices --broker 127.0.0.1:7640 --tls-dir certs\n  \
        POTEMKIN_BROKER=broker.example:7640 POTEMKIN_TLS_DIR=certs potemkin devices --output json"
    )]
    Devices(BrokerArgs),
    /// List the sessions that a broker routes, or end one
    #[command(
        after_help = "Examples:\n  potemkin sessions --broker 127.0.0.1:7640 --tls-dir certs\n  \
        potemkin sessions end 6fd1c0ffee6fd1c0ffee6fd1c0ffee00 --broker 127.0.0.1:7640 --tls-dir certs"
    )]
    Sessions(SessionsArgs),
    /// Claim a device: the right to it, until released. With an agent's certificate, or with an operator's for an agent
    #[command(
        after_help = "Examples:\n  potemkin claim --for vm7 edu-0 --broker 127.0.0.1:7640 --tls-dir certs\n  \
        potemkin claim --device edu-0 --broker 127.0.0.1:7640 \\\n    --ca certs/ca.pem --cert certs/agent.pem --key certs/agent.key\n  \
        potemkin claim --selector class=edu,zone=a --broker 127.0.0.1:7640 \\\n    --ca certs/ca.pem --cert certs/agent.pem --key certs/agent.key"
    )]
    Claim(ClaimArgs),
    /// Release a claim: ends its session, fences and resets the device. With its agent's certificate or an operator's
    #[command(
        after_help = "Examples:\n  potemkin release 6fd1c0ffee6fd1c0ffee6fd1c0ffee00 --tls-dir certs \\\n      --broker 127.0.0.1:7640"
    )]
    Release(ReleaseArgs),
    /// Have a front agent attach a device and offer it on a vfio-user socket
    #[command(after_help = "Examples:\n  \
        potemkin attach edu0 --device edu-0 --socket /run/potemkin/edu0.sock --agent /run/potemkin/admin.sock\n  \
        potemkin attach any --selector class=edu,zone=a --socket /run/potemkin/edu.sock --agent /run/potemkin/admin.sock")]
    Attach(AttachArgs),
    /// Have a front agent detach a device
    #[command(after_help = "Examples:\n  potemkin detach edu0 --agent /run/potemkin/admin.sock")]
    Detach(DetachArgs),
    /// Show what a front agent has attached, with counters
    #[command(after_help = "Examples:\n  potemkin status --agent /run/potemkin/admin.sock")]
    Status(AgentArgs),
    /// Have a front agent go on in the program that stands where it was started from. Its VMs keep their devices
    #[command(after_help = "Examples:\n  \
        sudo install potemkin-front /usr/bin/ && potemkin upgrade --agent /run/potemkin/admin.sock\n\n\
        The new program is asked first whether it can take over with the agent's configuration; if not, or if anything else fails,\n\
        nothing changes. The process id stays. SIGUSR2 does the same, and tells the agent's log.")]
    Upgrade(AgentArgs),
    /// Act as a guest on a vfio-user socket: enumerate the function, drive it, measure it
    #[command(after_help = "Examples:\n  \
        potemkin probe /run/potemkin/edu0.sock --agent /run/potemkin/admin.sock\n  \
        potemkin probe /tmp/card.sock --read 0:0x10:4 --samples 500\n\n\
        The function must not be in use by a VM; the probe does not reset it. Only an edu device\n\
        (1234:11e8) is driven. Of others configuration space is used, and what --read names is read.")]
    Probe(ProbeArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make a development authority and a certificate for each role
    #[command(
        after_help = "Examples:\n  potemkin certs dev certs\n  potemkin certs dev certs --trust-domain lab.example --force"
    )]
    Dev(CertsDevArgs),
    /// Issue one more certificate from a development authority
    #[command(
        after_help = "Examples:\n  potemkin certs issue certs --role agent --name vm7      (writes agent-vm7.pem and .key)"
    )]
    Issue(CertsIssueArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CertsDevArgs {
    /// The folder to write to; made if need be
    pub(crate) dir: PathBuf,
    /// The trust domain of all identities
    #[arg(long, default_value = potemkin_service::certs::DEV_TRUST_DOMAIN)]
    pub(crate) trust_domain: String,
    /// The name in all identities
    #[arg(long, default_value = potemkin_service::certs::DEV_NAME)]
    pub(crate) name: String,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CertsIssueArgs {
    /// The folder of the authority (ca.pem, ca.key); the certificate is written there too
    pub(crate) dir: PathBuf,
    /// broker, host, agent or operator
    #[arg(long)]
    pub(crate) role: Role,
    /// The name in the identity
    #[arg(long)]
    pub(crate) name: String,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) force: bool,
}

/// How a broker is reached.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct BrokerArgs {
    /// The broker's address
    #[arg(long, value_name = "HOST:PORT", env = "POTEMKIN_BROKER")]
    pub(crate) broker: Option<String>,
    /// The identity to expect of the broker [default: any broker of our own trust domain]
    #[arg(long, value_name = "URI")]
    pub(crate) identity: Option<String>,
    /// Folder with ca.pem, operator.pem and operator.key
    #[arg(long, value_name = "DIR", env = "POTEMKIN_TLS_DIR")]
    pub(crate) tls_dir: Option<PathBuf>,
    /// The authorities to accept the broker by (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Our private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SessionsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<SessionsCommand>,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// End a session, and its claim if that was implicit: fences and resets the device; the agent is told by whom
    #[command(
        after_help = "Examples:\n  potemkin sessions end 6fd1c0ffee6fd1c0ffee6fd1c0ffee00 --tls-dir certs \\\n      --broker 127.0.0.1:7640"
    )]
    End(SessionsEndArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SessionsEndArgs {
    /// The session's id, 32 hexadecimal digits: see `potemkin sessions`
    #[arg(value_name = "SESSION", value_parser = crate::output::parse_id)]
    pub(crate) session: [u8; 16],
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    /// The device's id, as --device
    #[arg(value_name = "DEVICE", group = "TargetArgs")]
    pub(crate) device_id: Option<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// As an operator, claim for this agent: its name in our own trust domain, or its whole identity
    #[arg(long = "for", value_name = "AGENT")]
    pub(crate) agent: Option<String>,
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// Which device.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct TargetArgs {
    /// The device's id
    #[arg(long, value_name = "ID")]
    pub(crate) device: Option<String>,
    /// Any free device with this class and these labels: class=edu,zone=a
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) selector: Option<Selector>,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// The claim's id, 32 hexadecimal digits: see `potemkin devices`
    #[arg(value_name = "CLAIM", value_parser = crate::output::parse_id)]
    pub(crate) claim: [u8; 16],
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// How a front agent is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Front agent")]
pub(crate) struct AgentArgs {
    /// The front agent's admin socket
    #[arg(
        long,
        value_name = "PATH",
        env = "POTEMKIN_AGENT",
        visible_alias = "admin"
    )]
    pub(crate) agent: Option<PathBuf>,
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// What the device is to be called at the agent
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Where the agent creates the vfio-user socket
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// What comes after a lost session: `remove` asks the VMM to unplug the function; `reset` attaches the device again, and the guest finds it
    /// failed until it resets it [default: as the agent is configured]
    #[arg(long, value_name = "POLICY")]
    pub(crate) after_loss: Option<AfterLoss>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// The device's name at the agent
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProbeArgs {
    /// The vfio-user socket of an attached device
    pub(crate) socket: PathBuf,
    /// The device's name at the agent, for its counters [default: the one with this socket]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Accesses of each kind to measure
    #[arg(long, value_name = "COUNT", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) samples: u32,
    /// The longest time for one kind, on slow networks
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) limit: Duration,
    /// Posted writes in a burst
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) burst: u32,
    /// Read this register of a device that is not edu, and measure it; may be repeated. Offset in decimal or 0x..., width 1, 2, 4 or 8
    #[arg(long, value_name = "BAR:OFFSET:WIDTH")]
    pub(crate) read: Vec<ReadSpec>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

#[cfg(test)]
mod tests;
