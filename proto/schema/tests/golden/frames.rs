//! One frame of each kind.

use bytes::Bytes;
use potemkin_proto::v1::{
    Batch, CloseCode, Frame, FrameHeader, Grant, ItemStatus, SessionAccept, SessionClose,
    SessionOpen,
};
use prost::Message;

use super::frozen;

/// Longest encoded header, by the schema.
const HEADER_BYTES_MAX: usize = 256;

const INCARNATION: [u8; 16] = *b"host incarnation";

/// What every frame of the session has.
fn header() -> FrameHeader {
    FrameHeader {
        session_hi: 0x0123_4567_89ab_cdef,
        session_lo: 0xfedc_ba98_7654_3210,
        epoch: 7,
        attach_number: 3,
        ..FrameHeader::default()
    }
}

fn open() -> Frame {
    Frame {
        header: Some(FrameHeader {
            first_sequence: 41,
            ..header()
        }),
        open: Some(SessionOpen {
            version_min: 1,
            version_max: 1,
            next_reverse: 12,
            oldest_unacknowledged: 38,
            dma_write_limit: 4096,
            grant: Some(Grant {
                device_id: "edu-0".into(),
                agent: "spiffe://potemkin.dev/agent/vm-17".into(),
            }),
            host_incarnation: Bytes::from_static(&INCARNATION),
            deadline_ms: 0,
        }),
        ..Frame::default()
    }
}

fn accept() -> Frame {
    Frame {
        header: Some(FrameHeader {
            first_sequence: 12,
            acknowledged: 39,
            beat: 1_000,
            ..header()
        }),
        accept: Some(SessionAccept {
            version: 1,
            host_incarnation: Bytes::from_static(&INCARNATION),
            next_forward: 40,
            posted_limit: 1 << 16,
            non_posted_limit: 1 << 10,
        }),
        ..Frame::default()
    }
}

fn close() -> Frame {
    Frame {
        header: Some(header()),
        close: Some(SessionClose {
            code: CloseCode::Superseded.into(),
            message: "attach_number: 3, but 4 is known; dial again with a newer one".into(),
        }),
        ..Frame::default()
    }
}

/// Every field that a forward header uses, and every shape of item.
fn forward() -> Frame {
    let mut batch = Items::default();
    // WRITE_POSTED, 4 bytes, BAR 0 at 0x20.
    batch.item(1 << 5 | 2 << 3, &[zigzag(0x20)], &[0xef, 0xbe, 0xad, 0xde]);
    // WRITE_POSTED_N, 2 bytes, BAR 1 at 0, three elements at one offset.
    batch.item(4 << 5 | 1 << 3 | 1, &[zigzag(-0x20), 2 * 3 + 1], b"abcdef");
    // EVENT, a new DMA generation.
    batch.item(7 << 5 | 1, &[2], &[]);
    // EVENT, the answer to DMA read 9.
    batch.item(7 << 5 | 3, &[9, 0, 3], b"xyz");
    // WRITE_NON_POSTED, 1 byte, configuration space at 4.
    batch.item(2 << 5 | 7, &[zigzag(4)], &[0x06]);
    // READ_N, 4 bytes, BAR 5 at 0x1000, two elements one after the other.
    batch.item(3 << 5 | 2 << 3 | 5, &[zigzag(0xffc), 2 * 2], &[]);
    // READ, 8 bytes, BAR 0 at 0x28.
    batch.item(3 << 3, &[zigzag(0x28 - 0x1000)], &[]);
    Frame {
        header: Some(FrameHeader {
            first_sequence: 41,
            acknowledged: 11,
            posted: 2,
            non_posted: 3,
            events: 2,
            dma_write_limit: 1 << 20,
            beat: 1_000,
            trace_hi: 0x4bf9_2f35_77b3_4da6,
            trace_lo: 0xa3ce_929d_0e0e_4736,
            ..header()
        }),
        batch: Some(batch.into()),
        ..Frame::default()
    }
}

/// Every field that a reverse header uses, and every operation.
fn reverse() -> Frame {
    let device_error = ItemStatus::DeviceError as u8;
    let mut batch = Items::default();
    // PUSH, 4 bytes, BAR 0 at 0x10.
    batch.item(3 << 5 | 2 << 3, &[zigzag(0x10)], &[1, 2, 3, 4]);
    // DMA_WRITE of generation 2, above 4 GiB.
    batch.item(1 << 5, &[2, 0x1_0000_0000, 8], b"12345678");
    // DMA_READ of generation 2, request 9.
    batch.item(2 << 5, &[2, 9, 0x2000, 64], &[]);
    // COMPLETION of 45, and of 46, which the device refused.
    batch.item(0, &[zigzag(45), 8], b"completd");
    batch.item(device_error, &[zigzag(1), 0], &[]);
    // MSI-X vector 3 and INTx, asserted.
    batch.item(4 << 5 | 1, &[2, 3], &[]);
    batch.item(5 << 5 | 1, &[], &[]);
    Frame {
        header: Some(FrameHeader {
            first_sequence: 12,
            acknowledged: 46,
            completions: 2,
            dma_writes: 1,
            dma_reads: 1,
            interrupts: 2,
            pushes: 1,
            posted_limit: 70_000,
            non_posted_limit: 1_100,
            beat: 1_001,
            ..header()
        }),
        batch: Some(batch.into()),
        ..Frame::default()
    }
}

fn acknowledgement() -> Frame {
    Frame {
        header: Some(FrameHeader {
            first_sequence: 48,
            acknowledged: 18,
            ..header()
        }),
        ..Frame::default()
    }
}

/// A batch in the making.
#[derive(Default)]
struct Items {
    ops: Vec<u8>,
    args: Vec<u64>,
    data: Vec<u8>,
}

impl Items {
    fn item(&mut self, op: u8, args: &[u64], data: &[u8]) {
        self.ops.push(op);
        self.args.extend(args);
        self.data.extend(data);
    }
}

impl From<Items> for Batch {
    fn from(items: Items) -> Self {
        Self {
            ops: items.ops.into(),
            args: items.args,
            data: items.data.into(),
        }
    }
}

/// As of protobuf's sint64.
fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn is_understood_and_sent_as_frozen(name: &str, frame: Frame) {
    let frozen = frozen(name, &frame.encode_to_vec());
    assert_eq!(Frame::decode(frozen.as_slice()).unwrap(), frame, "{name}");
    assert_eq!(frame.encode_to_vec(), frozen, "{name}");
}

#[test]
fn an_open_with_a_grant_is_as_frozen() {
    is_understood_and_sent_as_frozen("frame_open.bin", open());
}

#[test]
fn an_accept_is_as_frozen() {
    is_understood_and_sent_as_frozen("frame_accept.bin", accept());
}

#[test]
fn a_close_is_as_frozen() {
    is_understood_and_sent_as_frozen("frame_close.bin", close());
}

#[test]
fn a_forward_batch_is_as_frozen() {
    is_understood_and_sent_as_frozen("frame_forward.bin", forward());
}

#[test]
fn a_reverse_batch_is_as_frozen() {
    is_understood_and_sent_as_frozen("frame_reverse.bin", reverse());
}

#[test]
fn an_acknowledgement_alone_is_as_frozen() {
    is_understood_and_sent_as_frozen("frame_acknowledgement.bin", acknowledgement());
}

#[test]
fn the_header_comes_first_in_every_frame() {
    for frame in [
        open(),
        accept(),
        close(),
        forward(),
        reverse(),
        acknowledgement(),
    ] {
        let header = frame.header.unwrap().encode_to_vec();
        let encoded = frame.encode_to_vec();
        let tag_and_length = [0x0a, u8::try_from(header.len()).unwrap()];
        assert_eq!(encoded[..2], tag_and_length);
        assert!(encoded[2..].starts_with(&header));
    }
}

#[test]
fn a_header_of_the_largest_values_is_within_its_limit() {
    let largest = FrameHeader {
        session_hi: u64::MAX,
        session_lo: u64::MAX,
        epoch: u64::MAX,
        attach_number: u32::MAX,
        first_sequence: u64::MAX,
        acknowledged: u64::MAX,
        posted: u32::MAX,
        non_posted: u32::MAX,
        events: u32::MAX,
        completions: u32::MAX,
        dma_writes: u32::MAX,
        dma_reads: u32::MAX,
        interrupts: u32::MAX,
        pushes: u32::MAX,
        posted_limit: u64::MAX,
        non_posted_limit: u64::MAX,
        dma_write_limit: u64::MAX,
        beat: u64::MAX,
        trace_hi: u64::MAX,
        trace_lo: u64::MAX,
    };
    let length = largest.encoded_len();
    assert!(length <= HEADER_BYTES_MAX, "{length} bytes");
}

#[test]
fn fields_of_a_later_version_are_skipped() {
    let mut encoded = forward().encode_to_vec();
    // Field 1000, of two bytes.
    encoded.extend([0xc2, 0x3e, 2, 0xaa, 0xbb]);
    assert_eq!(Frame::decode(encoded.as_slice()).unwrap(), forward());
}
