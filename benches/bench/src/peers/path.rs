//! A server with a client, or the yardstick, and its figures.

use std::fmt;
use std::os::unix::net::UnixStream;

use serde::Serialize;

use super::bounded::BoundedGuest;
use super::guest::POSTED_WRITES;
use crate::error::BenchError;
use crate::probe::Probe as _;
use crate::stats::Series;
use crate::yardstick::Echo;

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum ServerKind {
    #[serde(rename = "potemkin-vfio-server")]
    Potemkin,
    #[serde(rename = "vfio_user")]
    Crate,
    #[serde(rename = "libvfio-user")]
    LibvfioUser,
}

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum GuestKind {
    #[serde(rename = "potemkin-vfio-user")]
    Potemkin,
    #[serde(rename = "vfio_user")]
    Crate,
}

/// Who answers whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum PeerWay {
    /// What others are compared with: our server, our client.
    VfioUser {
        server: ServerKind,
        client: GuestKind,
    },
    /// The yardstick.
    Unix,
}

/// A way and what was measured on it.
#[derive(Debug)]
pub(crate) struct PeerPath {
    pub(crate) way: PeerWay,
    /// Of the yardstick: messages there and back.
    pub(crate) reads: Series,
    pub(crate) writes: Series,
    pub(crate) config_reads: Series,
    /// Nanoseconds for each write without a reply, one figure from each round.
    pub(crate) posted_ns: Vec<f64>,
    probe: Probe,
}

#[derive(Debug)]
pub(super) enum Probe {
    Unix(Echo<UnixStream>),
    Guest(BoundedGuest),
    #[cfg(test)]
    Nobody,
}

impl PeerPath {
    pub(super) fn new(way: PeerWay, probe: Probe) -> Self {
        Self {
            way,
            reads: Series::new(),
            writes: Series::new(),
            config_reads: Series::new(),
            posted_ns: Vec::new(),
            probe,
        }
    }

    /// One that has figures and nobody behind it.
    #[cfg(test)]
    pub(crate) fn of_figures(way: PeerWay) -> Self {
        Self::new(way, Probe::Nobody)
    }

    /// Runs one round; its figures are kept if it `counts`.
    pub(super) fn run_round(&mut self, accesses: u32, counts: bool) -> Result<(), BenchError> {
        match &mut self.probe {
            Probe::Unix(echo) => {
                let latencies = echo.read_round(accesses)?;
                if counts {
                    self.reads.add_round(&latencies);
                }
            }
            Probe::Guest(guest) => {
                let round = guest.round(accesses)?;
                if counts {
                    self.reads.add_round(&round.reads);
                    self.writes.add_round(&round.writes);
                    self.config_reads.add_round(&round.config_reads);
                    let each = |time: std::time::Duration| {
                        time.as_secs_f64() * 1e9 / f64::from(POSTED_WRITES)
                    };
                    self.posted_ns.extend(round.posted.map(each));
                }
            }
            #[cfg(test)]
            Probe::Nobody => {}
        }
        Ok(())
    }
}

impl ServerKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Potemkin => "potemkin-vfio-server",
            Self::Crate => "vfio_user",
            Self::LibvfioUser => "libvfio-user",
        }
    }
}

impl GuestKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Potemkin => "potemkin",
            Self::Crate => "vfio_user",
        }
    }
}

impl fmt::Display for PeerWay {
    /// The server, and the client in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VfioUser { server, client } => {
                write!(f, "{} ({})", server.as_str(), client.as_str())
            }
            Self::Unix => f.pad("UNIX socket"),
        }
    }
}
