//! Listening, and serving one client after the other.

use std::convert::Infallible;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use potemkin_vfio_user::Errno;
use tokio::io::Interest;
use tracing::{debug, info, warn};

use crate::connection::Connection;
use crate::descriptors::{Bundle, Inherited};
use crate::error::{BindError, Fault, ServeError};
use crate::function::Function;
use crate::paused::{Ended, Paused};
use crate::saved::{RestoreError, SavedClient, SavedListener};
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

    /// Goes on listening at `path` on a socket that another process has bound there.
    ///
    /// # Errors
    ///
    /// [`BindError`]: it was not inherited, or is no socket that listens.
    pub fn adopt(
        path: impl AsRef<Path>,
        options: Options,
        saved: &SavedListener,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        Ok(Self {
            listener: Listener::adopt(path.as_ref(), saved, inherited)?,
            options,
        })
    }

    /// The client that another process has served, for [`Self::serve_from`]; none if there was none.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]: what was saved cannot be, or the function does not take it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled.
    pub fn restore<'f, F: Function>(
        &'f self,
        function: &'f F,
        saved: Option<&SavedClient>,
        inherited: &mut Inherited,
    ) -> Result<Paused<'f, F>, RestoreError> {
        let restore = |saved| Connection::restore(function, self.path(), saved, inherited);
        let connection = saved.map(restore).transpose()?;
        Ok(Paused {
            connection: connection.map(Box::new),
        })
    }

    /// The listening socket, for another process.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn save(&self, bundle: &mut Bundle) -> std::io::Result<SavedListener> {
        self.listener.save(bundle)
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
        let never = std::future::pending();
        let served = self.serve_from(function, Paused::default(), shutdown, never);
        served.await.map(drop)
    }

    /// The same, beginning with the client that was paused, until `shutdown` or `pause` is ready. What the client has asked is answered
    /// before it is paused; what it asks then waits in its socket, or has come in part.
    ///
    /// # Errors
    ///
    /// As for [`Self::serve`].
    ///
    /// # Panics
    ///
    /// As for [`Self::serve`].
    pub async fn serve_from<'f, F: Function>(
        &'f self,
        function: &'f F,
        from: Paused<'f, F>,
        shutdown: impl Future<Output = ()>,
        pause: impl Future<Output = ()>,
    ) -> Result<Ended<'f, F>, ServeError> {
        let watched =
            watch(self.listener.descriptor(), Interest::READABLE).map_err(ServeError::Listener)?;
        let (mut shutdown, mut pause) = (pin!(shutdown), pin!(pause));
        let mut present = from.connection;
        loop {
            let mut connection = match present.take() {
                Some(connection) => connection,
                None => {
                    let socket = tokio::select! {
                        biased;
                        () = &mut shutdown => return Ok(Ended::Stopped),
                        () = &mut pause => return Ok(Ended::Paused(Paused::default())),
                        socket = self.accept(&watched) => socket?,
                    };
                    let Ok(connection) = Connection::new(function, socket, self.path()) else {
                        warn!(socket = %self.path().display(), "no room to serve a client; it is disconnected");
                        continue;
                    };
                    Box::new(connection)
                }
            };
            let fault = tokio::select! {
                biased;
                fault = self.serve_one(&mut connection, pause.as_mut()) => fault,
                () = &mut shutdown => {
                    connection.close();
                    return Ok(Ended::Stopped);
                }
                never = self.announce_waiting(&watched) => match never {},
            };
            let Some(fault) = fault else {
                return Ok(Ended::Paused(Paused {
                    connection: Some(connection),
                }));
            };
            connection.close();
            self.log(&fault);
        }
    }

    /// None: it is to pause.
    async fn serve_one<F: Function>(
        &self,
        connection: &mut Connection<'_, F>,
        mut pause: Pin<&mut impl Future<Output = ()>>,
    ) -> Option<Fault> {
        let handshake = connection.negotiate(pause.as_mut());
        match tokio::time::timeout(self.options.handshake_timeout, handshake).await {
            Ok(Ok(true)) => connection.run(pause).await,
            Ok(Ok(false)) => None,
            Ok(Err(fault)) => Some(fault),
            Err(_) => Some(Fault::NoVersion),
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
