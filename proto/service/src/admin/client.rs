//! A blocking client of a front agent's admin socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{
    AttachRequest, Attached, DetachRequest, Detached, REPLY_BYTES_MAX, Reply, Request, Status,
    StatusRequest, UpgradeRequest, Upgraded,
};

/// A connection to a front agent.
#[derive(Debug)]
pub struct AdminClient {
    path: PathBuf,
    stream: UnixStream,
    timeout: Duration,
    /// Bytes received behind the last reply.
    received: Vec<u8>,
}

/// Why a front agent did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Nothing answers at the path.
    #[error("cannot connect to the front agent at {}: is potemkin-front running, and is this its admin socket?", path.display())]
    Connect {
        /// The admin socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("lost the connection to the front agent at {}", path.display())]
    Lost {
        /// The admin socket's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No reply came in time.
    #[error("the front agent at {} did not answer within {timeout:?}", path.display())]
    Timeout {
        /// The admin socket's path.
        path: PathBuf,
        /// The limit.
        timeout: Duration,
    },
    /// What came is no reply of this protocol.
    #[error("the front agent at {} does not speak the admin protocol: {reason}", path.display())]
    Malformed {
        /// The admin socket's path.
        path: PathBuf,
        /// What is wrong with the reply.
        reason: String,
    },
    /// The agent refused.
    #[error("the front agent says: {0}")]
    Refused(String),
}

impl AdminClient {
    /// Connects to the admin socket at `path`. A reply may take up to `timeout`.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, AdminError> {
        let stream = UnixStream::connect(path).map_err(|source| AdminError::Connect {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            stream,
            timeout,
            received: Vec::new(),
        })
    }

    /// Attaches a device.
    pub fn attach(&mut self, request: AttachRequest) -> Result<Attached, AdminError> {
        self.ask(&Request::Attach(request))
    }

    /// Detaches the device that the agent calls `name`.
    pub fn detach(&mut self, name: &str) -> Result<(), AdminError> {
        let name = name.to_owned();
        let Detached {} = self.ask(&Request::Detach(DetachRequest { name }))?;
        Ok(())
    }

    /// Asks what is attached.
    pub fn status(&mut self) -> Result<Status, AdminError> {
        self.ask(&Request::Status(StatusRequest {}))
    }

    /// Has the agent go on in the program that stands where it was started from.
    pub fn upgrade(&mut self) -> Result<Upgraded, AdminError> {
        self.ask(&Request::Upgrade(UpgradeRequest {}))
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, AdminError> {
        let deadline = Instant::now() + self.timeout;
        let sent = self.send(request, deadline);
        // An agent that has no room says so and hangs up, whether or not it was asked by then.
        let line = self
            .receive_line(deadline)
            .or_else(|error| sent.and(Err(error)))?;
        match serde_json::from_slice(&line) {
            Ok(Reply::Ok(value)) => Ok(value),
            Ok(Reply::Error(message)) => Err(AdminError::Refused(message)),
            Err(error) => Err(self.malformed(&error.to_string())),
        }
    }

    fn send(&mut self, request: &Request, deadline: Instant) -> Result<(), AdminError> {
        let mut line = serde_json::to_vec(request).map_err(|e| self.malformed(&e.to_string()))?;
        line.push(b'\n');
        let limit = self.remaining(deadline)?;
        self.stream
            .set_write_timeout(Some(limit))
            .and_then(|()| self.stream.write_all(&line))
            .map_err(|source| self.failed(source))
    }

    fn receive_line(&mut self, deadline: Instant) -> Result<Vec<u8>, AdminError> {
        let mut searched = 0;
        loop {
            let newline = self.received[searched..].iter().position(|b| *b == b'\n');
            if let Some(at) = newline {
                let rest = self.received.split_off(searched + at + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            searched = self.received.len();
            if searched >= REPLY_BYTES_MAX {
                return Err(self.malformed(&format!("a reply exceeds {REPLY_BYTES_MAX} bytes")));
            }
            self.receive_more(deadline)?;
        }
    }

    fn receive_more(&mut self, deadline: Instant) -> Result<(), AdminError> {
        let limit = self.remaining(deadline)?;
        let mut chunk = [0; 4096];
        let count = self
            .stream
            .set_read_timeout(Some(limit))
            .and_then(|()| self.stream.read(&mut chunk))
            .map_err(|source| self.failed(source))?;
        if count == 0 {
            return Err(self.failed(io::ErrorKind::UnexpectedEof.into()));
        }
        self.received.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    /// Never zero: a socket takes that for no limit.
    fn remaining(&self, deadline: Instant) -> Result<Duration, AdminError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.timed_out());
        }
        Ok(left)
    }

    fn failed(&self, source: io::Error) -> AdminError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => self.timed_out(),
            _ => AdminError::Lost {
                path: self.path.clone(),
                source,
            },
        }
    }

    fn timed_out(&self) -> AdminError {
        AdminError::Timeout {
            path: self.path.clone(),
            timeout: self.timeout,
        }
    }

    fn malformed(&self, reason: &str) -> AdminError {
        AdminError::Malformed {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }
}
