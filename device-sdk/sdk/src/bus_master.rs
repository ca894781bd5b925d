//! The right of a device to act on the guest.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::outbox::{Action, Right, Shared};

/// The right to read and write the guest's memory and to raise message-signalled interrupts, as of the moment when
/// [`crate::DeviceHandle::bus_master`] gave it.
///
/// Take one when a piece of work begins, and use that one until the work is done, on whatever thread. After a reset, after bus mastering
/// was turned off, and when the guest's session is over, every call on an older one fails with [`BusError::Revoked`] and nothing
/// reaches a guest. So what began before can never land in the memory of whoever comes later.
///
/// # Order
///
/// What is done with one or several of these arrives in the order of the calls. What a callback of the device does before it returns
/// reaches the guest before the guest learns that its access is complete; an interrupt arrives after all that was written
/// before it.
///
/// # What can go wrong later
///
/// The agent checks each transfer at the moment at which it happens: against the memory that the guest has now, and whether bus mastering is on.
/// A read that fails says so in [`crate::Device::dma_read_done`], a write in [`crate::Device::dma_write_failed`].
#[derive(Clone)]
pub struct BusMaster {
    shared: Arc<Shared>,
    right: Right,
}

impl BusMaster {
    /// Longest transfer, in bytes.
    pub const TRANSFER_BYTES_MAX: usize = 16 << 20;

    /// What may be under way at a time, in bytes: data, and 64 for each transfer. A transfer longer than this goes when nothing else is
    /// under way.
    pub const BACKLOG_BYTES_MAX: usize = crate::outbox::BACKLOG_BYTES_MAX;

    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let right = shared.right();
        Self { shared, right }
    }

    /// Writes guest memory, from `address` on. Nobody waits for it: a failure comes by [`crate::Device::dma_write_failed`].
    ///
    /// # Errors
    ///
    /// [`BusError::Range`], [`BusError::Revoked`] and [`BusError::Full`]; nothing was written then.
    pub fn write(&self, address: u64, data: impl Into<Bytes>) -> Result<(), BusError> {
        let data = data.into();
        check_range(address, data.len())?;
        let bytes = data.len();
        let generation = self.right.generation;
        let write = Action::DmaWrite {
            generation,
            address,
            data,
        };
        self.shared.transfer(self.right, bytes, write)
    }

    /// Asks for `length` bytes of guest memory, from `address` on. The answer comes by [`crate::Device::dma_read_done`] with this `tag`,
    /// exactly once, unless the device is reset before. Answers come in the order of the calls.
    ///
    /// # Errors
    ///
    /// [`BusError::Range`], [`BusError::Revoked`] and [`BusError::Full`]; no answer follows then.
    pub fn read(&self, address: u64, length: usize, tag: u64) -> Result<(), BusError> {
        check_range(address, length)?;
        let generation = self.right.generation;
        let read = Action::DmaRead {
            generation,
            address,
            length,
            tag,
        };
        self.shared.transfer(self.right, length, read)
    }

    /// Raises an MSI vector. It reaches the guest if the guest has MSI enabled. A vector that is raised faster than the guest takes it may
    /// fire once for several calls.
    ///
    /// # Errors
    ///
    /// [`BusError::Vector`] and [`BusError::Revoked`].
    pub fn msi(&self, vector: u16) -> Result<(), BusError> {
        self.shared.raise(self.right, Vector::Msi(vector))
    }

    /// Raises an MSI-X vector; otherwise as [`BusMaster::msi`].
    ///
    /// # Errors
    ///
    /// As [`BusMaster::msi`].
    pub fn msix(&self, vector: u16) -> Result<(), BusError> {
        self.shared.raise(self.right, Vector::Msix(vector))
    }
}

impl fmt::Debug for BusMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusMaster")
            .field("right", &self.right)
            .finish_non_exhaustive()
    }
}

/// A message-signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vector {
    /// Of the MSI capability.
    Msi(u16),
    /// Of the MSI-X table.
    Msix(u16),
}

/// Why a call on a [`BusMaster`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The device was reset, bus mastering was turned off, or the session ended, since this right was given; or there was no session.
    #[error("the right to act on the guest is over")]
    Revoked,
    /// Too much is under way. To be tried again after [`crate::Device::dma_ready`].
    #[error("too much is under way: try again after dma_ready")]
    Full,
    /// No byte or too many, or past the end of the address space.
    #[error("a transfer has 1 byte to 16 MiB, and ends within 64 bits of address")]
    Range,
    /// The descriptor offers no such vector.
    #[error("the function's descriptor has no such vector")]
    Vector,
}

/// Why a transfer moved no byte, or not all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DmaError {
    /// The guest has no memory there, in part at least.
    #[error("no guest memory is mapped there")]
    Range,
    /// The guest's memory there does not allow this direction.
    #[error("the guest's memory there does not allow this direction")]
    Direction,
    /// Bus mastering is off, or was since the transfer began.
    #[error("bus mastering is off, or was since the transfer began")]
    Disabled,
    /// The guest's memory could not be accessed.
    #[error("the guest's memory could not be accessed")]
    Failed,
}

fn check_range(address: u64, length: usize) -> Result<(), BusError> {
    if length == 0 || length > BusMaster::TRANSFER_BYTES_MAX {
        return Err(BusError::Range);
    }
    let last = address.checked_add(length as u64 - 1);
    last.map(drop).ok_or(BusError::Range)
}

#[cfg(test)]
#[path = "bus_master_tests.rs"]
mod tests;
