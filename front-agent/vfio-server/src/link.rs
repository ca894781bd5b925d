//! The way to the client, shared by the task that serves it and by [`ClientControl`](crate::ClientControl).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Waker};

use potemkin_vfio_user::{Errno, fdpass};

/// Sends whole messages; what the socket does not take at once waits here.
///
/// QEMU takes a header of which only a part has arrived for an error. The kernel cuts a send into buffers of at least
/// 32 KiB, and takes what fits. So all headers of one send are in its first 16 KiB, and each send begins with one.
#[derive(Debug)]
pub(crate) struct Link {
    /// None once the client has gone.
    socket: RefCell<Option<Arc<OwnedFd>>>,
    backlog: RefCell<Backlog>,
    /// The serving task, while it waits for the client.
    task: RefCell<Option<Waker>>,
    /// The socket has failed; the serving task finds out why.
    broken: Cell<bool>,
}

/// What the socket did not take. While there is any, everything goes behind it.
#[derive(Debug, Default)]
struct Backlog {
    /// Each is a send of its own. Bounded by who sends: replies wait for an empty backlog, DMA requests are counted.
    sends: VecDeque<Vec<u8>>,
    /// Bytes of the first that have gone.
    gone: usize,
}

impl Link {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self {
            socket: RefCell::new(Some(socket)),
            backlog: RefCell::default(),
            task: RefCell::new(None),
            broken: Cell::new(false),
        }
    }

    /// Forgets the client: its socket can close.
    pub(crate) fn close(&self) {
        self.socket.take();
        self.backlog.take();
        self.task.take();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.socket.borrow().is_some()
    }

    /// Sends whole messages, or keeps what does not go at once for [`Self::drain`]. All their headers are in the first
    /// 16 KiB.
    pub(crate) fn send(&self, parts: [&[u8]; 2]) {
        if self.broken.get() || !self.is_open() {
            return;
        }
        let mut backlog = self.backlog.borrow_mut();
        let gone = if backlog.sends.is_empty() {
            self.try_send(parts)
        } else {
            0
        };
        if gone < parts[0].len() + parts[1].len() {
            if backlog.sends.is_empty() {
                backlog.gone = gone;
            }
            backlog.sends.push_back(parts.concat());
            self.wake();
        }
    }

    /// Whether something waits for the socket to take it.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.borrow().sends.is_empty()
    }

    /// What the socket did not take, of a send that has begun to go the rest.
    pub(crate) fn save(&self) -> Vec<u8> {
        let backlog = self.backlog.borrow();
        let all: Vec<u8> = backlog.sends.iter().flatten().copied().collect();
        all[backlog.gone.min(all.len())..].to_vec()
    }

    /// Bytes that go first. They were cut already: the client has a whole header, or waits for more.
    pub(crate) fn restore(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.backlog.borrow_mut().sends.push_front(bytes);
        }
    }

    /// Sends more of the backlog; whether it is empty now.
    pub(crate) fn drain(&self) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        while let Some(send) = backlog.sends.front() {
            let len = send.len();
            let gone = backlog.gone + self.try_send([&send[backlog.gone..], &[]]);
            if gone < len {
                backlog.gone = gone;
                return false;
            }
            backlog.sends.pop_front();
            backlog.gone = 0;
        }
        true
    }

    /// Whether sending has failed for good.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Remembers whom to wake when there is a backlog.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        match &mut *task {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// How many bytes went; 0 if none can go now, or ever.
    fn try_send(&self, parts: [&[u8]; 2]) -> usize {
        let socket = self.socket.borrow();
        let Some(socket) = &*socket else { return 0 };
        match fdpass::send(socket, &parts.map(IoSlice::new), &[]) {
            Ok(gone) => gone,
            Err(Errno::AGAIN) => 0,
            Err(_) => {
                self.broken.set(true);
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

    use super::*;

    const MESSAGE: usize = 24;
    const HEADER: usize = 16;

    #[test]
    fn no_header_arrives_in_part_however_full_the_socket_is() {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let link = Link::new(Arc::new(ours));
        let mut long = vec![0; 500_000];
        long[..HEADER].fill(1);
        let mut short = [0; MESSAGE];
        short[..HEADER].fill(1);
        link.send([&long, &[]]);
        for _ in 0..20_000 {
            link.send([&short[..HEADER], &short[HEADER..]]);
        }
        assert!(link.has_backlog());

        let mut left = Vec::from([long.len()]);
        left.resize(20_001, MESSAGE);
        for len in left {
            let mut header = [0; HEADER];
            let got = receive(&link, &theirs, &mut header);
            assert_eq!((got, header), (HEADER, [1; HEADER]));
            let mut payload = vec![1; len - HEADER];
            let mut filled = 0;
            while filled < payload.len() {
                filled += receive(&link, &theirs, &mut payload[filled..]);
            }
            assert!(payload.iter().all(|&byte| byte == 0));
        }
        assert!(!link.has_backlog());
    }

    /// One receive, as soon as there is anything.
    fn receive(link: &Link, socket: &OwnedFd, out: &mut [u8]) -> usize {
        loop {
            match recv(socket, &mut *out, RecvFlags::empty()) {
                Ok((got, _)) => return got,
                Err(Errno::AGAIN) => drop(link.drain()),
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    #[test]
    fn a_socket_whose_peer_has_gone_is_broken_and_keeps_nothing() {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let link = Link::new(Arc::new(ours));
        drop(theirs);

        link.send([&[0; MESSAGE], &[]]);
        assert!(link.is_broken());
        link.close();
        link.send([&[0; MESSAGE], &[]]);

        assert!(!link.has_backlog());
    }
}
