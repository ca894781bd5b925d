//! A client that is not served at the moment.

use std::{fmt, io};

use crate::connection::Connection;
use crate::descriptors::Bundle;
use crate::function::Function;
use crate::saved::SavedClient;

/// The client of a server that pauses, if it has one: between two messages, with everything answered.
///
/// [`Server::serve_from`](crate::Server::serve_from) goes on with it. Dropped, it is disconnected, and its function does not hear of that.
pub struct Paused<'f, F> {
    pub(crate) connection: Option<Box<Connection<'f, F>>>,
}

impl<F> Default for Paused<'_, F> {
    fn default() -> Self {
        Self { connection: None }
    }
}

impl<F: Function> Paused<'_, F> {
    /// The client for another process, with its descriptors; none if there is none.
    ///
    /// # Errors
    ///
    /// The operating system's, when there are too many descriptors.
    pub fn save(&self, bundle: &mut Bundle) -> io::Result<Option<SavedClient>> {
        let connection = self.connection.as_ref();
        connection
            .map(|connection| connection.save(bundle))
            .transpose()
    }
}

impl<F> fmt::Debug for Paused<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paused")
            .field("client", &self.connection.is_some())
            .finish()
    }
}

/// Why [`Server::serve_from`](crate::Server::serve_from) has ended.
#[derive(Debug)]
pub enum Ended<'f, F> {
    /// By its shutdown.
    Stopped,
    /// It was told to pause.
    Paused(Paused<'f, F>),
}
