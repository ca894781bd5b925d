//! The trait that a device author implements.

use potemkin_pci::{Descriptor, Space, Width};

use crate::{DeviceHandle, DmaError};

/// A PCI function, as its author writes it.
///
/// The host calls a device from one thread, one callback at a time, in the order in which the guest's accesses were made.
/// Offsets are relative to the start of a BAR, of the expansion ROM or of configuration space; a device never sees a guest
/// address. The host has checked each access against the descriptor before it reaches the device: the space exists, and
/// the access lies inside of it.
///
/// # Callbacks must not block
///
/// One thread serves every device of a host. A callback that waits makes every other guest of that host wait, and past the
/// agent's deadline (by default one second) the guest is cut off from the device. Work that takes long belongs on a thread of
/// the device's own, which calls [`DeviceHandle::notify`] when there is something to collect; the host then calls
/// [`Device::notified`].
///
/// # Panics in a callback
///
/// The host catches a panic, ends the device's session, and from then on answers for the device: reads give all-ones. The other
/// devices of the host are not affected.
pub trait Device: Send {
    /// What the guest will see. Asked for once, when the host starts; it must not change afterwards.
    fn descriptor(&self) -> &Descriptor;

    /// A guest's read of one register. Bits of the answer beyond the width of the access are not used.
    ///
    /// # Errors
    ///
    /// The guest reads all-ones, and the host counts the refusal.
    fn read(&mut self, at: Register) -> Result<u64, AccessError>;

    /// A guest's write of one register. Bits of `value` beyond the width of the access are zero.
    ///
    /// # Errors
    ///
    /// Nothing was written; the guest does not notice, and the host counts the refusal.
    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError>;

    /// Back to the state at power-on. Work begun before, on whatever thread, must have no effect on the device afterwards. On the guest it
    /// has none: every [`crate::BusMaster`] given before this returns is void, no read begun before is answered any more, and INTx is low.
    fn reset(&mut self, kind: ResetKind);

    /// Several elements in one access, as of a string instruction: `data` receives them in order, each little-endian and
    /// `at.width` bytes wide. By default each element is a [`Device::read`] of its own, and one that fails gives all-ones.
    ///
    /// # Errors
    ///
    /// [`AccessError::BlockLength`] when `data` is no whole number of elements; otherwise as for [`Device::read`], for all of the
    /// elements.
    fn read_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &mut [u8],
    ) -> Result<(), AccessError> {
        let width = at.bytes();
        check_block(at, data.len())?;
        for (at, element) in mode.registers(at).zip(data.chunks_exact_mut(width)) {
            let value = self.read(at).unwrap_or(u64::MAX);
            element.copy_from_slice(&value.to_le_bytes()[..width]);
        }
        Ok(())
    }

    /// Several elements in one access: the counterpart of [`Device::read_block`]. By default each element is a
    /// [`Device::write`] of its own.
    ///
    /// # Errors
    ///
    /// [`AccessError::BlockLength`] when `data` is no whole number of elements, and then nothing was written; otherwise the
    /// first error of an element, after all of them were tried.
    fn write_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &[u8],
    ) -> Result<(), AccessError> {
        let width = at.bytes();
        check_block(at, data.len())?;
        let mut outcome = Ok(());
        for (at, element) in mode.registers(at).zip(data.chunks_exact(width)) {
            let written = self.write(at, little_endian(element));
            outcome = outcome.and(written);
        }
        outcome
    }

    /// The device is about to be served. `handle` is its way to the host for what it starts by itself; a device that starts
    /// nothing by itself drops it. Called once, before any access.
    fn attached(&mut self, handle: DeviceHandle) {
        drop(handle);
    }

    /// Called on the host's thread after [`DeviceHandle::notify`]. Several calls of `notify` may lead to one of this.
    fn notified(&mut self) {}

    /// A [`crate::BusMaster::read`] is over: all its bytes, or why there are none. Comes exactly once for each read that was taken, in their
    /// order; [`Device::reset`] cancels all before it without a word.
    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        let _ = (tag, outcome);
    }

    /// A [`crate::BusMaster::write`] moved nothing, or not all. Comes later than the write, and of several that failed one may be told only.
    fn dma_write_failed(&mut self, error: DmaError) {
        let _ = error;
    }

    /// The guest turned bus mastering off: every [`crate::BusMaster`] given before is void. Reads under way end with
    /// [`DmaError::Disabled`], or with their bytes if these were on their way; writes and interrupts under way may not have arrived. The device
    /// is not told when bus mastering is turned on again.
    fn bus_master_off(&mut self) {}

    /// There is room for more transfers, after a call said [`crate::BusError::Full`].
    fn dma_ready(&mut self) {}

    /// The device has no more accesses waiting: the place to write out what was buffered. Called often; must be cheap when
    /// there is nothing to do.
    fn idle(&mut self) {}
}

impl<D: Device + ?Sized> Device for Box<D> {
    fn descriptor(&self) -> &Descriptor {
        (**self).descriptor()
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        (**self).read(at)
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        (**self).write(at, value)
    }

    fn reset(&mut self, kind: ResetKind) {
        (**self).reset(kind);
    }

    fn read_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &mut [u8],
    ) -> Result<(), AccessError> {
        (**self).read_block(at, mode, data)
    }

    fn write_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &[u8],
    ) -> Result<(), AccessError> {
        (**self).write_block(at, mode, data)
    }

    fn attached(&mut self, handle: DeviceHandle) {
        (**self).attached(handle);
    }

    fn notified(&mut self) {
        (**self).notified();
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        (**self).dma_read_done(tag, outcome);
    }

    fn dma_write_failed(&mut self, error: DmaError) {
        (**self).dma_write_failed(error);
    }

    fn bus_master_off(&mut self) {
        (**self).bus_master_off();
    }

    fn dma_ready(&mut self) {
        (**self).dma_ready();
    }

    fn idle(&mut self) {
        (**self).idle();
    }
}

/// Where an access goes: a byte offset in a space of the function, and how many bytes from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// Which BAR, or the expansion ROM, or configuration space.
    pub space: Space,
    /// In bytes from the start of the space.
    pub offset: u64,
    /// Of one element.
    pub width: Width,
}

impl Register {
    /// `width` bytes at `offset` of `space`.
    #[must_use]
    pub fn new(space: Space, offset: u64, width: Width) -> Self {
        Self {
            space,
            offset,
            width,
        }
    }

    /// The width in bytes: 1, 2, 4 or 8.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.width.bytes()
    }
}

/// How the elements of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockMode {
    /// One behind the other: each offset is the one before plus the width.
    Consecutive,
    /// All at one offset, as a FIFO is read or written by a string instruction.
    Fixed,
}

impl BlockMode {
    /// The registers of a block that starts at `first`, without an end: bounded by what they are zipped with.
    pub fn registers(self, first: Register) -> impl Iterator<Item = Register> {
        let step = match self {
            Self::Consecutive => first.width.bytes() as u64,
            Self::Fixed => 0,
        };
        (0u64..).map(move |n| Register {
            offset: first.offset.wrapping_add(n.wrapping_mul(step)),
            ..first
        })
    }
}

/// Why a device is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetKind {
    /// The guest reset the function: function-level reset, or a reset of the machine.
    Function,
    /// The device leaves one guest before another may have it: nothing of the one may be seen by the other.
    Session,
}

/// Why a device refused an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Nothing is there.
    #[error("no register at {space}, offset {offset:#x}", space = .0.space, offset = .0.offset)]
    NoRegister(Register),
    /// There is a register, but not for accesses this wide.
    #[error(
        "the register at {space}, offset {offset:#x}, takes no access of {bytes} bytes",
        space = .0.space, offset = .0.offset, bytes = .0.bytes()
    )]
    Width(Register),
    /// There is a register, but not for this direction: a write of a read-only one, or a read of a write-only one.
    #[error(
        "the register at {space}, offset {offset:#x}, does not allow this direction",
        space = .0.space, offset = .0.offset
    )]
    Direction(Register),
    /// A block of a length that is no multiple of its width.
    #[error("a block of {length} bytes is no whole number of elements of {bytes} bytes", bytes = .at.bytes())]
    BlockLength {
        /// The first element.
        at: Register,
        /// Of the block, in bytes.
        length: usize,
    },
    /// The device cannot serve the access now, for a reason of its own.
    #[error("the device failed: {0}")]
    Failed(&'static str),
}

fn check_block(at: Register, length: usize) -> Result<(), AccessError> {
    if length.is_multiple_of(at.bytes()) {
        Ok(())
    } else {
        Err(AccessError::BlockLength { at, length })
    }
}

pub(crate) fn little_endian(element: &[u8]) -> u64 {
    element
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte))
}
