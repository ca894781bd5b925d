//! A way of an access that is measured, and its figures.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::args::{Client, Transport};
use crate::error::BenchError;
use crate::probe::{BURST_WRITES, Burst, CONFIG_READS, Probe, SUSTAINED_WRITES};
use crate::stats::Series;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Way {
    /// Plain blocking TCP through a relay: what the others are compared with.
    Relay,
    /// Plain blocking TCP.
    Tcp,
    /// A blocking UNIX socket.
    Unix,
    /// Through Potemkin's broker to a device.
    Potemkin {
        client: Client,
        /// The agent's leg to the broker.
        transport: Transport,
        /// The broker's leg to the host.
        host_transport: Transport,
    },
}

/// A way and what was measured on it.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) way: Way,
    pub(crate) reads: Series,
    pub(crate) writes: Writes,
    /// Taken away when all is measured: the figures outlive the processes.
    probe: Option<Box<dyn Probe>>,
}

/// The figures of posted writes and local accesses, one from each round. Empty: not measured on this path.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) bursts: Vec<Burst>,
    /// Nanoseconds for each write.
    pub(crate) sustained_ns: Vec<f64>,
    /// Nanoseconds for each config read.
    pub(crate) config_read_ns: Vec<f64>,
}

impl Path {
    pub(crate) fn new(way: Way, probe: impl Probe + 'static) -> Self {
        Self {
            way,
            reads: Series::new(),
            writes: Writes::default(),
            probe: Some(Box::new(probe)),
        }
    }

    /// Runs one round; its figures are kept if it `counts`.
    pub(crate) fn run_round(&mut self, reads: u32, counts: bool) -> Result<(), BenchError> {
        let Some(probe) = self.probe.as_deref_mut() else {
            return Ok(());
        };
        let latencies = probe.read_round(reads)?;
        if counts {
            self.reads.add_round(&latencies);
        }
        let Some(writer) = probe.writer() else {
            return Ok(());
        };
        let burst = writer.burst()?;
        let sustained = writer.sustained()?;
        let config_reads = writer.config_reads()?;
        if counts {
            self.writes.bursts.push(burst);
            self.writes
                .sustained_ns
                .push(each_ns(sustained, SUSTAINED_WRITES));
            self.writes
                .config_read_ns
                .push(each_ns(config_reads, CONFIG_READS));
        }
        Ok(())
    }

    /// Lets the probe go.
    pub(crate) fn end(&mut self) {
        self.probe = None;
    }
}

impl Writes {
    /// Nanoseconds to issue one write of a burst, for each round.
    pub(crate) fn issue_ns(&self) -> Vec<f64> {
        let each = self.bursts.iter();
        each.map(|burst| each_ns(burst.issued, BURST_WRITES))
            .collect()
    }
}

fn each_ns(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(count)
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay => f.pad("plain TCP relay"),
            Self::Tcp => f.pad("TCP"),
            Self::Unix => f.pad("UNIX socket"),
            Self::Potemkin {
                client,
                transport,
                host_transport,
            } => {
                let (client, first) = (client.as_str(), transport.as_str());
                if transport == host_transport {
                    return f.pad(&format!("{first} {client}"));
                }
                f.pad(&format!("{first}>{} {client}", host_transport.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::stats::Latencies;

    #[derive(Debug)]
    struct Fixed(Duration);

    impl Probe for Fixed {
        fn read_round(&mut self, reads: u32) -> Result<Latencies, BenchError> {
            let mut latencies = Latencies::new();
            for _ in 0..reads {
                latencies.record(self.0);
            }
            Ok(latencies)
        }
    }

    #[test]
    fn rounds_that_do_not_count_leave_no_figures() {
        let mut path = Path::new(Way::Relay, Fixed(Duration::from_micros(3)));

        path.run_round(10, false).unwrap();
        path.run_round(20, true).unwrap();

        assert_eq!(path.reads.summary().count, 20);
        assert!(path.writes.bursts.is_empty());
    }

    #[test]
    fn way_names_both_transports_only_if_they_differ() {
        let way = |transport, host_transport| Way::Potemkin {
            client: Client::Vfio,
            transport,
            host_transport,
        };

        assert_eq!(
            way(Transport::Quic, Transport::Quic).to_string(),
            "quic vfio"
        );
        assert_eq!(
            way(Transport::Grpc, Transport::Quic).to_string(),
            "grpc>quic vfio"
        );
    }
}
