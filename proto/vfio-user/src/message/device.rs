//! `DEVICE_GET_INFO`, `DEVICE_GET_REGION_INFO` and `DEVICE_GET_IRQ_INFO`, as VFIO has them in `<linux/vfio.h>`.

use crate::error::{DecodeError, Reason};
use crate::wire::{Fields, PutFields, flag};

/// Number of region indices of a PCI device: six BARs, ROM, configuration space, VGA.
pub const INDEX_COUNT: u32 = 9;

/// Number of interrupt types of a PCI device; see [`IrqIndex`].
pub const IRQ_COUNT: u32 = 5;

/// An interrupt type of a PCI device (`VFIO_PCI_*_IRQ_INDEX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum IrqIndex {
    /// The level-triggered pin.
    Intx = 0,
    /// Message-signalled interrupts.
    Msi = 1,
    /// Message-signalled interrupts with a table.
    Msix = 2,
    /// An unrecoverable error of the device.
    Err = 3,
    /// A request to give the device back.
    Req = 4,
}

impl IrqIndex {
    /// All of them, in order.
    pub const ALL: [Self; IRQ_COUNT as usize] =
        [Self::Intx, Self::Msi, Self::Msix, Self::Err, Self::Req];

    /// The type with this index.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// Its index on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }
}

/// Answer to `DEVICE_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Whether `DEVICE_RESET` works.
    pub reset: bool,
    /// Whether it is a PCI device.
    pub pci: bool,
    /// Number of region indices.
    pub num_regions: u32,
    /// Number of interrupt types.
    pub num_irqs: u32,
}

impl DeviceInfo {
    /// Length of the payload in bytes.
    pub const LEN: u32 = 16;
    const NAME: &'static str = "DEVICE_GET_INFO";
    const FLAG_RESET: u32 = 1;
    const FLAG_PCI: u32 = 1 << 1;

    /// Appends the payload of the command.
    pub fn encode_request(out: &mut Vec<u8>) {
        for field in [Self::LEN, 0, 0, 0] {
            out.put_u32(field);
        }
    }

    /// Checks the payload of the command.
    ///
    /// # Errors
    ///
    /// When its size, or the size it asks for, is wrong.
    pub fn decode_request(payload: &[u8]) -> Result<(), DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        check_argsz(&mut fields, Self::LEN)?;
        for field in ["flags", "num_regions", "num_irqs"] {
            fields.u32(field)?;
        }
        fields.end()
    }

    /// Appends the payload of the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(Self::LEN);
        out.put_u32(flag(self.reset, Self::FLAG_RESET) | flag(self.pci, Self::FLAG_PCI));
        out.put_u32(self.num_regions);
        out.put_u32(self.num_irqs);
    }

    /// Reads the payload of the reply.
    ///
    /// # Errors
    ///
    /// When it is short.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        check_argsz(&mut fields, Self::LEN)?;
        let flags = fields.u32("flags")?;
        Ok(Self {
            reset: flags & Self::FLAG_RESET != 0,
            pci: flags & Self::FLAG_PCI != 0,
            num_regions: fields.u32("num_regions")?,
            num_irqs: fields.u32("num_irqs")?,
        })
    }
}

/// What may be done with a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionInfoFlags {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// A descriptor to map comes with the answer.
    pub mmap: bool,
}

/// Answer to `DEVICE_GET_REGION_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Which region.
    pub index: u32,
    /// What may be done with it.
    pub flags: RegionInfoFlags,
    /// Its size in bytes; 0 if there is none.
    pub size: u64,
}

impl RegionInfo {
    /// Length of the payload in bytes, without capabilities.
    pub const LEN: u32 = 32;
    const NAME: &'static str = "DEVICE_GET_REGION_INFO";
    const FLAG_READ: u32 = 1;
    const FLAG_WRITE: u32 = 1 << 1;
    const FLAG_MMAP: u32 = 1 << 2;

    /// Appends the payload of the command.
    pub fn encode_request(index: u32, out: &mut Vec<u8>) {
        for field in [Self::LEN, 0, index, 0] {
            out.put_u32(field);
        }
        out.put_u64(0);
        out.put_u64(0);
    }

    /// Reads the index out of the payload of the command.
    ///
    /// # Errors
    ///
    /// When its size, or the size it asks for, is wrong, or there is no such region.
    pub fn decode_request(payload: &[u8]) -> Result<u32, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        check_argsz(&mut fields, Self::LEN)?;
        fields.u32("flags")?;
        let index = fields.u32("index")?;
        fields.u32("cap_offset")?;
        fields.u64("size")?;
        fields.u64("offset")?;
        if index >= INDEX_COUNT {
            return Err(fields.fail("index", too_large(index, INDEX_COUNT - 1)));
        }
        fields.end()?;
        Ok(index)
    }

    /// Appends the payload of the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(Self::LEN);
        out.put_u32(
            flag(self.flags.read, Self::FLAG_READ)
                | flag(self.flags.write, Self::FLAG_WRITE)
                | flag(self.flags.mmap, Self::FLAG_MMAP),
        );
        out.put_u32(self.index);
        out.put_u32(0);
        out.put_u64(self.size);
        out.put_u64(0);
    }

    /// Reads the payload of the reply; capabilities after it are not looked at.
    ///
    /// # Errors
    ///
    /// When it is short.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        check_argsz(&mut fields, Self::LEN)?;
        let flags = fields.u32("flags")?;
        let index = fields.u32("index")?;
        fields.u32("cap_offset")?;
        let size = fields.u64("size")?;
        fields.u64("offset")?;
        let flags = RegionInfoFlags {
            read: flags & Self::FLAG_READ != 0,
            write: flags & Self::FLAG_WRITE != 0,
            mmap: flags & Self::FLAG_MMAP != 0,
        };
        Ok(Self { index, flags, size })
    }
}

/// How an interrupt type behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqInfoFlags {
    /// It is signalled through eventfds.
    pub eventfd: bool,
    /// It can be masked and unmasked.
    pub maskable: bool,
    /// It masks itself when it fires.
    pub automasked: bool,
    /// Vectors cannot be added without disabling all of them.
    pub noresize: bool,
}

/// Answer to `DEVICE_GET_IRQ_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqInfo {
    /// Which type.
    pub index: IrqIndex,
    /// How it behaves.
    pub flags: IrqInfoFlags,
    /// How many vectors it has.
    pub count: u32,
}

impl IrqInfo {
    /// Length of the payload in bytes.
    pub const LEN: u32 = 16;
    const NAME: &'static str = "DEVICE_GET_IRQ_INFO";

    /// Appends the payload of the command.
    pub fn encode_request(index: IrqIndex, out: &mut Vec<u8>) {
        for field in [Self::LEN, 0, index.code(), 0] {
            out.put_u32(field);
        }
    }

    /// Reads the index out of the payload of the command.
    ///
    /// # Errors
    ///
    /// When its size, or the size it asks for, is wrong, or there is no such type.
    pub fn decode_request(payload: &[u8]) -> Result<IrqIndex, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        check_argsz(&mut fields, Self::LEN)?;
        fields.u32("flags")?;
        let index = irq_index(&mut fields)?;
        fields.u32("count")?;
        fields.end()?;
        Ok(index)
    }

    /// Appends the payload of the reply.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = [
            self.flags.eventfd,
            self.flags.maskable,
            self.flags.automasked,
            self.flags.noresize,
        ];
        let bits = flags
            .iter()
            .enumerate()
            .fold(0, |bits, (at, &set)| bits | flag(set, 1 << at));
        for field in [Self::LEN, bits, self.index.code(), self.count] {
            out.put_u32(field);
        }
    }

    /// Reads the payload of the reply.
    ///
    /// # Errors
    ///
    /// When it is short or names no type.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(Self::NAME, payload);
        check_argsz(&mut fields, Self::LEN)?;
        let bits = fields.u32("flags")?;
        let index = irq_index(&mut fields)?;
        let count = fields.u32("count")?;
        let flags = IrqInfoFlags {
            eventfd: bits & 1 != 0,
            maskable: bits & 2 != 0,
            automasked: bits & 4 != 0,
            noresize: bits & 8 != 0,
        };
        Ok(Self {
            index,
            flags,
            count,
        })
    }
}

/// Takes `argsz`: the size of the answer that the asker has room for, or that the answerer has.
pub(super) fn check_argsz(fields: &mut Fields<'_>, least: u32) -> Result<(), DecodeError> {
    let argsz = fields.u32("argsz")?;
    if argsz < least {
        return Err(fields.fail(
            "argsz",
            Reason::TooSmall {
                found: argsz.into(),
                least: least.into(),
            },
        ));
    }
    Ok(())
}

pub(super) fn irq_index(fields: &mut Fields<'_>) -> Result<IrqIndex, DecodeError> {
    let code = fields.u32("index")?;
    IrqIndex::from_code(code).ok_or_else(|| fields.fail("index", too_large(code, IRQ_COUNT - 1)))
}

fn too_large(found: u32, most: u32) -> Reason {
    Reason::TooLarge {
        found: found.into(),
        most: most.into(),
    }
}
