//! Who is calling a gRPC service.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::Identity;

/// The caller of a gRPC method, an extension of each request that a [`Listener`](crate::Listener) serves.
#[derive(Debug, Clone)]
pub struct PeerIdentity {
    pub(crate) identity: Identity,
    pub(crate) remote: SocketAddr,
    /// Room for sessions on the request's connection.
    pub(crate) sessions: Arc<Semaphore>,
}

impl PeerIdentity {
    /// A caller that did not come through a [`Listener`](crate::Listener): for calling a service in process.
    pub fn new(identity: Identity, remote: SocketAddr) -> Self {
        Self {
            identity,
            remote,
            sessions: Arc::new(Semaphore::new(0)),
        }
    }

    /// Its certified identity.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }
}

/// The certified identity of a request's caller. `None` if the request did not come through a [`Listener`](crate::Listener).
pub fn peer_identity<T>(request: &tonic::Request<T>) -> Option<&Identity> {
    request
        .extensions()
        .get::<PeerIdentity>()
        .map(PeerIdentity::identity)
}

/// The address of a request's caller. `None` if the request did not come through a [`Listener`](crate::Listener).
pub fn peer_address<T>(request: &tonic::Request<T>) -> Option<SocketAddr> {
    request
        .extensions()
        .get::<PeerIdentity>()
        .map(PeerIdentity::remote)
}
