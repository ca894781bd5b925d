//! A client's eventfds.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use potemkin_vfio_user::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::readlink;

use crate::rescue;

/// An eventfd that a client has sent.
///
/// The client shares the descriptor's counter and its flags: it may be full, and it may be blocking. Neither call here
/// waits for that (but for a client that fills it just then, and not for long), and the flags stay as the client has them.
#[derive(Debug)]
pub(crate) struct Eventfd(Arc<OwnedFd>);

impl Eventfd {
    /// Takes a descriptor that came from a client; `EINVAL` if it is anything but an eventfd.
    pub(crate) fn from_client(fd: OwnedFd) -> Result<Self, Errno> {
        if !is_eventfd(&fd)? {
            return Err(Errno::INVAL);
        }
        Ok(Self(Arc::new(fd)))
    }

    /// Adds 1. A counter that is full stays so: who waits for it is woken anyway.
    pub(crate) fn signal(&self) {
        if self.is_writable() {
            rescue::signal(&self.0);
        }
    }

    /// Sets the counter back; whether it was not 0.
    pub(crate) fn take(&self) -> bool {
        rescue::take(&self.0)
    }

    /// The descriptor, for watching.
    pub(crate) fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.0)
    }

    /// Whether a write would not wait.
    fn is_writable(&self) -> bool {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
        poll(&mut fds, Some(&NOW)) == Ok(1)
    }
}

/// Only the name that the kernel gives it tells an eventfd from other anonymous files.
fn is_eventfd(fd: &OwnedFd) -> Result<bool, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(readlink(path, Vec::new())?.as_bytes() == b"anon_inode:[eventfd]")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::io::write;

    use super::*;

    fn pair(flags: EventfdFlags) -> (OwnedFd, Eventfd) {
        let theirs = eventfd(0, flags).unwrap();
        let ours = Eventfd::from_client(theirs.try_clone().unwrap()).unwrap();
        (theirs, ours)
    }

    #[test]
    fn signals_add_up_and_are_taken_at_once() {
        let (theirs, ours) = pair(EventfdFlags::empty());

        ours.signal();
        ours.signal();

        let mut counter = [0; 8];
        rustix::io::read(&theirs, &mut counter).unwrap();
        assert_eq!(u64::from_ne_bytes(counter), 2);
        assert!(!ours.take());
    }

    #[test]
    fn a_full_counter_that_blocks_does_not_stop_a_signal() {
        let (theirs, ours) = pair(EventfdFlags::empty());
        write(&theirs, &(u64::MAX - 1).to_ne_bytes()).unwrap();

        ours.signal();

        assert!(ours.take());
    }

    #[test]
    fn an_empty_counter_that_blocks_does_not_stop_a_take() {
        let (_theirs, ours) = pair(EventfdFlags::empty());

        assert!(!ours.take());
    }

    #[test]
    fn what_is_not_an_eventfd_is_refused() {
        let (pipe, _writer) = std::io::pipe().unwrap();
        let file = tempfile::tempfile().unwrap();
        let epoll =
            rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();

        for fd in [OwnedFd::from(pipe), file.into(), epoll] {
            assert_eq!(Eventfd::from_client(fd).unwrap_err(), Errno::INVAL);
        }
    }
}
