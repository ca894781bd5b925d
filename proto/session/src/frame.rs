//! Frames: the clear header and the body, between bytes and typed values.

use bytes::{BufMut, Bytes, BytesMut};
use potemkin_proto::v1::{FrameHeader, SessionAccept, SessionClose, SessionOpen};
use prost::{Message, encoding::encode_varint};

use crate::{batch::BatchWriter, ids::Path, violation::Violation};

/// Largest frame, in bytes; the length prefix on QUIC is not counted.
pub const MAX_FRAME_BYTES: usize = 65_536;
/// Largest header, in bytes.
pub const MAX_HEADER_BYTES: usize = 256;
/// Room for a batch in a frame whose header has its greatest length: two tags and two lengths take up to 16 bytes.
pub(crate) const MAX_BATCH_BYTES: usize = MAX_FRAME_BYTES - MAX_HEADER_BYTES - 16;

/// Protobuf tags of `Frame.header` and `Frame.batch`.
const TAG_HEADER: u8 = 0x0a;
const TAG_BATCH: u8 = 0x12;

/// A decoded frame; the batch's items are still to be read.
#[derive(Debug)]
pub struct Frame {
    /// The clear header.
    pub header: FrameHeader,
    /// What it carries.
    pub body: Body,
}

/// A frame carries at most one of these.
#[derive(Debug)]
pub enum Body {
    /// Nothing: an acknowledgement alone.
    Empty,
    /// Items, encoded.
    Batch(Bytes),
    /// First frame forward.
    Open(SessionOpen),
    /// First frame in reverse.
    Accept(SessionAccept),
    /// Last frame.
    Close(SessionClose),
}

/// `Frame` with the batch left as bytes: the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct RawFrame {
    #[prost(message, optional, tag = "1")]
    header: Option<FrameHeader>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    batch: Option<Bytes>,
    #[prost(message, optional, tag = "3")]
    open: Option<SessionOpen>,
    #[prost(message, optional, tag = "4")]
    accept: Option<SessionAccept>,
    #[prost(message, optional, tag = "5")]
    close: Option<SessionClose>,
}

impl Frame {
    /// Decodes the bytes that a transport delivered.
    ///
    /// # Errors
    /// When they are too long, no valid message, lack a header or have two bodies.
    pub fn decode(bytes: Bytes) -> Result<Self, Violation> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(Violation::FrameTooLong {
                len: bytes.len(),
                limit: MAX_FRAME_BYTES,
            });
        }
        let raw = RawFrame::decode(bytes).map_err(|e| Violation::Malformed(e.to_string()))?;
        let header = raw.header.ok_or(Violation::NoHeader)?;
        let body = match (raw.batch, raw.open, raw.accept, raw.close) {
            (None, None, None, None) => Body::Empty,
            (Some(batch), None, None, None) => Body::Batch(batch),
            (None, Some(open), None, None) => Body::Open(open),
            (None, None, Some(accept), None) => Body::Accept(accept),
            (None, None, None, Some(close)) => Body::Close(close),
            _ => {
                return Err(Violation::Unexpected {
                    body: "frame",
                    when: "with more than one body",
                });
            }
        };
        Ok(Self { header, body })
    }

    /// Encodes a frame that carries no batch.
    pub fn encode(self) -> Bytes {
        let mut raw = RawFrame {
            header: Some(self.header),
            ..RawFrame::default()
        };
        match self.body {
            Body::Empty => {}
            Body::Batch(batch) => raw.batch = Some(batch),
            Body::Open(open) => raw.open = Some(open),
            Body::Accept(accept) => raw.accept = Some(accept),
            Body::Close(close) => raw.close = Some(close),
        }
        raw.encode_to_vec().into()
    }
}

/// A header for this path, all else zero.
pub(crate) fn header_for(path: Path) -> FrameHeader {
    let (session_hi, session_lo) = path.session.halves();
    FrameHeader {
        session_hi,
        session_lo,
        epoch: path.epoch.0,
        attach_number: path.attach_number.0,
        ..FrameHeader::default()
    }
}

/// The first field that disagrees with the path, as a violation.
pub(crate) fn check_path(header: &FrameHeader, path: Path) -> Result<(), Violation> {
    let expected = header_for(path);
    for (field, found, expected) in [
        ("session_hi", header.session_hi, expected.session_hi),
        ("session_lo", header.session_lo, expected.session_lo),
        ("epoch", header.epoch, expected.epoch),
        (
            "attach_number",
            u64::from(header.attach_number),
            u64::from(expected.attach_number),
        ),
    ] {
        check(field, found, expected)?;
    }
    Ok(())
}

/// The first count that differs between header and body, as a violation.
pub(crate) fn check_counts(header: &FrameHeader, body: &FrameHeader) -> Result<(), Violation> {
    for (field, found, expected) in [
        ("posted", header.posted, body.posted),
        ("non_posted", header.non_posted, body.non_posted),
        ("events", header.events, body.events),
        ("completions", header.completions, body.completions),
        ("dma_writes", header.dma_writes, body.dma_writes),
        ("dma_reads", header.dma_reads, body.dma_reads),
        ("interrupts", header.interrupts, body.interrupts),
        ("pushes", header.pushes, body.pushes),
    ] {
        check(field, u64::from(found), u64::from(expected))?;
    }
    Ok(())
}

/// `found` must be `expected`.
pub(crate) fn check(field: &'static str, found: u64, expected: u64) -> Result<(), Violation> {
    if found == expected {
        Ok(())
    } else {
        Err(Violation::Header {
            field,
            found,
            expected,
        })
    }
}

/// Encodes a frame with the batch, which is empty afterwards. `header` needs no counts: they come from the batch.
pub(crate) fn encode_batch(mut header: FrameHeader, batch: &mut BatchWriter) -> Bytes {
    let counts = batch.counts();
    header.posted = counts.posted;
    header.non_posted = counts.non_posted;
    header.events = counts.events;
    header.completions = counts.completions;
    header.dma_writes = counts.dma_writes;
    header.dma_reads = counts.dma_reads;
    header.interrupts = counts.interrupts;
    let batch_len = batch.encoded_len();
    let mut out = BytesMut::with_capacity(MAX_HEADER_BYTES + 16 + batch_len);
    out.put_u8(TAG_HEADER);
    encode_varint(header.encoded_len() as u64, &mut out);
    // Writing to a BytesMut cannot fail: it grows.
    header.encode_raw(&mut out);
    if batch_len > 0 {
        out.put_u8(TAG_BATCH);
        encode_varint(batch_len as u64, &mut out);
        batch.take_into(&mut out);
    }
    debug_assert!(out.len() <= MAX_FRAME_BYTES);
    out.freeze()
}
