//! Guest memory: `DMA_MAP`, `DMA_UNMAP`, `DMA_READ`, `DMA_WRITE`.

use crate::error::{DecodeError, Reason};
use crate::wire::{Fields, PutFields, flag};

/// What a device may do with a DMA window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protection {
    /// It may read.
    pub read: bool,
    /// It may write.
    pub write: bool,
}

impl Protection {
    /// Reading and writing.
    pub const READ_WRITE: Self = Self {
        read: true,
        write: true,
    };
    /// Reading only.
    pub const READ: Self = Self {
        read: true,
        write: false,
    };
}

/// Payload of `DMA_MAP`. The reply has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMap {
    /// What the device may do.
    pub protection: Protection,
    /// Where the window begins in the descriptor that came with the message; of no meaning without one.
    pub offset: u64,
    /// Guest-physical address of the window.
    pub address: u64,
    /// Length in bytes, not 0; neither address + size nor offset + size overflows.
    pub size: u64,
}

impl DmaMap {
    /// Length of the payload in bytes.
    pub const LEN: u32 = 32;
    const NAME: &'static str = "DMA_MAP";
    const FLAG_READ: u32 = 1;
    const FLAG_WRITE: u32 = 1 << 1;
    /// Hints of newer clients that the descriptor can be mapped, or read and written as a file.
    const FLAG_HINTS: u32 = 1 << 2 | 1 << 3;

    /// Appends the payload of the command.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(Self::LEN);
        let Protection { read, write } = self.protection;
        out.put_u32(flag(read, Self::FLAG_READ) | flag(write, Self::FLAG_WRITE));
        out.put_u64(self.offset);
        out.put_u64(self.address);
        out.put_u64(self.size);
    }

    /// Reads the payload of the command.
    ///
    /// # Errors
    ///
    /// When its size is wrong, it allows nothing, it has no length, or an end overflows.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        super::device::check_argsz(&mut fields, Self::LEN)?;
        let flags = fields.u32("flags")?;
        let offset = fields.u64("offset")?;
        let (address, size) = range(&mut fields, u64::MAX - 1)?;
        let protection = Protection {
            read: flags & Self::FLAG_READ != 0,
            write: flags & Self::FLAG_WRITE != 0,
        };
        let known = Self::FLAG_READ | Self::FLAG_WRITE | Self::FLAG_HINTS;
        if flags & !known != 0 || !(protection.read || protection.write) {
            return Err(fields.fail("flags", Reason::Invalid(flags.into())));
        }
        if offset.checked_add(size).is_none() {
            return Err(fields.fail("offset", Reason::Overflow));
        }
        fields.end()?;
        Ok(Self {
            protection,
            offset,
            address,
            size,
        })
    }
}

/// Payload of `DMA_UNMAP`. The reply repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaUnmap {
    /// All windows that lie in this range. (The specification has one window, exactly; QEMU with an IOMMU for its guest withdraws ranges of
    /// windows, and more of the address space than they take.)
    Range {
        /// First guest-physical address.
        address: u64,
        /// Length in bytes, not 0; address + size is 2^64 at most.
        size: u64,
    },
    /// Every window (`VFIO_DMA_UNMAP_FLAG_ALL`).
    All,
}

impl DmaUnmap {
    /// Length of the payload in bytes.
    pub const LEN: u32 = 24;
    const NAME: &'static str = "DMA_UNMAP";
    const FLAG_DIRTY_BITMAP: u32 = 1;
    const FLAG_ALL: u32 = 1 << 1;

    /// Appends the payload, of the command or of the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (flags, address, size) = match *self {
            Self::Range { address, size } => (0, address, size),
            Self::All => (Self::FLAG_ALL, 0, 0),
        };
        out.put_u32(Self::LEN);
        out.put_u32(flags);
        out.put_u64(address);
        out.put_u64(size);
    }

    /// Reads the payload of the command.
    ///
    /// # Errors
    ///
    /// When its size is wrong, it asks for a dirty bitmap (which is not supported), it names a range together with
    /// "all", or its range is empty or passes 2^64.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        super::device::check_argsz(&mut fields, Self::LEN)?;
        let flags = fields.u32("flags")?;
        if flags & Self::FLAG_DIRTY_BITMAP != 0 {
            return Err(fields.fail("flags", Reason::Unsupported(flags.into())));
        }
        let unmap = match flags {
            0 => {
                let (address, size) = range(&mut fields, u64::MAX)?;
                Self::Range { address, size }
            }
            Self::FLAG_ALL => {
                for field in ["address", "size"] {
                    let found = fields.u64(field)?;
                    if found != 0 {
                        return Err(fields.fail(field, Reason::Mismatch { found, expected: 0 }));
                    }
                }
                Self::All
            }
            _ => return Err(fields.fail("flags", Reason::Invalid(flags.into()))),
        };
        fields.end()?;
        Ok(unmap)
    }
}

/// The fixed part of `DMA_READ` and `DMA_WRITE`; the data follows in a write and in the reply to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaAccess {
    /// Guest-physical address; with `count` it does not overflow.
    pub address: u64,
    /// Bytes to move: 1 up to the limit given to the decoder.
    pub count: u32,
}

impl DmaAccess {
    /// Length of the fixed part in bytes.
    pub const LEN: u32 = 16;

    /// Appends the fixed part.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.address);
        out.put_u64(self.count.into());
    }

    /// Reads a message that has no data: a read command, or the reply to a write.
    ///
    /// # Errors
    ///
    /// When its size or range is wrong, or it moves more than `limit` bytes.
    pub fn decode(message: &'static str, payload: &[u8], limit: u32) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(message, payload);
        let access = Self::fixed(&mut fields, limit)?;
        fields.end()?;
        Ok(access)
    }

    /// Reads the reply to a write. The specification's table gives its count 4 bytes where the request has 8, so both
    /// lengths are taken.
    ///
    /// # Errors
    ///
    /// As for [`Self::decode`].
    pub fn decode_write_reply(payload: &[u8], limit: u32) -> Result<Self, DecodeError> {
        const NAME: &str = "DMA_WRITE";
        if payload.len() != 12 {
            return Self::decode(NAME, payload, limit);
        }
        let mut fields = Fields::new(NAME, payload);
        let address = fields.u64("address")?;
        let count = fields.u32("count")?;
        Self::checked(&fields, address, count.into(), limit)
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
        let address = fields.u64("address")?;
        let count = fields.u64("count")?;
        Self::checked(fields, address, count, limit)
    }

    fn checked(
        fields: &Fields<'_>,
        address: u64,
        count: u64,
        limit: u32,
    ) -> Result<Self, DecodeError> {
        let count = match u32::try_from(count) {
            Ok(0) => return Err(fields.fail("count", Reason::TooSmall { found: 0, least: 1 })),
            Ok(fits) if fits <= limit => fits,
            _ => {
                return Err(fields.fail(
                    "count",
                    Reason::TooLarge {
                        found: count,
                        most: limit.into(),
                    },
                ));
            }
        };
        if address.checked_add(count.into()).is_none() {
            return Err(fields.fail("address", Reason::Overflow));
        }
        Ok(Self { address, count })
    }
}

/// Takes `address` and `size`: not empty, and not past `last`.
fn range(fields: &mut Fields<'_>, last: u64) -> Result<(u64, u64), DecodeError> {
    let address = fields.u64("address")?;
    let size = fields.u64("size")?;
    if size == 0 {
        return Err(fields.fail("size", Reason::TooSmall { found: 0, least: 1 }));
    }
    let end = address.checked_add(size - 1);
    if end.is_none_or(|end| end > last) {
        return Err(fields.fail("address", Reason::Overflow));
    }
    Ok((address, size))
}
