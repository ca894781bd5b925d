//! Reads a batch back into items, checking every number that a peer chose.

use bytes::{Buf, Bytes};
use potemkin_pci::{Space, Width};
use potemkin_proto::v1::FrameHeader;
use prost::{Message, encoding::decode_varint};

use super::{DMA_ERRORS, op, unzigzag};
use crate::{
    access::{
        Access, DmaError, Extent, ForwardEvent, ForwardItem, Location, MAX_ACCESS_BYTES,
        MAX_DMA_BYTES, MAX_VECTORS, Operation, Payload, Posting, ReverseItem, Status, Vector,
    },
    violation::Violation,
};

/// `Batch` with `args` left as the bytes of its packed field: the same on the wire, without a vector a frame.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawBatch {
    #[prost(bytes = "bytes", tag = "1")]
    ops: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    args: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// How many items of each class a body held, to compare with its header.
pub(crate) type Counts = FrameHeader;

/// Reads the items of a forward batch and hands each to `take`.
pub(crate) fn read_forward(
    body: Bytes,
    mut take: impl FnMut(ForwardItem) -> Result<(), Violation>,
) -> Result<Counts, Violation> {
    let mut columns = Columns::open(body)?;
    let mut counts = Counts::default();
    while let Some(op) = columns.next_op() {
        let item = if op >> 5 == op::EVENT {
            counts.events += 1;
            ForwardItem::Event(columns.event(op & 0x1f)?)
        } else {
            let access = columns.access(op)?;
            if access.is_posted() {
                counts.posted += 1;
            } else {
                counts.non_posted += 1;
            }
            ForwardItem::Access(access)
        };
        take(item)?;
    }
    columns.close()?;
    Ok(counts)
}

/// Reads the items of a reverse batch and hands each to `take`.
pub(crate) fn read_reverse(
    body: Bytes,
    mut take: impl FnMut(ReverseItem) -> Result<(), Violation>,
) -> Result<Counts, Violation> {
    let mut columns = Columns::open(body)?;
    let mut counts = Counts::default();
    while let Some(op) = columns.next_op() {
        let item = match op >> 5 {
            op::COMPLETION => {
                counts.completions += 1;
                columns.completion(op & 0x1f)?
            }
            op::DMA_WRITE => {
                counts.dma_writes += 1;
                columns.dma_write()?
            }
            op::DMA_READ => {
                counts.dma_reads += 1;
                columns.dma_read()?
            }
            op::MESSAGE => {
                counts.interrupts += 1;
                columns.message(op & 0x1f)?
            }
            op::INTX => {
                counts.interrupts += 1;
                columns.intx(op & 0x1f)?
            }
            _ => return Err(columns.wrong("ops", "unknown operation")),
        };
        take(item)?;
    }
    columns.close()?;
    Ok(counts)
}

struct Columns {
    ops: Bytes,
    args: Bytes,
    data: Bytes,
    item: usize,
    last_offset: u64,
    last_sequence: u64,
}

impl Columns {
    fn open(body: Bytes) -> Result<Self, Violation> {
        let raw = RawBatch::decode(body).map_err(|e| Violation::Malformed(e.to_string()))?;
        Ok(Self {
            ops: raw.ops,
            args: raw.args,
            data: raw.data,
            item: 0,
            last_offset: 0,
            last_sequence: 0,
        })
    }

    fn next_op(&mut self) -> Option<u8> {
        let op = self.ops.get(self.item).copied();
        self.item += usize::from(op.is_some());
        op
    }

    /// The item last given by `next_op` is wrong.
    fn wrong(&self, field: &'static str, problem: &'static str) -> Violation {
        Violation::Item {
            field,
            item: self.item.saturating_sub(1),
            problem,
        }
    }

    fn arg(&mut self) -> Result<u64, Violation> {
        decode_varint(&mut self.args).map_err(|_| self.wrong("args", "truncated number"))
    }

    fn take_data(&mut self, len: usize) -> Result<Bytes, Violation> {
        if len > self.data.len() {
            return Err(self.wrong("data", "truncated"));
        }
        Ok(self.data.split_to(len))
    }

    fn offset(&mut self) -> Result<u64, Violation> {
        let delta = unzigzag(self.arg()?);
        self.last_offset = self.last_offset.wrapping_add_signed(delta);
        Ok(self.last_offset)
    }

    fn access(&mut self, op: u8) -> Result<Access, Violation> {
        let space = Space::from_code(op & 7).ok_or_else(|| self.wrong("ops", "unknown space"))?;
        let width =
            Width::from_log2((op >> 3) & 3).ok_or_else(|| self.wrong("ops", "unknown width"))?;
        let operation = op >> 5;
        let offset = self.offset()?;
        let extent = match operation {
            op::READ | op::WRITE_POSTED | op::WRITE_NON_POSTED => Extent::Single,
            op::READ_N | op::WRITE_POSTED_N | op::WRITE_NON_POSTED_N => self.extent(width)?,
            _ => return Err(self.wrong("ops", "unknown operation")),
        };
        self.check_end(offset, width, extent)?;
        let operation = match operation {
            op::READ | op::READ_N => Operation::Read,
            op::WRITE_POSTED | op::WRITE_POSTED_N => {
                Operation::Write(Posting::Posted, self.payload(width, extent)?)
            }
            _ => Operation::Write(Posting::NonPosted, self.payload(width, extent)?),
        };
        Ok(Access {
            at: Location {
                space,
                offset,
                width,
            },
            extent,
            operation,
        })
    }

    fn extent(&mut self, width: Width) -> Result<Extent, Violation> {
        let arg = self.arg()?;
        let count = u16::try_from(arg >> 1)
            .ok()
            .filter(|n| *n > 0 && usize::from(*n) * width.bytes() <= MAX_ACCESS_BYTES)
            .ok_or_else(|| self.wrong("args", "count is 0 or exceeds 4,096 bytes"))?;
        Ok(if arg & 1 == 1 {
            Extent::Fixed(count)
        } else {
            Extent::Consecutive(count)
        })
    }

    /// No access wraps around the end of its space, so that whoever adds to an offset later need not check.
    fn check_end(&self, offset: u64, width: Width, extent: Extent) -> Result<(), Violation> {
        let len = (width.bytes() * extent.count()) as u64;
        match offset.checked_add(len) {
            Some(_) => Ok(()),
            None => Err(self.wrong("args", "offset wraps")),
        }
    }

    fn payload(&mut self, width: Width, extent: Extent) -> Result<Payload, Violation> {
        let len = width.bytes() * extent.count();
        if extent != Extent::Single {
            return self.take_data(len).map(Payload::Block);
        }
        if len > self.data.len() {
            return Err(self.wrong("data", "truncated"));
        }
        Ok(Payload::Value(self.data.get_uint_le(len)))
    }

    fn event(&mut self, kind: u8) -> Result<ForwardEvent, Violation> {
        match kind {
            op::EVENT_RESET => Ok(ForwardEvent::Reset {
                generation: self.arg()?,
            }),
            op::EVENT_GENERATION => Ok(ForwardEvent::BusMasterOff {
                generation: self.arg()?,
            }),
            op::EVENT_UNMAPPED => Ok(ForwardEvent::Unmapped {
                generation: self.arg()?,
            }),
            op::EVENT_DMA_READ_DATA => self.dma_read_data(),
            op::EVENT_DMA_WRITE_FAILED => {
                let sequence = self.arg()?;
                let error = self.dma_status()?;
                let error = error.ok_or_else(|| self.wrong("args", "a failure with status ok"))?;
                Ok(ForwardEvent::DmaWriteFailed { sequence, error })
            }
            _ => Err(self.wrong("ops", "unknown event")),
        }
    }

    fn dma_read_data(&mut self) -> Result<ForwardEvent, Violation> {
        let id = self.arg()?;
        let error = self.dma_status()?;
        let length = self.arg()?;
        let outcome = match error {
            None => Ok(self
                .dma_length(length)
                .and_then(|len| self.take_data(len))?),
            Some(_) if length != 0 => {
                return Err(self.wrong("args", "a failed DMA read has no data"));
            }
            Some(error) => Err(error),
        };
        Ok(ForwardEvent::DmaReadData { id, outcome })
    }

    /// `None`: ok.
    fn dma_status(&mut self) -> Result<Option<DmaError>, Violation> {
        let status = self.arg()?;
        if status == 0 {
            return Ok(None);
        }
        let known = DMA_ERRORS
            .iter()
            .find(|(_, code)| u64::from(*code) == status);
        match known {
            Some((error, _)) => Ok(Some(*error)),
            None => Err(self.wrong("args", "unknown status of DMA")),
        }
    }

    fn dma_length(&self, length: u64) -> Result<usize, Violation> {
        usize::try_from(length)
            .ok()
            .filter(|length| (1..=MAX_DMA_BYTES).contains(length))
            .ok_or_else(|| self.wrong("args", "length of DMA is 0 or exceeds 61,440 bytes"))
    }

    fn dma_write(&mut self) -> Result<ReverseItem, Violation> {
        let (generation, address, length) = (self.arg()?, self.arg()?, self.arg()?);
        let length = self.dma_length(length)?;
        Ok(ReverseItem::DmaWrite {
            generation,
            address,
            data: self.take_data(length)?,
        })
    }

    fn dma_read(&mut self) -> Result<ReverseItem, Violation> {
        let (generation, id) = (self.arg()?, self.arg()?);
        let (address, length) = (self.arg()?, self.arg()?);
        Ok(ReverseItem::DmaRead {
            generation,
            id,
            address,
            length: self.dma_length(length)?,
        })
    }

    fn message(&mut self, kind: u8) -> Result<ReverseItem, Violation> {
        let (generation, number) = (self.arg()?, self.arg()?);
        let number = u16::try_from(number)
            .ok()
            .filter(|number| *number < MAX_VECTORS)
            .ok_or_else(|| self.wrong("args", "a vector of 2,048 or more"))?;
        let vector = match kind {
            op::MESSAGE_MSI => Vector::Msi(number),
            op::MESSAGE_MSIX => Vector::Msix(number),
            _ => return Err(self.wrong("ops", "unknown kind of interrupt")),
        };
        Ok(ReverseItem::Msi { generation, vector })
    }

    fn intx(&mut self, level: u8) -> Result<ReverseItem, Violation> {
        match level {
            0 | 1 => Ok(ReverseItem::Intx(level == 1)),
            _ => Err(self.wrong("ops", "a level of INTx is 0 or 1")),
        }
    }

    fn completion(&mut self, status: u8) -> Result<ReverseItem, Violation> {
        let status = match status {
            0 => Status::Ok,
            1 => Status::DeviceError,
            _ => return Err(self.wrong("ops", "unknown status")),
        };
        let delta = unzigzag(self.arg()?);
        self.last_sequence = self.last_sequence.wrapping_add_signed(delta);
        let len = usize::try_from(self.arg()?)
            .ok()
            .filter(|len| *len <= MAX_ACCESS_BYTES)
            .ok_or_else(|| self.wrong("args", "length exceeds 4,096 bytes"))?;
        Ok(ReverseItem::Completion {
            sequence: self.last_sequence,
            status,
            data: self.take_data(len)?,
        })
    }

    /// Both columns must be used up, or the two ends read the batch differently.
    fn close(self) -> Result<(), Violation> {
        for (field, column) in [("args", &self.args), ("data", &self.data)] {
            if !column.is_empty() {
                return Err(Violation::LeftOver {
                    field,
                    left: column.len(),
                });
            }
        }
        Ok(())
    }
}
