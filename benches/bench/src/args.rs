//! The command line.

mod peers;
mod run;
mod simulate;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use potemkin_transport::TransportKind;
use serde::Serialize;

pub(crate) use peers::Peers;
pub(crate) use run::{Format, READS_MAX, ROUNDS_MAX, Run};
pub(crate) use simulate::Simulate;

#[derive(Debug, Parser)]
#[command(
    name = "potemkin-bench",
    bin_name = "potemkin-bench",
    version,
    about = "Measures Potemkin against yardsticks that run beside it",
    after_help = "Examples:\n  \
        # What a register read costs, on both transports, all processes pinned to one CPU\n  \
        potemkin-bench loopback --one-cpu\n\n  \
        # One transport, the guest's side of the vfio-user socket only, more samples\n  \
        potemkin-bench loopback --transport quic --path vfio --rounds 40 --reads 5000\n\n  \
        # All figures for a program\n  \
        potemkin-bench loopback --one-cpu --output json > loopback.json\n\n  \
        # Our vfio-user server and those of others, on one machine\n  \
        potemkin-bench peers --one-cpu\n\n  \
        # The session core under faults: any number of seeds, checked by an oracle\n  \
        potemkin-bench simulate --seeds 10000\n\n  \
        # Defaults of one's own: [loopback] and [peers] with one_cpu, rounds, warm_up, reads\n  \
        potemkin-bench --config bench.toml loopback",
    arg_required_else_help = true
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Configuration file (TOML): defaults for what the command line leaves out
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the configuration, print what it comes to, and exit: 0 if it is good, 2 if not
    #[arg(long)]
    pub(crate) check_config: bool,
}

impl CommandLine {
    /// Reads the arguments, and says which of a subcommand's were really there.
    pub(crate) fn parse_args(
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<(Self, ArgMatches), clap::Error> {
        let matches = Self::command().try_get_matches_from(args)?;
        let line = Self::from_arg_matches(&matches)?;
        Ok((line, matches))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read latency through broker and host on this machine, beside a plain TCP relay
    Loopback(Loopback),
    /// Our vfio-user server beside other implementations, on this machine only
    Peers(Peers),
    /// Sessions under faults, simulated: every access followed by an oracle
    Simulate(Simulate),
    /// One of the processes that a measurement starts
    #[command(hide = true)]
    Role(Role),
}

/// Starts broker, device host, front agents and yardsticks as processes of their own on the loopback device, and measures all
/// paths in turn: each round runs every path once, so that what drifts on the machine drifts for all of them.
///
/// Every Potemkin path has mutual TLS on each leg. The yardstick is a relay with two blocking threads over plain
/// TCP: 32 bytes there, 32 back. `ratio` is the median over the rounds of a path's median divided by the relay's median in the
/// same round.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:\n  \
        potemkin-bench loopback --one-cpu\n  \
        potemkin-bench loopback --transport grpc --host-transport quic --path library\n  \
        potemkin-bench loopback --one-cpu --path library,library-v1\n  \
        potemkin-bench loopback --one-cpu --output json")]
pub(crate) struct Loopback {
    #[command(flatten)]
    pub(crate) run: Run,
    /// What the agent's leg to the broker runs on
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", default_values_t = [Transport::Quic, Transport::Grpc])]
    pub(crate) transport: Vec<Transport>,
    /// What the broker's leg to the host runs on
    #[arg(long, value_enum, value_name = "TRANSPORT", default_value_t = HostTransport::Same)]
    pub(crate) host_transport: HostTransport,
    /// Who reads
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", default_values_t = [Client::Library, Client::Vfio])]
    pub(crate) path: Vec<Client>,
}

/// What a leg runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    Quic,
    Grpc,
}

/// What the broker's leg to the host runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HostTransport {
    /// As the agent's leg
    Same,
    Quic,
    Grpc,
}

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Client {
    /// The front library: the thread that reads drives the session, too
    Library,
    /// A vfio-user client of a front agent's socket
    Vfio,
    /// The front library's blocking calls: another thread drives the session
    Vcpu,
    /// As library, in protocol version 1: sessions that end with their path. Beside library it shows what exactly-once costs
    LibraryV1,
}

/// `potemkin-bench role NAME ...`: the rest is the role's own command line.
#[derive(Debug, Args)]
pub(crate) struct Role {
    #[arg(value_enum)]
    pub(crate) name: RoleName,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<OsString>,
}

/// Which process this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    Broker,
    Host,
    Front,
    Echo,
    Relay,
    /// A vfio-user server: ours.
    Vfio,
    /// A vfio-user server: the crate's `vfio_user`.
    VfioCrate,
}

impl RoleName {
    /// As on the command line, and the stem of the process's files.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Host => "host",
            Self::Front => "front",
            Self::Echo => "echo",
            Self::Relay => "relay",
            Self::Vfio => "vfio",
            Self::VfioCrate => "vfio-crate",
        }
    }
}

impl Transport {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Grpc => "grpc",
        }
    }

    pub(crate) fn kind(self) -> TransportKind {
        match self {
            Self::Quic => TransportKind::Quic,
            Self::Grpc => TransportKind::Grpc,
        }
    }
}

impl HostTransport {
    /// What the host's leg runs on when the agent's runs on `agent`.
    pub(crate) fn beside(self, agent: Transport) -> Transport {
        match self {
            Self::Same => agent,
            Self::Quic => Transport::Quic,
            Self::Grpc => Transport::Grpc,
        }
    }
}

impl Client {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Vfio => "vfio",
            Self::Vcpu => "vcpu",
            Self::LibraryV1 => "library-v1",
        }
    }
}

impl Loopback {
    /// Drops what was named twice: a path is measured once.
    pub(crate) fn deduplicated(mut self) -> Self {
        self.transport = unique(self.transport);
        self.path = unique(self.path);
        self
    }
}

fn unique<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(args: &[&str]) -> Result<Command, clap::Error> {
        let args = std::iter::once("potemkin-bench").chain(args.iter().copied());
        CommandLine::try_parse_from(args).map(|line| line.command.unwrap())
    }

    fn loopback(args: &[&str]) -> Loopback {
        let args: Vec<_> = std::iter::once("loopback")
            .chain(args.iter().copied())
            .collect();
        match parse(&args).unwrap() {
            Command::Loopback(args) => args.deduplicated(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_loopback_measures_both_transports_and_both_paths() {
        let args = loopback(&[]);

        assert_eq!(args.transport, [Transport::Quic, Transport::Grpc]);
        assert_eq!(args.path, [Client::Library, Client::Vfio]);
        assert_eq!(args.host_transport, HostTransport::Same);
        assert_eq!(args.run.output, Format::Table);
        assert!(!args.run.one_cpu && !args.run.keep_logs);
    }

    #[test]
    fn lists_are_separated_by_commas_and_named_once() {
        let args = loopback(&["--transport", "grpc,quic,grpc", "--path", "vcpu"]);

        assert_eq!(args.transport, [Transport::Grpc, Transport::Quic]);
        assert_eq!(args.path, [Client::Vcpu]);
    }

    #[test]
    fn host_transport_is_the_agents_unless_named() {
        assert_eq!(HostTransport::Same.beside(Transport::Grpc), Transport::Grpc);
        assert_eq!(HostTransport::Quic.beside(Transport::Grpc), Transport::Quic);
    }

    #[test]
    fn counts_out_of_range_are_refused() {
        for args in [
            ["loopback", "--rounds", "0"],
            ["loopback", "--rounds", "10001"],
            ["loopback", "--reads", "0"],
            ["loopback", "--reads", "1000001"],
            ["loopback", "--reads", "many"],
            ["peers", "--rounds", "0"],
        ] {
            assert!(parse(&args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn unknown_transport_is_refused_with_the_known_ones() {
        let error = parse(&["loopback", "--transport", "tcp"]).unwrap_err();

        let text = error.to_string();
        assert!(
            text.contains("tcp") && text.contains("quic, grpc"),
            "{text}"
        );
    }

    #[test]
    fn role_keeps_the_rest_of_the_line_as_it_is() {
        let command = parse(&["role", "broker", "--config", "x.toml", "--help"]).unwrap();

        let Command::Role(role) = command else {
            panic!("{command:?}");
        };
        assert_eq!(role.name, RoleName::Broker);
        assert_eq!(role.args, ["--config", "x.toml", "--help"]);
    }

    #[test]
    fn help_shows_examples_and_hides_roles() {
        let help = parse(&["--help"]).unwrap_err().to_string();

        assert!(help.contains("potemkin-bench loopback --one-cpu"), "{help}");
        assert!(!help.contains("role"), "{help}");
    }

    #[test]
    fn help_of_peers_says_which_server_of_libvfio_user_and_how_to_build_it() {
        let help = parse(&["peers", "--help"]).unwrap_err().to_string();

        for needle in [
            "potemkin-bench peers --one-cpu",
            "gpio-pci-idio-16",
            "meson setup",
        ] {
            assert!(help.contains(needle), "{help}");
        }
    }
}
