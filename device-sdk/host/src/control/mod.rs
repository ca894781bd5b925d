//! The control plane: one task per broker keeps this host registered there and obeys its fences.

mod backoff;
mod fence;
mod hello;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use potemkin_service::Shutdown;
use potemkin_session::ids::Incarnation;
use potemkin_transport::{
    DialOptions, IdentityPattern, TlsMaterial, TransportError, control_channel, lost_connection,
    status_words,
};
use tokio::net::lookup_host;
use tokio::sync::broadcast;

use crate::live::LiveSessions;
use crate::meters::Meters;
use crate::pool::Pool;
use crate::session::Report;
use crate::state::StateDir;

use backoff::Backoff;

/// A registration that lasted this long was a good one: the next attempt after it comes soon.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What the tasks of all brokers share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) pool: Arc<Pool>,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: Arc<Mutex<StateDir>>,
    pub(crate) reports: broadcast::Sender<Report>,
    pub(crate) live: Arc<LiveSessions>,
    pub(crate) meters: Meters,
    pub(crate) tls: TlsMaterial,
    /// Where the data plane is bound.
    pub(crate) bound: SocketAddr,
    /// As configured.
    pub(crate) advertise: Option<SocketAddr>,
}

/// A broker to register with.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    /// `host:port`.
    pub(crate) addr: String,
    pub(crate) expect: IdentityPattern,
}

/// Why a registration ended, or was not made.
#[derive(Debug, thiserror::Error)]
enum ControlError {
    #[error("cannot resolve {addr}")]
    Resolve {
        addr: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{addr} has no address")]
    NoAddress { addr: String },
    #[error("cannot tell from which address {broker} is reached: set `advertise`")]
    Advertise {
        broker: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("broker: {0}")]
    Lost(String),
    #[error("broker: {}: {}", .0.code(), status_words(.0))]
    Status(tonic::Status),
    #[error("broker: {field}: {problem}")]
    Malformed {
        field: &'static str,
        problem: String,
    },
    #[error("broker: {what} did not come within {} ms", limit.as_millis())]
    TimedOut { what: &'static str, limit: Duration },
    #[error("the broker ended the stream")]
    Ended,
    #[error("the broker was not told that {sessions} sessions ended: registering anew tells it")]
    Behind { sessions: u64 },
}

/// Not as its source: it would be told twice.
impl From<tonic::Status> for ControlError {
    fn from(status: tonic::Status) -> Self {
        match lost_connection(&status) {
            Some(reason) => Self::Lost(reason),
            None => Self::Status(status),
        }
    }
}

impl Control {
    /// Keeps this host registered with `broker`, until `stop`.
    pub(crate) async fn keep_registered(self: Arc<Self>, broker: Broker, stop: Shutdown) {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let Err(error) = self.register(&broker, &stop).await else {
                return;
            };
            let error = potemkin_service::runtime::chain(&error);
            if began.elapsed() >= GOOD_FOR {
                backoff = Backoff::default();
                told.clear();
            }
            let delay = backoff.next_delay(random_u32());
            let (broker, retry_ms) = (&broker.addr, delay.as_millis());
            // The same trouble again is no news.
            if told == error {
                tracing::debug!(broker, error, retry_ms, "not registered");
            } else {
                tracing::warn!(broker, error, retry_ms, "not registered");
                told = error;
            }
            stop.run_until_cancelled(tokio::time::sleep(delay)).await;
        }
    }

    /// One registration, from connecting to its end. `Ok`: it was told to stop.
    async fn register(&self, broker: &Broker, stop: &Shutdown) -> Result<(), ControlError> {
        let dialled = stop.run_until_cancelled(self.dial(broker)).await;
        let Some(dialled) = dialled else {
            return Ok(());
        };
        let (channel, addr) = dialled?;
        let address = self.data_address(addr)?;
        // Before the snapshot, so that no session ends unheard.
        let reports = self.reports.subscribe();
        let (live, news) = self.live.follow();
        let hello = hello::hello(&self.pool, self.incarnation, address, &live);
        let registering = stream::register(channel, hello, reports, news);
        let registered = stop.run_until_cancelled(registering).await;
        let Some(registered) = registered else {
            return Ok(());
        };
        let mut stream = registered?;
        tracing::info!(
            broker = broker.addr,
            lease_ms = stream.lease().as_millis(),
            "registered"
        );
        self.meters.registrations.increment(1.0);
        let result = stream.serve(self, stop).await;
        self.meters.registrations.decrement(1.0);
        result
    }

    async fn dial(
        &self,
        broker: &Broker,
    ) -> Result<(tonic::transport::Channel, SocketAddr), ControlError> {
        let addr = &broker.addr;
        let found = lookup_host(addr)
            .await
            .map_err(|source| ControlError::Resolve {
                addr: addr.clone(),
                source,
            })?;
        let mut outcome = Err(ControlError::NoAddress { addr: addr.clone() });
        for found in found {
            let options = DialOptions::default();
            let (tls, expect) = (self.tls.clone(), broker.expect.clone());
            match control_channel(tls, expect, found, options).await {
                Ok(channel) => return Ok((channel, found)),
                Err(error) => outcome = Err(error.into()),
            }
        }
        outcome
    }

    /// What the broker at `broker` is told to dial.
    fn data_address(&self, broker: SocketAddr) -> Result<SocketAddr, ControlError> {
        if let Some(advertise) = self.advertise {
            return Ok(advertise);
        }
        if !self.bound.ip().is_unspecified() {
            return Ok(self.bound);
        }
        let ip = hello::source_ip_towards(broker)
            .map_err(|source| ControlError::Advertise { broker, source })?;
        Ok(SocketAddr::new(ip, self.bound.port()))
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.expect, self.addr)
    }
}

/// For jitter. Without randomness hosts that lost a broker together come back together: a nuisance, no fault.
fn random_u32() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}
