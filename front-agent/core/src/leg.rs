//! The agent's leg of a session's way: a stream through a broker.

use std::{fmt, net::SocketAddr, time::Duration};

use potemkin_transport::{Connection, Dialer, FrameStream, TransportKind};

use crate::{
    attach::{AttachError, BrokerAddress},
    remote::RemoteOptions,
};

/// Longest that a connection's last packets may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Through which broker a session goes, and over what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The broker, as it was given: `host:port`.
    pub broker: String,
    /// The address of it that answered.
    pub address: SocketAddr,
    /// What the leg runs on.
    pub transport: TransportKind,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.broker)?;
        if self.broker != self.address.to_string() {
            write!(f, " ({})", self.address)?;
        }
        write!(f, " over {}", self.transport)
    }
}

/// A stream through a broker, for [`drive`](crate::drive). Dropped, it is gone at once.
#[derive(Debug)]
pub struct Leg {
    pub(crate) stream: FrameStream,
    pub(crate) route: Route,
    /// Which of the brokers.
    pub(crate) broker: usize,
    connection: Connection,
}

impl Leg {
    /// Opens a stream through the first of the brokers that `options` name, over the transport that they name: for a session that was
    /// attached by other means than [`RemoteFunction`](crate::RemoteFunction).
    ///
    /// # Errors
    /// When none of its addresses answers, or it is not who it should be.
    pub async fn dial(options: &RemoteOptions) -> Result<Self, AttachError> {
        let broker = options.brokers.first().ok_or(AttachError::NoBroker)?;
        let mut last = AttachError::NoBroker;
        for address in broker.resolve().await? {
            match Self::dial_at(options, 0, address, options.transport).await {
                Ok(leg) => return Ok(leg),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Opens a stream through a broker, by one of its addresses.
    pub(crate) async fn dial_at(
        options: &RemoteOptions,
        broker: usize,
        address: SocketAddr,
        transport: TransportKind,
    ) -> Result<Self, AttachError> {
        let named = options.brokers.get(broker).ok_or(AttachError::NoBroker)?;
        let BrokerAddress {
            address: name,
            identity,
        } = named.clone();
        let dialer = Dialer::new(options.tls.clone(), identity, options.dial.clone());
        let failed = |source| AttachError::Stream {
            address,
            source: Box::new(source),
        };
        let connection = dialer.connect(transport, address).await.map_err(failed)?;
        let stream = connection.open().await.map_err(failed)?;
        Ok(Self {
            stream,
            route: Route {
                broker: name,
                address,
                transport,
            },
            broker,
            connection,
        })
    }

    /// Ends it gracefully: what was sent last arrives, if the other end still takes it. The waits are bounded.
    pub(crate) async fn end(mut self) {
        self.stream.sender.finish().await;
        self.connection.close();
        // Without it a QUIC peer would learn of the end by its idle timeout only.
        let closed = self.connection.closed();
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::debug!("the connection did not end in time");
        }
    }

    /// Ends it gracefully, on a task of its own.
    pub(crate) fn retire(self) {
        tokio::spawn(self.end());
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.connection.close();
    }
}
