//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use potemkin_transport::TransportKind;
use serde::Serialize;

use crate::settings::LoopbackSection;

/// Most rounds of one run.
pub(crate) const ROUNDS_MAX: i64 = 10_000;
/// Most reads of one round: a round must end while the idle sessions of the other paths are still alive.
pub(crate) const READS_MAX: i64 = 1_000_000;

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
        # Defaults of one's own: [loopback] with one_cpu, rounds, warm_up, reads\n  \
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
        potemkin-bench loopback --one-cpu --output json")]
pub(crate) struct Loopback {
    /// Pin all processes to one CPU, the first that this one may use: repeats within about 10%, where a free placement swings
    /// with each wake-up on another CPU
    #[arg(long)]
    pub(crate) one_cpu: bool,
    /// Rounds that count
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=ROUNDS_MAX))]
    pub(crate) rounds: u32,
    /// Rounds before those, which do not count
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=ROUNDS_MAX))]
    pub(crate) warm_up: u32,
    /// Reads of each path in a round
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=READS_MAX))]
    pub(crate) reads: u32,
    /// What the agent's leg to the broker runs on
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", default_values_t = [Transport::Quic, Transport::Grpc])]
    pub(crate) transport: Vec<Transport>,
    /// What the broker's leg to the host runs on
    #[arg(long, value_enum, value_name = "TRANSPORT", default_value_t = HostTransport::Same)]
    pub(crate) host_transport: HostTransport,
    /// Who reads
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST", default_values_t = [Client::Library, Client::Vfio])]
    pub(crate) path: Vec<Client>,
    /// How results are printed
    #[arg(long, short, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Keep the processes' logs and say where they are
    #[arg(long)]
    pub(crate) keep_logs: bool,
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
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
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
        }
    }
}

impl Loopback {
    /// Takes from the configuration what the command line (`given`: the subcommand's matches) left out.
    pub(crate) fn completed(mut self, section: &LoopbackSection, given: &ArgMatches) -> Self {
        let left_out = |id| given.value_source(id) != Some(ValueSource::CommandLine);
        if left_out("one_cpu") {
            self.one_cpu = section.one_cpu;
        }
        for (id, argument, configured) in [
            ("rounds", &mut self.rounds, section.rounds),
            ("warm_up", &mut self.warm_up, section.warm_up),
            ("reads", &mut self.reads, section.reads),
        ] {
            if left_out(id) {
                *argument = configured;
            }
        }
        self
    }

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
        assert_eq!(args.output, Format::Table);
        assert!(!args.one_cpu && !args.keep_logs);
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
}
