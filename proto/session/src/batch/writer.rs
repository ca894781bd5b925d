//! Appends items to a batch.

use bytes::{BufMut, BytesMut};
use potemkin_proto::v1::FrameHeader;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{DMA_ERRORS, op, zigzag};
use crate::access::{
    DmaError, Extent, ForwardEvent, Location, Posting, ReverseItem, Status, Vector,
};

/// A batch under construction. Its buffers are reused from frame to frame.
#[derive(Debug, Default, Clone)]
pub(crate) struct BatchWriter {
    ops: BytesMut,
    args: BytesMut,
    data: BytesMut,
    last_offset: u64,
    last_sequence: u64,
    counts: FrameHeader,
}

/// Protobuf tags of the columns: field number and wire type 2 (length-delimited).
const TAG_OPS: u8 = 0x0a;
const TAG_ARGS: u8 = 0x12;
const TAG_DATA: u8 = 0x1a;

impl BatchWriter {
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Number of items.
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The counts of what was appended; the other fields are zero.
    pub(crate) fn counts(&self) -> &FrameHeader {
        &self.counts
    }

    pub(crate) fn read(&mut self, at: Location, extent: Extent) {
        self.access(op::READ, op::READ_N, at, extent);
        self.counts.non_posted += 1;
    }

    /// `data`: little-endian elements, width times count bytes.
    pub(crate) fn write(&mut self, at: Location, extent: Extent, posting: Posting, data: &[u8]) {
        match posting {
            Posting::Posted => {
                self.access(op::WRITE_POSTED, op::WRITE_POSTED_N, at, extent);
                self.counts.posted += 1;
            }
            Posting::NonPosted => {
                self.access(op::WRITE_NON_POSTED, op::WRITE_NON_POSTED_N, at, extent);
                self.counts.non_posted += 1;
            }
        }
        self.data.put_slice(data);
    }

    pub(crate) fn event(&mut self, event: &ForwardEvent) {
        match event {
            ForwardEvent::Reset { generation } => self.event_op(op::EVENT_RESET, &[*generation]),
            ForwardEvent::BusMasterOff { generation } => {
                self.event_op(op::EVENT_GENERATION, &[*generation]);
            }
            ForwardEvent::Unmapped { generation } => {
                self.event_op(op::EVENT_UNMAPPED, &[*generation]);
            }
            ForwardEvent::DmaReadData { id, outcome } => {
                let (status, data) = match outcome {
                    Ok(data) => (0, data.as_ref()),
                    Err(error) => (dma_status(*error), &[][..]),
                };
                self.event_op(op::EVENT_DMA_READ_DATA, &[*id, status, data.len() as u64]);
                self.data.put_slice(data);
            }
            ForwardEvent::DmaWriteFailed { sequence, error } => {
                self.event_op(op::EVENT_DMA_WRITE_FAILED, &[*sequence, dma_status(*error)])
            }
        }
        self.counts.events += 1;
    }

    fn event_op(&mut self, event: u8, args: &[u64]) {
        self.ops.put_u8((op::EVENT << 5) | event);
        self.numbers(args);
    }

    pub(crate) fn reverse(&mut self, item: &ReverseItem) {
        match item {
            ReverseItem::Completion {
                sequence,
                status,
                data,
            } => self.completion(*sequence, *status, data),
            ReverseItem::DmaWrite {
                generation,
                address,
                data,
            } => {
                self.ops.put_u8(op::DMA_WRITE << 5);
                self.numbers(&[*generation, *address, data.len() as u64]);
                self.data.put_slice(data);
                self.counts.dma_writes += 1;
            }
            ReverseItem::DmaRead {
                generation,
                id,
                address,
                length,
            } => {
                self.ops.put_u8(op::DMA_READ << 5);
                self.numbers(&[*generation, *id, *address, *length as u64]);
                self.counts.dma_reads += 1;
            }
            ReverseItem::Msi { generation, vector } => {
                let (kind, number) = match vector {
                    Vector::Msi(number) => (op::MESSAGE_MSI, *number),
                    Vector::Msix(number) => (op::MESSAGE_MSIX, *number),
                };
                self.ops.put_u8((op::MESSAGE << 5) | kind);
                self.numbers(&[*generation, number.into()]);
                self.counts.interrupts += 1;
            }
            ReverseItem::Intx(level) => {
                self.ops.put_u8((op::INTX << 5) | u8::from(*level));
                self.counts.interrupts += 1;
            }
        }
    }

    fn numbers(&mut self, args: &[u64]) {
        args.iter().for_each(|arg| self.arg(*arg));
    }

    pub(crate) fn completion(&mut self, sequence: u64, status: Status, data: &[u8]) {
        let code = match status {
            Status::Ok => 0,
            Status::DeviceError => 1,
        };
        self.ops.put_u8((op::COMPLETION << 5) | code);
        self.arg(zigzag(
            sequence.wrapping_sub(self.last_sequence).cast_signed(),
        ));
        self.last_sequence = sequence;
        self.arg(data.len() as u64);
        self.data.put_slice(data);
        self.counts.completions += 1;
    }

    fn access(&mut self, single: u8, counted: u8, at: Location, extent: Extent) {
        let tail = (at.width.log2() << 3) | at.space.to_code();
        let (operation, count) = match extent {
            Extent::Single => (single, None),
            Extent::Consecutive(n) => (counted, Some(u64::from(n) << 1)),
            Extent::Fixed(n) => (counted, Some((u64::from(n) << 1) | 1)),
        };
        self.ops.put_u8((operation << 5) | tail);
        self.arg(zigzag(
            at.offset.wrapping_sub(self.last_offset).cast_signed(),
        ));
        self.last_offset = at.offset;
        if let Some(count) = count {
            self.arg(count);
        }
    }

    fn arg(&mut self, value: u64) {
        encode_varint(value, &mut self.args);
    }

    /// Encoded length of the batch message, in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        [&self.ops, &self.args, &self.data]
            .iter()
            .filter(|column| !column.is_empty())
            .map(|column| 1 + encoded_len_varint(column.len() as u64) + column.len())
            .sum()
    }

    /// Appends the batch message's fields to `out`, and is empty afterwards.
    pub(crate) fn take_into(&mut self, out: &mut BytesMut) {
        for (tag, column) in [
            (TAG_OPS, &mut self.ops),
            (TAG_ARGS, &mut self.args),
            (TAG_DATA, &mut self.data),
        ] {
            if !column.is_empty() {
                out.put_u8(tag);
                encode_varint(column.len() as u64, out);
                out.put_slice(column);
                column.clear();
            }
        }
        self.last_offset = 0;
        self.last_sequence = 0;
        self.counts = FrameHeader::default();
    }
}

/// The number of this error in `ItemStatus`.
fn dma_status(error: DmaError) -> u64 {
    let known = DMA_ERRORS.iter().find(|(known, _)| *known == error);
    known.map_or(6, |(_, code)| u64::from(*code))
}
