//! Frames out of the chunks that a transport yields.

use bytes::{Buf, Bytes, BytesMut};

use super::Prefix;
use crate::TransportError;

/// Splits chunks into frames. A frame that lies within one chunk is a slice of it; one that spans chunks is copied together.
/// Memory follows the bytes that came, not the length that a peer states.
#[derive(Debug)]
pub(crate) struct Deframer {
    prefix: Prefix,
    /// What is left of the newest chunk.
    chunk: Bytes,
    /// A prefix and payload that earlier chunks began, if not empty.
    partial: BytesMut,
}

impl Deframer {
    pub(crate) fn new(prefix: Prefix) -> Self {
        Self {
            prefix,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
        }
    }

    /// Adds a chunk. Only after [`Deframer::next`] returned `None`.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// The next frame, or `None` if more chunks are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        if self.chunk.is_empty() {
            return Ok(None);
        }
        if self.partial.is_empty()
            && let Some(frame) = self.slice()?
        {
            return Ok(Some(frame));
        }
        self.assemble()
    }

    /// The peer ended the stream.
    pub(crate) fn end(&self) -> Result<(), TransportError> {
        let received = self.partial.len();
        if received == 0 {
            return Ok(());
        }
        let prefix = self.prefix.bytes();
        let (field, received, expected) = if received < prefix {
            ("length prefix", received, prefix)
        } else {
            (
                "payload",
                received - prefix,
                self.prefix.parse(&self.partial)?,
            )
        };
        Err(TransportError::Truncated {
            field,
            received,
            expected,
        })
    }

    /// A frame that lies within the chunk.
    fn slice(&mut self) -> Result<Option<Bytes>, TransportError> {
        let prefix = self.prefix.bytes();
        if self.chunk.len() < prefix {
            return Ok(None);
        }
        let length = self.prefix.parse(&self.chunk)?;
        if self.chunk.len() - prefix < length {
            return Ok(None);
        }
        self.chunk.advance(prefix);
        let frame = self.chunk.split_to(length);
        self.release_empty_chunk();
        Ok(Some(frame))
    }

    /// A frame that spans chunks.
    fn assemble(&mut self) -> Result<Option<Bytes>, TransportError> {
        let prefix = self.prefix.bytes();
        if !self.fill(prefix) {
            return Ok(None);
        }
        let length = self.prefix.parse(&self.partial)?;
        if !self.fill(prefix + length) {
            return Ok(None);
        }
        // The buffer goes with the frame, so that an idle stream keeps none.
        let mut whole = std::mem::take(&mut self.partial);
        whole.advance(prefix);
        Ok(Some(whole.freeze()))
    }

    /// Moves bytes from the chunk until `partial` has `wanted`. Whether it has.
    fn fill(&mut self, wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.partial.len());
        let part = missing.min(self.chunk.len());
        if part > 0 {
            self.reserve(wanted, part);
            self.partial.extend_from_slice(&self.chunk[..part]);
            self.chunk.advance(part);
            self.release_empty_chunk();
        }
        part == missing
    }

    /// Room for `part` more bytes of `wanted`: at most four times what came, so that few reallocations are needed and a
    /// stated length alone takes no memory.
    fn reserve(&mut self, wanted: usize, part: usize) {
        let have = self.partial.len() + part;
        if self.partial.capacity() < have {
            let target = wanted.min(have.saturating_mul(4));
            self.partial.reserve(target - self.partial.len());
        }
    }

    /// An empty slice would keep its datagram alive.
    fn release_empty_chunk(&mut self) {
        if self.chunk.is_empty() {
            self.chunk = Bytes::new();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(stream: &[u8], chunk_bytes: usize) -> Vec<Bytes> {
        let mut deframer = Deframer::new(Prefix::Quic);
        let mut frames = Vec::new();
        for chunk in stream.chunks(chunk_bytes) {
            deframer.push(Bytes::copy_from_slice(chunk));
            while let Some(frame) = deframer.next().unwrap() {
                frames.push(frame);
            }
        }
        deframer.end().unwrap();
        frames
    }

    #[test]
    fn any_chunking_gives_the_same_frames() {
        let stream = b"\0\0\0\x02ab\0\0\0\0\0\0\0\x05cdefg";

        for chunk_bytes in 1..=stream.len() {
            assert_eq!(split(stream, chunk_bytes), [&b"ab"[..], b"", b"cdefg"]);
        }
    }

    #[test]
    fn frame_within_a_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"\0\0\0\x02ab\0\0\0\x01c");
        let mut deframer = Deframer::new(Prefix::Quic);

        deframer.push(chunk.clone());

        let frame = deframer.next().unwrap().unwrap();
        assert_eq!(frame.as_ptr(), chunk[4..].as_ptr());
    }

    #[test]
    fn stated_length_alone_takes_no_memory() {
        let mut deframer = Deframer::new(Prefix::Quic);

        deframer.push(Bytes::from_static(b"\0\x01\0\0x"));

        assert_eq!(deframer.next().unwrap(), None);
        assert!(deframer.partial.capacity() <= 64);
    }

    #[test]
    fn excessive_length_is_refused_before_its_bytes_come() {
        let mut deframer = Deframer::new(Prefix::Quic);

        deframer.push(Bytes::from(70_000_u32.to_be_bytes().to_vec()));

        let error = deframer.next().unwrap_err();
        assert_eq!(error.to_string(), "frame length 70000 exceeds 65536");
    }

    #[test]
    fn end_within_a_frame_names_the_field() {
        let end_after = |bytes: &'static [u8]| {
            let mut deframer = Deframer::new(Prefix::Quic);
            deframer.push(Bytes::from_static(bytes));
            assert_eq!(deframer.next().unwrap(), None);
            deframer.end().unwrap_err().to_string()
        };

        assert_eq!(
            end_after(b"\0\0"),
            "stream ended within a frame: 2 of 4 bytes of its length prefix came"
        );
        assert_eq!(
            end_after(b"\0\0\0\x09abc"),
            "stream ended within a frame: 3 of 9 bytes of its payload came"
        );
    }

    #[test]
    fn compressed_grpc_message_is_refused() {
        let mut deframer = Deframer::new(Prefix::Grpc);

        deframer.push(Bytes::from_static(b"\x01\0\0\0\x01x"));

        assert_eq!(
            deframer.next().unwrap_err().to_string(),
            "gRPC compressed flag is 1: must be 0, frames are never compressed"
        );
    }
}
