//! The socket: one message out, its reply in, the server's own requests answered in between.

use std::fmt;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::error::ClientError;
use super::memory::{GuestMemory, answer};
use crate::{Command, HEADER_LEN, Header, MAX_DATA_XFER, MessageType, fdpass};

/// Bytes of a receive while no message needs more.
const RECEIVE: usize = 4096;

/// Most stale replies dropped while one is awaited: a server cannot keep a client busy with them.
const MAX_STALE: usize = 1024;

pub(super) struct Connection {
    socket: OwnedFd,
    next_id: u16,
    /// Room for what is received; `filled` of it is, `consumed` of that is done with.
    input: Vec<u8>,
    consumed: usize,
    filled: usize,
    /// The message being built.
    output: Vec<u8>,
    /// Descriptors received; the client asks for none, so they are closed.
    fds: Vec<OwnedFd>,
    memory: Option<Box<dyn GuestMemory>>,
    /// Most bytes of one access.
    limit: u32,
    /// How many commands were given up for lack of time: that many replies may still come.
    abandoned: usize,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .field("next_id", &self.next_id)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket, timeout)
    }

    pub(super) fn new(socket: OwnedFd, timeout: Duration) -> Result<Self, ClientError> {
        let mut connection = Self {
            socket,
            next_id: 0,
            input: vec![0; RECEIVE],
            consumed: 0,
            filled: 0,
            output: Vec::with_capacity(RECEIVE),
            fds: Vec::new(),
            memory: None,
            limit: MAX_DATA_XFER,
            abandoned: 0,
        };
        connection.set_timeout(Some(timeout))?;
        Ok(connection)
    }

    pub(super) fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ClientError> {
        set_socket_timeout(&self.socket, Timeout::Recv, timeout)?;
        set_socket_timeout(&self.socket, Timeout::Send, timeout)?;
        Ok(())
    }

    pub(super) fn set_memory(&mut self, memory: Box<dyn GuestMemory>) {
        self.memory = Some(memory);
    }

    pub(super) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Sends a command with the payload that `encode` appends, waits for its reply and returns the reply's payload.
    pub(super) fn call(
        &mut self,
        command: Command,
        fds: &[BorrowedFd<'_>],
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<&[u8], ClientError> {
        let id = self.begin(command, false, encode);
        self.send_output(fds)?;
        let range = self.await_reply(id, command)?;
        Ok(&self.input[range])
    }

    /// Puts one message into the output, behind what is there if `begin` was not preceded by [`Self::send_output`].
    pub(super) fn begin(
        &mut self,
        command: Command,
        no_reply: bool,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> u16 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let start = self.output.len();
        let mut header = Header {
            no_reply,
            ..Header::command(id, command, 0)
        };
        header.encode(&mut self.output);
        encode(&mut self.output);
        // Only now is the length known; it is at bytes 4 to 8 of the header.
        header.size = u32::try_from(self.output.len() - start).unwrap_or(u32::MAX);
        self.output[start + 4..start + 8].copy_from_slice(&header.size.to_ne_bytes());
        id
    }

    /// Bytes that wait for [`Self::send_output`].
    pub(super) fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Sends what was put into the output.
    pub(super) fn send_output(&mut self, fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let sent = send_all(&self.socket, &self.output, fds);
        self.output.clear();
        sent
    }

    /// Answers one request of the server's.
    pub(super) fn serve(&mut self) -> Result<(), ClientError> {
        loop {
            let (header, payload) = self.receive_message()?;
            if header.message_type == MessageType::Command {
                return self.answer(&header, payload);
            }
            self.stale(header.id)?;
        }
    }

    fn await_reply(&mut self, id: u16, command: Command) -> Result<Range<usize>, ClientError> {
        loop {
            let (header, payload) = match self.receive_message() {
                Err(ClientError::Timeout) => {
                    self.abandoned = (self.abandoned + 1).min(MAX_STALE);
                    return Err(ClientError::Timeout);
                }
                other => other?,
            };
            if header.message_type == MessageType::Command {
                self.answer(&header, payload)?;
            } else if header.id != id || header.command != command.code() {
                self.stale(header.id)?;
            } else if header.failed {
                return Err(ClientError::Refused {
                    command: command.name(),
                    errno: header.errno(),
                });
            } else {
                return Ok(payload);
            }
        }
    }

    /// A reply came that is not the awaited one: fine if it is to a command that was given up.
    fn stale(&mut self, id: u16) -> Result<(), ClientError> {
        self.abandoned = self
            .abandoned
            .checked_sub(1)
            .ok_or(ClientError::UnexpectedReply(id))?;
        Ok(())
    }

    fn answer(&mut self, header: &Header, payload: Range<usize>) -> Result<(), ClientError> {
        self.output.clear();
        answer(
            self.memory.as_deref_mut(),
            header,
            &self.input[payload],
            self.limit,
            &mut self.output,
        );
        if header.no_reply {
            self.output.clear();
            return Ok(());
        }
        self.send_output(&[])
    }

    /// The next whole message: its header, and where its payload is in the input until the next receive.
    fn receive_message(&mut self) -> Result<(Header, Range<usize>), ClientError> {
        loop {
            let unread = &self.input[self.consumed..self.filled];
            let mut wanted = HEADER_LEN;
            if let Some(header) = Header::decode(unread)? {
                wanted = header.size as usize;
                if unread.len() >= wanted {
                    let end = self.consumed + wanted;
                    let payload = self.consumed + HEADER_LEN..end;
                    self.consumed = end;
                    return Ok((header, payload));
                }
            }
            self.make_room(wanted);
            self.receive()?;
        }
    }

    /// Moves what is unread to the front, and lets the input hold a message of `wanted` bytes.
    fn make_room(&mut self, wanted: usize) {
        self.input.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
        if self.input.len() < wanted.max(self.filled + 1) {
            self.input.resize(wanted.max(self.filled + 1), 0);
        }
    }

    fn receive(&mut self) -> Result<(), ClientError> {
        let received = fdpass::receive(&self.socket, &mut self.input[self.filled..], &mut self.fds);
        self.fds.clear();
        match received? {
            0 => Err(ClientError::Closed),
            bytes => {
                self.filled += bytes;
                Ok(())
            }
        }
    }
}

/// Sends all of `bytes`, the descriptors with the first of them.
fn send_all(
    socket: &OwnedFd,
    mut bytes: &[u8],
    mut fds: &[BorrowedFd<'_>],
) -> Result<(), ClientError> {
    while !bytes.is_empty() {
        let sent =
            fdpass::send(socket, &[IoSlice::new(bytes)], fds).map_err(ClientError::from_send)?;
        bytes = &bytes[sent..];
        fds = &[];
    }
    Ok(())
}
