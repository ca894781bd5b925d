//! DMA reads: what the device asked for, put together from the answers to its pieces.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::ITEM_BYTES;
use crate::{
    access::{DmaError, MAX_DMA_BYTES, ReverseItem},
    violation::Violation,
};

#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Oldest first.
    requests: VecDeque<Request>,
    next_id: u64,
    /// Id and length of the pieces that are sent and whose answer has not come.
    sent: VecDeque<(u64, usize)>,
    /// Bytes asked for and not given to the device.
    reserved: usize,
}

#[derive(Debug)]
struct Request {
    /// The device's; none when it does not wait any more.
    tag: Option<u64>,
    last_id: u64,
    length: usize,
    pieces_left: usize,
    buffer: BytesMut,
    error: Option<DmaError>,
}

/// A part of a request that is one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) generation: u64,
    pub(super) id: u64,
    pub(super) address: u64,
    pub(super) length: usize,
}

impl From<Piece> for ReverseItem {
    fn from(piece: Piece) -> Self {
        Self::DmaRead {
            generation: piece.generation,
            id: piece.id,
            address: piece.address,
            length: piece.length,
        }
    }
}

/// A request that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) tag: u64,
    pub(super) outcome: Result<Bytes, DmaError>,
}

impl Reads {
    /// Bytes asked for and not given to the device, and [`ITEM_BYTES`] for each request.
    pub(super) fn reserved(&self) -> usize {
        self.reserved + ITEM_BYTES * self.requests.len()
    }

    /// The pieces of a request.
    pub(super) fn ask(
        &mut self,
        generation: u64,
        address: u64,
        length: usize,
        tag: u64,
    ) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(length.div_ceil(MAX_DMA_BYTES));
        for start in (0..length).step_by(MAX_DMA_BYTES) {
            pieces.push(Piece {
                generation,
                id: self.next_id,
                address: address.wrapping_add(start as u64),
                length: MAX_DMA_BYTES.min(length - start),
            });
            self.next_id += 1;
        }
        self.reserved += length;
        self.requests.push_back(Request {
            tag: Some(tag),
            last_id: self.next_id.wrapping_sub(1),
            length,
            pieces_left: pieces.len(),
            buffer: BytesMut::new(),
            error: None,
        });
        pieces
    }

    /// This piece is on its way.
    pub(super) fn sent(&mut self, id: u64, length: usize) {
        self.sent.push_back((id, length));
    }

    /// An answer came: it must be to the oldest piece. Gives the piece's length.
    pub(super) fn arrived(
        &mut self,
        id: u64,
        outcome: &Result<Bytes, DmaError>,
    ) -> Result<usize, Violation> {
        let wrong = |problem| Violation::DmaReadData { id, problem };
        let (_, length) = self
            .sent
            .front()
            .copied()
            .filter(|(oldest, _)| *oldest == id)
            .ok_or_else(|| wrong("not the oldest request that is unanswered"))?;
        if outcome.as_ref().is_ok_and(|data| data.len() != length) {
            return Err(wrong("length of data"));
        }
        self.sent.pop_front();
        Ok(length)
    }

    /// An answer's turn has come.
    pub(super) fn take(&mut self, id: u64, outcome: Result<Bytes, DmaError>) {
        let Some(request) = self.of(id) else { return };
        request.pieces_left -= 1;
        match outcome {
            Ok(data) if request.error.is_none() && request.tag.is_some() => {
                request.buffer.extend_from_slice(&data);
            }
            Ok(_) => {}
            Err(error) => request.error = request.error.or(Some(error)),
        }
    }

    /// These pieces are not sent: bus mastering was turned off.
    pub(super) fn dropped(&mut self, ids: &[u64]) {
        for id in ids {
            self.take(*id, Err(DmaError::Disabled));
        }
    }

    /// The device was reset and waits for nothing any more.
    pub(super) fn abandon(&mut self) {
        for request in &mut self.requests {
            request.tag = None;
            request.buffer = BytesMut::new();
        }
    }

    /// The oldest request, if it is over.
    pub(super) fn finished(&mut self) -> Option<Finished> {
        loop {
            self.requests.front().filter(|r| r.pieces_left == 0)?;
            let request = self.requests.pop_front()?;
            self.reserved -= request.length;
            let outcome = match request.error {
                None => Ok(request.buffer.freeze()),
                Some(error) => Err(error),
            };
            if let Some(tag) = request.tag {
                return Some(Finished { tag, outcome });
            }
        }
    }

    fn of(&mut self, id: u64) -> Option<&mut Request> {
        self.requests.iter_mut().find(|r| id <= r.last_id)
    }
}
