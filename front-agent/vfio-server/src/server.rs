//! Listening, and serving one client after the other.

use std::convert::Infallible;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use potemkin_vfio_user::Errno;
use tokio::io::Interest;
use tracing::{debug, info, warn};

use crate::connection::Connection;
use crate::error::{BindError, Fault, ServeError};
use crate::function::Function;
use crate::socket::Listener;
use crate::watch::{Watched, watch};

/// How long to wait before the next client is taken when the operating system has no room for one.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Members of this group may connect too; without, only the owner.
    pub group: Option<u32>,
    /// A client that has not agreed on a version by then is sent away, so that it does not keep others out.
    pub handshake_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            group: None,
            handshake_timeout: Duration::from_secs(5),
        }
    }
}

/// A listening vfio-user server. Dropping it removes its socket from the file system.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    options: Options,
}

impl Server {
    /// Makes the socket `path`, mode 0600 from its first moment (0660 with a group), and listens on it.
    ///
    /// A socket that was left behind, with nobody listening, is replaced. A client that connects before
    /// [`Self::serve`] waits.
    ///
    /// # Errors
    ///
    /// [`BindError`]: the path is too long or taken, or the operating system refuses.
    pub fn bind(path: impl AsRef<Path>, options: Options) -> Result<Self, BindError> {
        Ok(Self {
            listener: Listener::bind(path.as_ref(), options.group)?,
            options,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.listener.path()
    }

    /// Serves one client after the other until `shutdown` is ready; a client that is there then is disconnected.
    ///
    /// While one is served, the next ones wait in the listening socket's queue.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when the listening socket fails. No client can cause that.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn serve<F: Function>(
        &self,
        function: &F,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let watched =
            watch(self.listener.descriptor(), Interest::READABLE).map_err(ServeError::Listener)?;
        let mut shutdown = pin!(shutdown);
        loop {
            let socket = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(()),
                socket = self.accept(&watched) => socket?,
            };
            let Ok(mut connection) = Connection::new(function, socket, self.path()) else {
                warn!(socket = %self.path().display(), "no room to serve a client; it is disconnected");
                continue;
            };
            let fault = tokio::select! {
                biased;
                fault = self.serve_one(&mut connection) => Some(fault),
                () = &mut shutdown => None,
                never = self.announce_waiting(&watched) => match never {},
            };
            connection.close();
            let Some(fault) = fault else { return Ok(()) };
            self.log(&fault);
        }
    }

    async fn serve_one<F: Function>(&self, connection: &mut Connection<'_, F>) -> Fault {
        match tokio::time::timeout(self.options.handshake_timeout, connection.negotiate()).await {
            Ok(Ok(())) => connection.run().await,
            Ok(Err(fault)) => fault,
            Err(_) => Fault::NoVersion,
        }
    }

    /// Says once that somebody waits behind the client that is served; is never ready.
    async fn announce_waiting(&self, watched: &Watched) -> Infallible {
        let waiting = poll_fn(|cx| {
            loop {
                let Ok(mut guard) = ready!(watched.poll_read_ready(cx)) else {
                    return Poll::Pending;
                };
                if self.listener.has_waiting() {
                    return Poll::Ready(());
                }
                guard.clear_ready();
            }
        });
        waiting.await;
        info!(socket = %self.path().display(), "another client waits until the present one has gone");
        std::future::pending().await
    }

    fn log(&self, fault: &Fault) {
        let socket = self.path().display();
        match fault {
            Fault::Closed => info!(%socket, "client disconnected"),
            fault => warn!(%socket, %fault, "client disconnected"),
        }
    }

    /// The next client's socket.
    async fn accept(&self, watched: &Watched) -> Result<OwnedFd, ServeError> {
        loop {
            match poll_fn(|cx| self.poll_accept(watched, cx)).await {
                Ok(socket) => return Ok(socket),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    // The client went before it was taken.
                    Some(Errno::CONNABORTED | Errno::INTR) => {
                        debug!("a client left before it was served")
                    }
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        warn!(%error, "no room for a client; trying again");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                    }
                    _ => return Err(ServeError::Listener(error)),
                },
            }
        }
    }

    fn poll_accept(
        &self,
        watched: &Watched,
        cx: &mut Context<'_>,
    ) -> Poll<std::io::Result<OwnedFd>> {
        loop {
            let mut guard = ready!(watched.poll_read_ready(cx))?;
            match self.listener.accept() {
                Err(Errno::AGAIN) => guard.clear_ready(),
                other => return Poll::Ready(other.map_err(std::io::Error::from)),
            }
        }
    }
}
