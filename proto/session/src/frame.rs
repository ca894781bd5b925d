//! Frames: the clear header and the body, between bytes and typed values.

use bytes::{BufMut, Bytes, BytesMut};
use potemkin_proto::{
    check::{self, CHECK_BYTES, Check},
    v1::{FrameHeader, SessionAccept, SessionClose, SessionOpen, SessionResend},
};
use prost::{Message, encoding::encode_varint};

use crate::{
    RESUMABLE,
    batch::BatchWriter,
    ids::Path,
    planted::{self, Bug},
    violation::Violation,
};

/// Largest frame, in bytes; the length prefix on QUIC is not counted.
pub const MAX_FRAME_BYTES: usize = 65_536;
/// Largest header, in bytes.
pub const MAX_HEADER_BYTES: usize = 256;
/// Room for a batch in a frame whose header has its greatest length: two tags, two lengths and the check take up to 21 bytes.
pub(crate) const MAX_BATCH_BYTES: usize = MAX_FRAME_BYTES - MAX_HEADER_BYTES - 16 - CHECK_BYTES;

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
    /// It came with a check, which is right.
    pub checked: bool,
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
    /// What came was refused.
    Resend(SessionResend),
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
    #[prost(message, optional, tag = "6")]
    resend: Option<SessionResend>,
    #[prost(fixed32, optional, tag = "7")]
    check: Option<u32>,
}

impl Frame {
    /// Decodes the bytes that a transport delivered.
    ///
    /// # Errors
    /// When they are too long, no valid message, fail their check, lack a header or have two bodies.
    pub fn decode(bytes: Bytes) -> Result<Self, Violation> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(Violation::FrameTooLong {
                len: bytes.len(),
                limit: MAX_FRAME_BYTES,
            });
        }
        let raw =
            RawFrame::decode(bytes.clone()).map_err(|e| Violation::Malformed(e.to_string()))?;
        let checked = raw.check.is_some();
        if checked && check::verify(&bytes) != Check::Good && !planted::is(Bug::SkipCheck) {
            return Err(Violation::Garbled);
        }
        let header = raw.header.ok_or(Violation::NoHeader)?;
        let body = match (raw.batch, raw.open, raw.accept, raw.close, raw.resend) {
            (None, None, None, None, None) => Body::Empty,
            (Some(batch), None, None, None, None) => Body::Batch(batch),
            (None, Some(open), None, None, None) => Body::Open(open),
            (None, None, Some(accept), None, None) => Body::Accept(accept),
            (None, None, None, Some(close), None) => Body::Close(close),
            (None, None, None, None, Some(resend)) => Body::Resend(resend),
            _ => {
                return Err(Violation::Unexpected {
                    body: "frame",
                    when: "with more than one body",
                });
            }
        };
        Ok(Self {
            header,
            body,
            checked,
        })
    }

    /// In a session of this version it must have come with a check.
    pub(crate) fn require_check(&self, version: u32) -> Result<(), Violation> {
        let exempt = matches!(self.body, Body::Open(_) | Body::Close(_));
        if self.checked || exempt || version < RESUMABLE {
            Ok(())
        } else {
            Err(Violation::Unchecked)
        }
    }
}

/// Encodes a frame, with its check.
pub fn encode(header: FrameHeader, body: Body) -> Bytes {
    let mut raw = RawFrame {
        header: Some(header),
        ..RawFrame::default()
    };
    match body {
        Body::Empty => {}
        Body::Batch(batch) => raw.batch = Some(batch),
        Body::Open(open) => raw.open = Some(open),
        Body::Accept(accept) => raw.accept = Some(accept),
        Body::Close(close) => raw.close = Some(close),
        Body::Resend(resend) => raw.resend = Some(resend),
    }
    let mut bytes = raw.encode_to_vec();
    check::append(&mut bytes);
    bytes.into()
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

/// The header with the counts of the batch.
pub(crate) fn with_counts(header: FrameHeader, counts: &FrameHeader) -> FrameHeader {
    FrameHeader {
        posted: counts.posted,
        non_posted: counts.non_posted,
        events: counts.events,
        completions: counts.completions,
        dma_writes: counts.dma_writes,
        dma_reads: counts.dma_reads,
        interrupts: counts.interrupts,
        ..header
    }
}

/// Encodes a frame of this header with the batch, which is not empty, and is afterwards. Gives the frame, and of it the batch's bytes. Sessions
/// of version 1 have no `check`.
pub(crate) fn encode_batch(
    header: &FrameHeader,
    batch: &mut BatchWriter,
    version: u32,
) -> (Bytes, Bytes) {
    let batch_len = batch.encoded_len();
    let mut out = begin_frame(header, batch_len);
    let start = out.len();
    batch.take_into(&mut out);
    let end = out.len();
    let frame = if version >= RESUMABLE {
        end_frame(out)
    } else {
        out.freeze()
    };
    let body = frame.slice(start..end);
    (frame, body)
}

/// Encodes a frame of this header with a batch that was encoded before.
pub(crate) fn encode_again(header: &FrameHeader, batch: &[u8]) -> Bytes {
    let mut out = begin_frame(header, batch.len());
    out.put_slice(batch);
    end_frame(out)
}

/// A frame up to where its batch begins.
fn begin_frame(header: &FrameHeader, batch_len: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(MAX_HEADER_BYTES + 16 + batch_len + CHECK_BYTES);
    out.put_u8(TAG_HEADER);
    encode_varint(header.encoded_len() as u64, &mut out);
    // Writing to a BytesMut cannot fail: it grows.
    header.encode_raw(&mut out);
    out.put_u8(TAG_BATCH);
    encode_varint(batch_len as u64, &mut out);
    out
}

fn end_frame(mut out: BytesMut) -> Bytes {
    let check = check::field(&out);
    out.put_slice(&check);
    debug_assert!(out.len() <= MAX_FRAME_BYTES);
    out.freeze()
}
