//! The kit listens and QEMU connects: nobody has to guess when QEMU's sockets are there.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::process::{Event, Process, wait_readable};
use crate::{Error, Result};

/// A socket that QEMU is told to connect to.
#[derive(Debug)]
pub(super) struct Listener(UnixListener);

impl Listener {
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let what = || format!("cannot listen on {}", path.display());
        let listener = UnixListener::bind(path).map_err(Error::io(what()))?;
        listener.set_nonblocking(true).map_err(Error::io(what()))?;
        Ok(Self(listener))
    }

    /// Waits for QEMU's connection; fails with QEMU's log if it ends first.
    pub(super) fn accept(&self, process: &mut Process, limit: Duration) -> Result<UnixStream> {
        let what = "QEMU's connection to a socket of the kit";
        let deadline = Instant::now() + limit;
        loop {
            let ended = process.try_status()?;
            match self.0.accept() {
                Ok((stream, _)) => {
                    // The accepted socket does not inherit this on Linux; said for the reader.
                    stream.set_nonblocking(false).map_err(Error::io(what))?;
                    return Ok(stream);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(Error::io(what)(e)),
            }
            if let Some(status) = ended {
                return Err(process.exited(what, status));
            }
            let fds = [Some(process.pidfd()), Some(self.0.as_fd())];
            if wait_readable(&fds, deadline)? == Event::TimedOut {
                return Err(process.timed_out(what, limit));
            }
        }
    }
}
