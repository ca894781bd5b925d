//! Region accesses: `REGION_READ`, `REGION_WRITE`, `REGION_WRITE_MULTI`.

use super::device::INDEX_COUNT;
use crate::error::{DecodeError, Reason};
use crate::wire::{Fields, PutFields};

/// The fixed part of `REGION_READ` and `REGION_WRITE`; the data follows in a write and in the reply to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionAccess {
    /// Where in the region; with `count` it does not overflow.
    pub offset: u64,
    /// Index of the region, below [`INDEX_COUNT`].
    pub region: u32,
    /// Bytes to move: 1 up to the limit given to the decoder.
    pub count: u32,
}

impl RegionAccess {
    /// Length of the fixed part in bytes.
    pub const LEN: u32 = 16;

    /// Appends the fixed part.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.offset);
        out.put_u32(self.region);
        out.put_u32(self.count);
    }

    /// Reads a message that has no data: a read command, or the reply to a write.
    ///
    /// # Errors
    ///
    /// When its size, region or range is wrong, or it moves more than `limit` bytes.
    pub fn decode(message: &'static str, payload: &[u8], limit: u32) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(message, payload);
        let access = Self::fixed(&mut fields, limit)?;
        fields.end()?;
        Ok(access)
    }

    /// Reads a message that has data: a write command, or the reply to a read.
    ///
    /// # Errors
    ///
    /// As for [`Self::decode`], and when the data's length is not `count`.
    pub fn decode_with_data<'a>(
        message: &'static str,
        payload: &'a [u8],
        limit: u32,
    ) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut fields = Fields::new(message, payload);
        let access = Self::fixed(&mut fields, limit)?;
        let data = fields.bytes("data", access.count as usize)?;
        fields.end()?;
        Ok((access, data))
    }

    fn fixed(fields: &mut Fields<'_>, limit: u32) -> Result<Self, DecodeError> {
        let access = Self {
            offset: fields.u64("offset")?,
            region: fields.u32("region")?,
            count: fields.u32("count")?,
        };
        if access.region >= INDEX_COUNT {
            let most = u64::from(INDEX_COUNT - 1);
            return Err(fields.fail(
                "region",
                Reason::TooLarge {
                    found: access.region.into(),
                    most,
                },
            ));
        }
        if access.count == 0 {
            return Err(fields.fail("count", Reason::TooSmall { found: 0, least: 1 }));
        }
        if access.count > limit {
            return Err(fields.fail(
                "count",
                Reason::TooLarge {
                    found: access.count.into(),
                    most: limit.into(),
                },
            ));
        }
        if access.offset.checked_add(access.count.into()).is_none() {
            return Err(fields.fail("offset", Reason::Overflow));
        }
        Ok(access)
    }
}

/// Payload of `REGION_WRITE_MULTI`: writes of up to 8 bytes, all checked. The reply has their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteMulti<'a> {
    /// Whole entries.
    entries: &'a [u8],
}

/// One write of a [`WriteMulti`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOne<'a> {
    /// Where it goes; its count is the data's length.
    pub access: RegionAccess,
    /// 1 to 8 bytes.
    pub data: &'a [u8],
}

impl<'a> WriteMulti<'a> {
    const NAME: &'static str = "REGION_WRITE_MULTI";
    /// Bytes before the entries.
    const FIXED: u32 = 8;
    /// Bytes of one entry: a [`RegionAccess`] and 8 of data, used or not.
    const ENTRY: usize = Self::ENTRY_LEN as usize;
    const ENTRY_LEN: u32 = RegionAccess::LEN + Self::DATA_LEN;
    /// Most data bytes of one entry.
    const DATA: usize = Self::DATA_LEN as usize;
    const DATA_LEN: u32 = 8;

    /// Reads the payload of the command.
    ///
    /// # Errors
    ///
    /// When its size does not agree with the number of writes, there is none, or one of them is wrong.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        let count = fields.u64("wr_cnt")?;
        let entries = fields.remainder();
        let whole = (entries.len() / Self::ENTRY) as u64;
        if count != whole || !entries.len().is_multiple_of(Self::ENTRY) {
            return Err(fields.fail(
                "wr_cnt",
                Reason::Mismatch {
                    found: count,
                    expected: whole,
                },
            ));
        }
        if count == 0 {
            return Err(fields.fail("wr_cnt", Reason::TooSmall { found: 0, least: 1 }));
        }
        for entry in entries.chunks_exact(Self::ENTRY) {
            Self::entry(entry)?;
        }
        Ok(Self { entries })
    }

    /// The writes, in order.
    pub fn writes(&self) -> impl Iterator<Item = WriteOne<'a>> {
        // Decoding has found each of them well-formed, so none is left out.
        self.entries
            .chunks_exact(Self::ENTRY)
            .filter_map(|entry| Self::entry(entry).ok())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.entries.len() / Self::ENTRY) as u64
    }

    /// Length in bytes of a payload with `writes` entries.
    #[must_use]
    pub fn payload_len(writes: u32) -> u32 {
        Self::FIXED.saturating_add(writes.saturating_mul(Self::ENTRY_LEN))
    }

    /// Appends a payload with these writes; of each, data past 8 bytes is cut off.
    pub fn encode(writes: &[WriteOne<'_>], out: &mut Vec<u8>) {
        out.put_u64(writes.len() as u64);
        for write in writes {
            write.access.encode(out);
            let mut data = [0; Self::DATA];
            let used = write.data.len().min(Self::DATA);
            data[..used].copy_from_slice(&write.data[..used]);
            out.extend_from_slice(&data);
        }
    }

    /// Appends the payload of the reply.
    pub fn encode_reply(writes: u64, out: &mut Vec<u8>) {
        out.put_u64(writes);
    }

    /// Reads the number of writes done out of the payload of the reply.
    ///
    /// # Errors
    ///
    /// When its size is wrong.
    pub fn decode_reply(payload: &[u8]) -> Result<u64, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        let count = fields.u64("wr_cnt")?;
        fields.end()?;
        Ok(count)
    }

    fn entry(entry: &'a [u8]) -> Result<WriteOne<'a>, DecodeError> {
        let mut fields = Fields::new(Self::NAME, entry);
        let access = RegionAccess::fixed(&mut fields, Self::DATA_LEN)?;
        let data = fields.bytes("data", access.count as usize)?;
        Ok(WriteOne { access, data })
    }
}
