//! A client that sends whatever it is told to.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use potemkin_vfio_user::message::{Capabilities, Version};
use potemkin_vfio_user::{Command, HEADER_LEN, Header, fdpass};

pub struct Raw {
    socket: UnixStream,
}

impl Raw {
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self { socket }
    }

    /// Agrees on a version.
    pub fn negotiate(&mut self) {
        let mut payload = Vec::new();
        Version {
            major: 0,
            minor: 2,
            capabilities: Capabilities::ours(1),
        }
        .encode(&mut payload);
        let (header, _) = self.ask(Command::Version, &payload, &[]);
        assert!(!header.failed);
    }

    /// Its end of the connection, to be sent away.
    pub fn end(&self) -> OwnedFd {
        self.socket.try_clone().unwrap().into()
    }

    /// Sends bytes; an error means that the server has closed already, which the caller finds out by reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Sends bytes with descriptors.
    pub fn send_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let _ = fdpass::send(&self.socket, &[IoSlice::new(bytes)], fds);
    }

    /// Sends a message with a true header and waits for the reply.
    pub fn ask(
        &mut self,
        command: Command,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> (Header, Vec<u8>) {
        self.send_with(&message(7, command, payload), fds);
        self.reply().expect("the server replies")
    }

    /// The next reply; none if the server has closed.
    pub fn reply(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = [0; HEADER_LEN];
        self.fill(&mut bytes)?;
        let header = Header::decode(&bytes).unwrap().unwrap();
        let mut payload = vec![0; header.payload_len()];
        self.fill(&mut payload)?;
        Some((header, payload))
    }

    fn fill(&mut self, out: &mut [u8]) -> Option<()> {
        match self.socket.read_exact(out) {
            Ok(()) => Some(()),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                None
            }
            Err(error) => panic!("neither a reply nor the end: {error}"),
        }
    }

    /// Reads replies until the server closes, and returns how many came.
    pub fn until_closed(&mut self) -> usize {
        std::iter::from_fn(|| self.reply()).count()
    }

    pub fn close_writing(&self) {
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// A message with a true header.
pub fn message(id: u16, command: Command, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header::command(id, command, u32::try_from(payload.len()).unwrap()).encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}
