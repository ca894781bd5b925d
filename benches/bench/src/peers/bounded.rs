//! A client on a thread of its own, so that a wait for it has an end.
//!
//! The client of the crate `vfio_user` waits for ever: it has no timeout, and after an error reply (16 bytes where it wants 32 or more) it waits for
//! bytes that never come. A thread that hangs so is left behind; it ends when its server is killed and its socket with it.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use super::guest::{Guest, Round};
use super::path::GuestKind;
use crate::error::BenchError;

/// Longest that a client may take to connect.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Longest that a round may take, whatever its length, and for each access more.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
const ACCESS_LIMIT: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct BoundedGuest {
    path: String,
    /// Accesses of the next round.
    orders: SyncSender<u32>,
    rounds: Receiver<Result<Round, BenchError>>,
}

impl BoundedGuest {
    /// Connects to a server that listens.
    pub(super) fn connect(
        kind: GuestKind,
        path: &str,
        socket: &Path,
        limit: Duration,
    ) -> Result<Self, BenchError> {
        let (orders, inbox) = sync_channel(1);
        let (connected, connection) = sync_channel(1);
        let (outbox, rounds) = sync_channel(1);
        let (name, socket) = (path.to_owned(), socket.to_owned());
        thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || {
                let guest = Guest::connect(kind, &name, &socket);
                let (guest, outcome) = split(guest);
                // Whoever asked may have given up, here and below.
                drop(connected.send(outcome));
                if let Some(guest) = guest {
                    serve(guest, &inbox, &outbox);
                }
            })
            .map_err(BenchError::io("cannot start a thread"))?;
        wait(path, &connection, limit)?;
        Ok(Self {
            path: path.to_owned(),
            orders,
            rounds,
        })
    }

    pub(super) fn round(&self, accesses: u32) -> Result<Round, BenchError> {
        let ended = |_| BenchError::Ended {
            path: self.path.clone(),
        };
        self.orders.send(accesses).map_err(ended)?;
        // Three kinds of access, and those without a reply.
        let limit = ROUND_LIMIT + ACCESS_LIMIT * accesses * 3;
        wait(&self.path, &self.rounds, limit)
    }
}

fn serve(mut guest: Guest, inbox: &Receiver<u32>, outbox: &SyncSender<Result<Round, BenchError>>) {
    for accesses in inbox {
        if outbox.send(guest.round(accesses)).is_err() {
            return;
        }
    }
}

fn split(guest: Result<Guest, BenchError>) -> (Option<Guest>, Result<(), BenchError>) {
    match guest {
        Ok(guest) => (Some(guest), Ok(())),
        Err(error) => (None, Err(error)),
    }
}

fn wait<T>(
    path: &str,
    answers: &Receiver<Result<T, BenchError>>,
    limit: Duration,
) -> Result<T, BenchError> {
    let path = path.to_owned();
    match answers.recv_timeout(limit) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Disconnected) => Err(BenchError::Ended { path }),
        Err(RecvTimeoutError::Timeout) => Err(BenchError::NoAnswer {
            path,
            limit_s: limit.as_secs(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn server_that_never_answers_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("mute.sock");
        let _mute = UnixListener::bind(&socket).unwrap();

        let limit = Duration::from_millis(20);
        let error = BoundedGuest::connect(GuestKind::Crate, "mute", &socket, limit).unwrap_err();

        assert!(matches!(error, BenchError::NoAnswer { .. }), "{error}");
    }

    #[test]
    fn why_a_client_cannot_connect_comes_through() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("nobody.sock");

        for kind in [GuestKind::Potemkin, GuestKind::Crate] {
            let error = BoundedGuest::connect(kind, "nobody", &socket, CONNECT_LIMIT).unwrap_err();
            let expected = matches!(
                error,
                BenchError::Vfio { .. } | BenchError::VfioCrate { .. }
            );
            assert!(expected, "{error}");
        }
    }
}
