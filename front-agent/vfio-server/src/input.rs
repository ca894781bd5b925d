//! What has come from the client and is not handled yet.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use potemkin_vfio_user::fdpass::{self, MAX_FDS, ReceiveError};
use potemkin_vfio_user::{HEADER_LEN, Header, HeaderError, MAX_DATA_XFER};

use crate::descriptors::{Bundle, Inherited};
use crate::saved::{RestoreError, SavedInput};

/// Bytes of one receive: 1,600 posted register writes. It grows to the longest message, 64 KiB, if one comes.
const ROOM: usize = 64 << 10;

/// Bytes and descriptors, in order.
pub(crate) struct Input {
    bytes: Vec<u8>,
    /// `bytes[start..end]` is not handled yet.
    start: usize,
    end: usize,
    /// Each with the place of the last byte of the receive that brought it; see [`fdpass::receive`].
    fds: Vec<(usize, OwnedFd)>,
    /// Where a receive puts descriptors.
    arrived: Vec<OwnedFd>,
}

/// What a receive has brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes, and maybe more are waiting.
    More,
    /// Bytes, and the socket is empty now.
    Drained,
    /// The client has closed.
    Closed,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; ROOM],
            start: 0,
            end: 0,
            fds: Vec::new(),
            arrived: Vec::new(),
        }
    }

    /// What was saved, for the messages that follow.
    pub(crate) fn restore(
        saved: &SavedInput,
        inherited: &mut Inherited,
    ) -> Result<Self, RestoreError> {
        let mut input = Self::new();
        let end = saved.bytes.len();
        if end > input.bytes.len() + HEADER_LEN + MAX_DATA_XFER as usize
            || saved.fds.len() > 2 * MAX_FDS
            || !saved.fds.iter().all(|&(last, _)| last < end)
        {
            return Err(RestoreError::Invalid("input"));
        }
        if input.bytes.len() < end {
            input.bytes.resize(end, 0);
        }
        input.bytes[..end].copy_from_slice(&saved.bytes);
        input.end = end;
        for &(last, fd) in &saved.fds {
            input.fds.push((last, inherited.take(fd)?));
        }
        Ok(input)
    }

    /// What is not handled: part of a message.
    pub(crate) fn save(&self, bundle: &mut Bundle) -> io::Result<SavedInput> {
        let fds = self.fds.iter();
        let fds = fds.map(|(last, fd)| Ok((last - self.start, bundle.add(fd)?)));
        Ok(SavedInput {
            bytes: self.bytes[self.start..self.end].to_vec(),
            fds: fds.collect::<io::Result<_>>()?,
        })
    }

    /// Whether part of a message is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Receives once from a non-blocking socket.
    pub(crate) fn receive(&mut self, socket: impl AsFd) -> Result<Received, ReceiveError> {
        self.make_room();
        let room = self.bytes.len() - self.end;
        let got = fdpass::receive(socket, &mut self.bytes[self.end..], &mut self.arrived)?;
        if got == 0 {
            return Ok(Received::Closed);
        }
        self.end += got;
        if self.arrived.is_empty() {
            // A stream socket fills the buffer as long as it has bytes.
            return Ok(if got < room {
                Received::Drained
            } else {
                Received::More
            });
        }
        let last = self.end - 1;
        self.fds.extend(self.arrived.drain(..).map(|fd| (last, fd)));
        // Descriptors end a receive, whatever is behind them. One message has no more than fit into one.
        if self.fds.len() > 2 * MAX_FDS {
            return Err(ReceiveError::DescriptorsLost);
        }
        Ok(Received::More)
    }

    /// The next whole message: its header, and where its payload is for [`Self::payload`].
    pub(crate) fn next(&mut self) -> Result<Option<(Header, Range<usize>)>, HeaderError> {
        let unread = &self.bytes[self.start..self.end];
        let Some(header) = Header::decode(unread)? else {
            return Ok(None);
        };
        let size = header.size as usize;
        if unread.len() < size {
            return Ok(None);
        }
        let payload = self.start + HEADER_LEN..self.start + size;
        self.start += size;
        Ok(Some((header, payload)))
    }

    /// The payload of the message that [`Self::next`] has returned last.
    pub(crate) fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// The descriptors that came with the message that [`Self::next`] has returned last.
    pub(crate) fn take_fds(&mut self) -> Vec<OwnedFd> {
        // Nearly every message: nothing to look for, nothing allocated.
        if self.fds.is_empty() {
            return Vec::new();
        }
        let of_it = self
            .fds
            .iter()
            .take_while(|&&(last, _)| last < self.start)
            .count();
        self.fds.drain(..of_it).map(|(_, fd)| fd).collect()
    }

    /// Moves what is unread to the front, and grows for the message that it is the beginning of.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            for (last, _) in &mut self.fds {
                *last -= self.start;
            }
            self.end -= self.start;
            self.start = 0;
        }
        // A header that does not decode has ended the connection before.
        if let Ok(Some(header)) = Header::decode(&self.bytes[..self.end]) {
            let size = header.size as usize;
            if self.bytes.len() < size {
                self.bytes.resize(size, 0);
            }
        }
    }
}
