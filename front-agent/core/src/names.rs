//! The addresses of a broker's name, while its path is dialled again and again.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use tokio::sync::watch;

use crate::attach::{AttachError, no_address};

/// Looks a name up with each attempt, and goes by what it knew before meanwhile: when the network is in trouble, the name service
/// often is too. One lookup is under way at most, for it cannot be called off.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// `host:port`.
    name: String,
    known: Arc<watch::Sender<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// A lookup is under way.
    looking: bool,
    /// Why the last one failed.
    failure: Option<(io::ErrorKind, String)>,
}

impl Names {
    /// Begins with a lookup, so that the addresses are known before they are needed.
    pub(crate) fn new(name: &str) -> Self {
        let names = Self {
            name: name.to_owned(),
            known: Arc::default(),
        };
        names.look_up();
        names
    }

    /// One of its addresses: another one with each turn.
    pub(crate) async fn address(&self, turn: usize) -> Result<SocketAddr, AttachError> {
        self.look_up();
        let mut known = self.known.subscribe();
        let settled = |known: &Known| !known.addresses.is_empty() || !known.looking;
        let known = known.wait_for(settled).await;
        // The sender is here: there is no error.
        let failure = match &known {
            Ok(known) if !known.addresses.is_empty() => {
                return Ok(known.addresses[turn % known.addresses.len()]);
            }
            Ok(known) => known.failure.clone(),
            Err(_) => None,
        };
        Err(AttachError::Resolve {
            address: self.name.clone(),
            source: failure.map_or_else(no_address, |(kind, words)| io::Error::new(kind, words)),
        })
    }

    fn look_up(&self) {
        if let Ok(address) = self.name.parse() {
            return self.learn(Ok(vec![address]));
        }
        let idle = |known: &mut Known| !std::mem::replace(&mut known.looking, true);
        if self.known.send_if_modified(idle) {
            let names = self.clone();
            tokio::task::spawn_blocking(move || {
                let found = names.name.to_socket_addrs().map(Iterator::collect);
                names.learn(found);
            });
        }
    }

    fn learn(&self, found: io::Result<Vec<SocketAddr>>) {
        self.known.send_modify(|known| {
            known.looking = false;
            match found {
                Ok(addresses) if addresses.is_empty() => known.failure = None,
                Ok(addresses) => known.addresses = addresses,
                Err(error) => known.failure = Some((error.kind(), error.to_string())),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        let names = Names::new("127.0.0.1:7");

        assert_eq!(
            names.address(3).await.unwrap(),
            "127.0.0.1:7".parse().unwrap()
        );
    }

    #[tokio::test]
    async fn addresses_take_turns() {
        let names = Names::new("127.0.0.1:7");
        let both: Vec<SocketAddr> = vec![([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()];
        let names = Names {
            name: "no name".to_owned(),
            ..names
        };
        names.learn(Ok(both.clone()));

        let mut turns = Vec::new();
        for turn in 0..3 {
            turns.push(names.address(turn).await.unwrap());
        }

        assert_eq!(turns, [both[0], both[1], both[0]]);
    }

    #[tokio::test]
    async fn what_cannot_be_looked_up_is_an_error_that_names_it() {
        let names = Names::new("no port");

        let error = names.address(0).await.unwrap_err();

        assert!(error.to_string().contains("no port"), "{error}");
    }
}
