//! A blocking client.
//!
//! One command is outstanding at a time, and the thread that asks also sends and receives: nothing is handed to another
//! thread. Guest memory that the server has no descriptor for is offered through [`GuestMemory`]; the server's requests
//! for it are answered while a reply is awaited, and by [`Client::serve`].

mod burst;
mod connection;
mod device;
mod error;
mod memory;

use std::path::Path;
use std::time::Duration;

use connection::Connection;

pub use burst::BurstWrite;
pub use error::ClientError;
pub use memory::GuestMemory;

use crate::message::{Capabilities, MAJOR, MINOR, Version};
use crate::{Command, fdpass};

/// How long a reply may take unless [`Client::set_timeout`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// A negotiated connection to a vfio-user server.
///
/// After any error but [`ClientError::Refused`] and [`ClientError::Timeout`] the connection is of no more use.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    /// The smaller of both sides' limits.
    max_data_xfer: u32,
    /// Most descriptors that the server takes with one message.
    max_msg_fds: usize,
    /// What the server answered.
    version: Version,
}

impl Client {
    /// Connects to the socket at `path` and agrees on a version, with [`DEFAULT_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`ClientError`]: nobody listens, the server refuses, or its answer is not acceptable.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        Self::negotiate(Connection::connect(path.as_ref(), DEFAULT_TIMEOUT)?)
    }

    /// Agrees on a version over a connected UNIX stream socket.
    ///
    /// # Errors
    ///
    /// As for [`Self::connect`].
    pub fn from_socket(socket: impl Into<std::os::fd::OwnedFd>) -> Result<Self, ClientError> {
        Self::negotiate(Connection::new(socket.into(), DEFAULT_TIMEOUT)?)
    }

    fn negotiate(mut connection: Connection) -> Result<Self, ClientError> {
        let ours = Version {
            major: MAJOR,
            minor: MINOR,
            capabilities: Capabilities::ours(u32::from(u16::MAX)),
        };
        let reply = connection.call(Command::Version, &[], |out| ours.encode(out))?;
        let version = Version::decode(reply)?;
        if version.major != MAJOR || version.minor > MINOR {
            return Err(ClientError::Version {
                major: version.major,
                minor: version.minor,
            });
        }
        let max_data_xfer = version.capabilities.data_xfer_limit();
        let max_msg_fds = version.capabilities.msg_fds_limit();
        connection.set_limit(max_data_xfer);
        Ok(Self {
            connection,
            max_data_xfer,
            max_msg_fds,
            version,
        })
    }

    /// The version and the limits that the server answered with.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Most bytes that one region access may move.
    #[must_use]
    pub fn max_data_xfer(&self) -> u32 {
        self.max_data_xfer
    }

    /// Most descriptors that one message may carry: up to [`fdpass::MAX_FDS`].
    #[must_use]
    pub fn max_msg_fds(&self) -> usize {
        self.max_msg_fds.min(fdpass::MAX_FDS)
    }

    /// How long a reply may take; `None` waits for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError::Os`], for instance when the time is 0.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        self.connection.set_timeout(timeout)
    }

    /// Offers guest memory to the server's `DMA_READ` and `DMA_WRITE`. Without it they are answered with `EFAULT`.
    pub fn set_memory(&mut self, memory: impl GuestMemory + 'static) {
        self.connection.set_memory(Box::new(memory));
    }

    /// Waits for one request of the server's, up to the timeout, and answers it.
    ///
    /// Servers for QEMU send them only while no command of the client waits.
    ///
    /// # Errors
    ///
    /// [`ClientError::Timeout`] when none came.
    pub fn serve(&mut self) -> Result<(), ClientError> {
        self.connection.serve()
    }
}
