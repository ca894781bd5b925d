//! Connections to hosts: one for each, shared by the sessions on it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use potemkin_transport::{
    Connection, DialOptions, Dialer, FrameStream, IdentityPattern, TlsMaterial, TransportError,
    TransportKind,
};

use crate::core::Route;
use crate::ids::{Incarnation, PeerName};

/// One connection's place. Its lock is held while dialling, so that sessions that come at once share one dial.
type Slot = Arc<tokio::sync::Mutex<Option<Connection>>>;

/// Keeps at most one connection per host; those that nobody can use any more are dropped with the next new one.
#[derive(Debug)]
pub(crate) struct HostPool {
    tls: TlsMaterial,
    kind: TransportKind,
    options: DialOptions,
    slots: Mutex<HashMap<PeerName, Place>>,
}

/// A host's connection. The run of its process and its address say whether that can still be the right one: a process that
/// was killed does not close its QUIC connections, and its successor may have the same port.
#[derive(Debug)]
struct Place {
    incarnation: Incarnation,
    address: SocketAddr,
    slot: Slot,
}

/// Why there is no stream to a host.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    /// The host's name is no identity that could be expected of it.
    #[error("its identity cannot be expected of a server")]
    Identity,
    /// It was not reached.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl HostPool {
    pub(crate) fn new(tls: TlsMaterial, kind: TransportKind, options: DialOptions) -> Self {
        Self {
            tls,
            kind,
            options,
            slots: Mutex::default(),
        }
    }

    /// The transport that hosts are dialled on.
    pub(super) const fn kind(&self) -> TransportKind {
        self.kind
    }

    /// Opens a stream to the host of a route, on a connection that is there or a new one.
    pub(super) async fn open(&self, route: &Route) -> Result<FrameStream, HostError> {
        let slot = self.slot(route);
        let (connection, reused) = self.connection(&slot, route).await?;
        match connection.open().await {
            Ok(stream) => Ok(stream),
            // The connection may have been lost without anybody having noticed.
            Err(_) if reused && connection.is_closed() => {
                let (connection, _) = self.connection(&slot, route).await?;
                Ok(connection.open().await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn connection(
        &self,
        slot: &Slot,
        route: &Route,
    ) -> Result<(Connection, bool), HostError> {
        let mut place = slot.lock().await;
        if let Some(connection) = place.as_ref().filter(|c| !c.is_closed()) {
            return Ok((connection.clone(), true));
        }
        let expected: IdentityPattern = route.host.parse().map_err(|_| HostError::Identity)?;
        let dialer = Dialer::new(self.tls.clone(), expected, self.options.clone());
        let connection = dialer.connect(self.kind, route.address).await?;
        *place = Some(connection.clone());
        Ok((connection, false))
    }

    /// A host does not answer: the next session gets a new connection.
    pub(super) fn forget(&self, route: &Route) {
        self.lock().remove(&route.host);
    }

    fn slot(&self, route: &Route) -> Slot {
        let mut slots = self.lock();
        if let Some(place) = slots.get(&route.host)
            && (place.incarnation, place.address) == (route.incarnation, route.address)
        {
            return place.slot.clone();
        }
        slots.retain(|_, place| in_use(&place.slot));
        let place = Place {
            incarnation: route.incarnation,
            address: route.address,
            slot: Slot::default(),
        };
        let slot = place.slot.clone();
        slots.insert(route.host.clone(), place);
        slot
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerName, Place>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody is dialling on it, or it has a connection that lives.
fn in_use(slot: &Slot) -> bool {
    match slot.try_lock() {
        Err(_) => true,
        Ok(place) => Arc::strong_count(slot) > 1 || place.as_ref().is_some_and(|c| !c.is_closed()),
    }
}
