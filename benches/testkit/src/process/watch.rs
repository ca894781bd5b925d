//! Waiting for a child's end and for a file's change at once, without polling.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// Tells when a folder or a file changes. Make it first, then look: no change is missed.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// Sees files that appear in a folder or get their content.
    pub(crate) fn folder(path: &Path) -> Result<Self> {
        Self::new(
            path,
            WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE,
        )
    }

    /// Sees a file grow.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        Self::new(path, WatchFlags::MODIFY)
    }

    fn new(path: &Path, flags: WatchFlags) -> Result<Self> {
        let what = || format!("cannot watch {}", path.display());
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(Error::sys(what()))?;
        inotify::add_watch(&fd, path, flags).map_err(Error::sys(what()))?;
        Ok(Self(fd))
    }

    /// Forgets what was seen.
    fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.0.as_fd(), &mut buffer);
        while reader.next().is_ok() {}
    }
}

/// Why a wait woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The child may have ended, or the watched thing changed.
    Woken,
    /// The deadline passed.
    TimedOut,
}

/// Waits until the child behind `pidfd` ends, `watch` sees a change, or `deadline` passes.
pub(crate) fn next_event(
    pidfd: BorrowedFd<'_>,
    watch: Option<&Watch>,
    deadline: Instant,
) -> Result<Event> {
    let event = wait_readable(&[Some(pidfd), watch.map(|w| w.0.as_fd())], deadline)?;
    if let Some(watch) = watch {
        watch.drain();
    }
    Ok(event)
}

/// Waits until one of the descriptors is readable or `deadline` passes.
pub(crate) fn wait_readable(fds: &[Option<BorrowedFd<'_>>], deadline: Instant) -> Result<Event> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds: Vec<_> = fds
            .iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(Event::TimedOut),
            Ok(_) => return Ok(Event::Woken),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Error::sys("poll")(e)),
        }
    }
}
