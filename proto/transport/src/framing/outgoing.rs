//! The queue of one stream's outgoing frames, as the segments that a transport takes.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Prefix, check_length};
use crate::TransportError;

/// Frames up to this length are copied into a block with their neighbours: transports are slow with many tiny segments, and
/// a small frame would keep alive the whole datagram that it came in. Longer ones are handed on without a copy.
const COPY_MAX_BYTES: usize = 4_096;
/// Size of a new block, in bytes. Small, because an idle session keeps one.
const BLOCK_BYTES: usize = 4_096;
/// A block of so many bytes is a segment: it grows no further.
const SEGMENT_BYTES: usize = 16_384;

/// A bounded queue of frames with their prefixes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    prefix: Prefix,
    /// What is ready to go, oldest first. None is empty.
    segments: VecDeque<Bytes>,
    /// What comes after `segments` and may still grow.
    block: BytesMut,
    queued: usize,
    limit: usize,
}

impl Outgoing {
    /// An empty queue for at most `limit` bytes.
    pub(crate) fn new(prefix: Prefix, limit: usize) -> Self {
        Self {
            prefix,
            segments: VecDeque::new(),
            block: BytesMut::new(),
            queued: 0,
            limit,
        }
    }

    /// Bytes that no transport has taken yet, prefixes included.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Adds a frame.
    pub(crate) fn push(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let length = check_length(frame.len())? + self.prefix.bytes();
        if length > self.limit.saturating_sub(self.queued) {
            return Err(TransportError::Overflow {
                queued: self.queued,
                length,
                limit: self.limit,
            });
        }
        self.queued += length;
        if frame.len() <= COPY_MAX_BYTES {
            self.put_prefix(frame.len(), frame.len());
            self.block.put_slice(&frame);
        } else {
            self.put_prefix(frame.len(), 0);
            self.seal();
            self.segments.push_back(frame);
        }
        Ok(())
    }

    /// Takes the oldest segment.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        self.seal();
        let segment = self.segments.pop_front()?;
        self.queued -= segment.len();
        Some(segment)
    }

    /// All segments, for a transport that takes from their front; then [`Outgoing::taken`].
    pub(crate) fn segments(&mut self) -> &mut [Bytes] {
        self.seal();
        self.segments.make_contiguous()
    }

    /// A transport emptied the first `segments` and took `bytes` in all.
    pub(crate) fn taken(&mut self, segments: usize, bytes: usize) {
        self.segments.drain(..segments);
        self.queued -= bytes;
    }

    /// Forgets all frames.
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.block = BytesMut::new();
        self.queued = 0;
    }

    /// Writes a prefix with room for `more` bytes behind it.
    fn put_prefix(&mut self, length: usize, more: usize) {
        if self.block.len() >= SEGMENT_BYTES {
            self.seal();
        }
        let room = self.prefix.bytes() + more;
        if self.block.capacity() - self.block.len() < room {
            self.block.reserve(room.max(BLOCK_BYTES));
        }
        if self.prefix == Prefix::Grpc {
            self.block.put_u8(0);
        }
        // At most MAX_FRAME_BYTES: checked in `push`.
        self.block
            .put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn seal(&mut self) {
        if !self.block.is_empty() {
            self.segments.push_back(self.block.split().freeze());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::MAX_FRAME_BYTES;

    fn drain(queue: &mut Outgoing) -> Vec<Bytes> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn small_frames_share_a_segment() {
        let mut queue = Outgoing::new(Prefix::Quic, 1_024);

        queue.push(Bytes::from_static(b"ab")).unwrap();
        queue.push(Bytes::from_static(b"")).unwrap();
        queue.push(Bytes::from_static(b"c")).unwrap();

        assert_eq!(queue.queued(), 15);
        assert_eq!(drain(&mut queue), [&b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c"[..]]);
        assert_eq!(queue.queued(), 0);
    }

    #[test]
    fn long_frame_is_not_copied() {
        let mut queue = Outgoing::new(Prefix::Grpc, 1 << 20);
        let frame = Bytes::from(vec![7; MAX_FRAME_BYTES]);

        queue.push(frame.clone()).unwrap();

        let segments = drain(&mut queue);
        assert_eq!(segments[0], &b"\0\0\x01\0\0"[..]);
        assert_eq!(segments[1].as_ptr(), frame.as_ptr());
    }

    #[test]
    fn frame_beyond_the_maximum_is_refused() {
        let mut queue = Outgoing::new(Prefix::Quic, 1 << 20);

        let error = queue.push(vec![0; MAX_FRAME_BYTES + 1].into()).unwrap_err();

        assert_eq!(error.to_string(), "frame length 65537 exceeds 65536");
        assert_eq!(queue.queued(), 0);
    }

    #[test]
    fn full_queue_refuses_and_keeps_what_it_has() {
        let mut queue = Outgoing::new(Prefix::Quic, 10);
        queue.push(Bytes::from_static(b"abc")).unwrap();

        let error = queue.push(Bytes::from_static(b"")).unwrap_err();

        assert!(matches!(
            error,
            TransportError::Overflow {
                queued: 7,
                length: 4,
                limit: 10
            }
        ));
        assert_eq!(drain(&mut queue), [&b"\0\0\0\x03abc"[..]]);
    }

    #[test]
    fn partly_taken_segment_stays() {
        let mut queue = Outgoing::new(Prefix::Quic, 1_024);
        queue.push(Bytes::from_static(b"abc")).unwrap();

        queue.segments()[0] = Bytes::from_static(b"bc");
        queue.taken(0, 5);
        queue.push(Bytes::from_static(b"d")).unwrap();

        assert_eq!(queue.queued(), 7);
        assert_eq!(drain(&mut queue), [&b"bc"[..], &b"\0\0\0\x01d"[..]]);
    }

    #[test]
    fn segments_of_small_frames_are_bounded() {
        let mut queue = Outgoing::new(Prefix::Quic, 1 << 20);

        for _ in 0..100 {
            queue.push(vec![1; 1_000].into()).unwrap();
        }

        let longest = drain(&mut queue).iter().map(Bytes::len).max();
        assert!(longest.unwrap() <= SEGMENT_BYTES + COPY_MAX_BYTES);
    }
}
