//! Bytes together with file descriptors over a UNIX stream socket (`SCM_RIGHTS`), bounded.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

/// Most descriptors with one message, sent or received; what this side offers as `max_msg_fds`.
pub const MAX_FDS: usize = 16;

/// Why nothing was received.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ReceiveError {
    /// The operating system said so; `EAGAIN` for a non-blocking socket without input, or after the socket's timeout.
    #[error("receiving: {0}")]
    Os(#[from] Errno),
    /// Descriptors were lost: more came than [`MAX_FDS`], or this process may not open more.
    #[error(
        "descriptors came that could not be taken: more than {MAX_FDS}, or the limit of open files is reached"
    )]
    DescriptorsLost,
}

/// Receives into `buffer`, which must not be empty, and appends descriptors that came to `fds`.
///
/// Returns the number of bytes; 0 means that the peer has closed. The kernel ends a receive behind the bytes that
/// descriptors were sent with, so descriptors belong to the message that the last of the bytes belongs to.
///
/// # Errors
///
/// [`ReceiveError`]. Descriptors that came with a failed call are closed.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<usize, ReceiveError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let had = fds.len();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() - had > MAX_FDS {
        fds.truncate(had);
        return Err(ReceiveError::DescriptorsLost);
    }
    Ok(received.bytes)
}

/// Sends `parts` one behind the other, with `fds`, and returns how many bytes went.
///
/// If that is fewer than given, the descriptors have gone with the first ones: the rest is to be sent without.
///
/// # Errors
///
/// The operating system's; `EINVAL` for more than [`MAX_FDS`] descriptors. A closed peer is `EPIPE`, never a signal.
pub fn send(
    socket: impl AsFd,
    parts: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    if fds.len() > MAX_FDS {
        return Err(Errno::INVAL);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::INVAL);
    }
    loop {
        match sendmsg(&socket, parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_getfd};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    /// Sends `count` duplicates of one descriptor with one byte, past the bound of [`send`].
    fn send_many(socket: &OwnedFd, count: usize) {
        let file = File::open("/dev/null").unwrap();
        let fds = vec![file.as_fd(); count];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(
            socket,
            &[IoSlice::new(&[7])],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
    }

    #[test]
    fn descriptors_arrive_with_their_bytes_and_close_on_exec() {
        let (a, b) = pair();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(
            &a,
            &[IoSlice::new(b"ab"), IoSlice::new(b"c")],
            &[writer.as_fd()],
        )
        .unwrap();
        drop(writer);

        let mut buffer = [0; 8];
        let mut fds = Vec::new();
        let bytes = receive(&b, &mut buffer, &mut fds).unwrap();

        assert_eq!(&buffer[..bytes], b"abc");
        assert_eq!(fds.len(), 1);
        assert!(fcntl_getfd(&fds[0]).unwrap().contains(FdFlags::CLOEXEC));
        rustix::io::write(&fds[0], b"through").unwrap();
        drop(fds);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn a_receive_ends_behind_the_message_that_brought_descriptors() {
        let (a, b) = pair();
        let file = File::open("/dev/null").unwrap();
        send(&a, &[IoSlice::new(b"one")], &[]).unwrap();
        send(&a, &[IoSlice::new(b"two")], &[file.as_fd()]).unwrap();
        send(&a, &[IoSlice::new(b"three")], &[]).unwrap();

        let mut buffer = [0; 64];
        let mut fds = Vec::new();
        let first = receive(&b, &mut buffer, &mut fds).unwrap();

        assert_eq!(&buffer[..first], b"onetwo");
        assert_eq!(fds.len(), 1);
    }

    #[test]
    fn sixteen_descriptors_are_taken() {
        let (a, b) = pair();
        send_many(&a, MAX_FDS);

        let mut fds = Vec::new();
        receive(&b, &mut [0; 8], &mut fds).unwrap();

        assert_eq!(fds.len(), MAX_FDS);
    }

    #[test]
    fn more_than_sixteen_descriptors_are_refused_and_closed() {
        for count in [MAX_FDS + 1, MAX_FDS + 2, 64] {
            let (a, b) = pair();
            send_many(&a, count);
            let mut fds = Vec::new();

            let error = receive(&b, &mut [0; 8], &mut fds).unwrap_err();

            assert_eq!(error, ReceiveError::DescriptorsLost, "{count}");
            assert!(fds.is_empty());
        }
    }

    #[test]
    fn sending_more_than_sixteen_is_refused() {
        let (a, _b) = pair();
        let file = File::open("/dev/null").unwrap();

        let error = send(&a, &[IoSlice::new(b"x")], &[file.as_fd(); MAX_FDS + 1]).unwrap_err();

        assert_eq!(error, Errno::INVAL);
    }

    #[test]
    fn sending_to_a_closed_peer_is_an_error_and_no_signal() {
        let (a, b) = pair();
        drop(b);

        let error = send(&a, &[IoSlice::new(b"x")], &[]).unwrap_err();

        assert_eq!(error, Errno::PIPE);
        assert!(a.as_raw_fd() >= 0);
    }
}
