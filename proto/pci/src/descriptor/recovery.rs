//! What a function shows once it has failed, and how its guest resets it: for drivers that recover by resetting their controller.

use super::Descriptor;
use crate::{BarIndex, Space, Width};

/// A register that reads so while the function is latched failed. All others give all-ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailedRegister {
    /// Which BAR.
    pub bar: BarIndex,
    /// First byte, a multiple of the width.
    pub offset: u64,
    /// How wide it is.
    pub width: Width,
    /// What it reads.
    pub value: u64,
}

/// A write by which the guest resets the function: one that leaves `value` in the bits of `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResetWrite {
    /// Which BAR.
    pub bar: BarIndex,
    /// First byte, a multiple of the width.
    pub offset: u64,
    /// How wide the register is.
    pub width: Width,
    /// The bits that count: one at least.
    pub mask: u64,
    /// What they are written as; no other bits.
    pub value: u64,
}

/// Both lists, in order of BAR and offset; within each no two overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub(super) failed_image: Vec<FailedRegister>,
    pub(super) reset_writes: Vec<ResetWrite>,
}

impl Descriptor {
    /// What registers read while the function is latched failed.
    #[must_use]
    pub fn failed_image(&self) -> &[FailedRegister] {
        &self.inner.recovery.failed_image
    }

    /// The writes by which a guest resets the function, besides a function-level reset and what its VMM does.
    #[must_use]
    pub fn reset_writes(&self) -> &[ResetWrite] {
        &self.inner.recovery.reset_writes
    }

    /// Fills `out` with what the function shows at `offset` of `space` while it is latched failed.
    pub fn read_failed(&self, space: Space, offset: u64, out: &mut [u8]) {
        out.fill(0xff);
        let Space::Bar(bar) = space else { return };
        for register in self.failed_image().iter().filter(|found| found.bar == bar) {
            let bytes = register.value.to_le_bytes();
            for (byte, at) in bytes[..register.width.bytes()]
                .iter()
                .zip(register.offset..)
            {
                let place = at
                    .checked_sub(offset)
                    .and_then(|at| usize::try_from(at).ok());
                if let Some(place) = place.and_then(|at| out.get_mut(at)) {
                    *place = *byte;
                }
            }
        }
    }

    /// Whether a write of `data` at `offset` of `space` resets the function: it has all the bits that a reset write asks for, as that asks for them.
    #[must_use]
    pub fn resets(&self, space: Space, offset: u64, data: &[u8]) -> bool {
        let Space::Bar(bar) = space else { return false };
        let mut writes = self.reset_writes().iter();
        writes.any(|write| write.bar == bar && write.is_made_by(offset, data))
    }
}

impl ResetWrite {
    fn is_made_by(&self, offset: u64, data: &[u8]) -> bool {
        let wanted = self
            .mask
            .to_le_bytes()
            .into_iter()
            .zip(self.value.to_le_bytes());
        let mut wanted = wanted
            .zip(self.offset..)
            .filter(|((mask, _), _)| *mask != 0);
        wanted.all(|((mask, value), at)| {
            let place = at
                .checked_sub(offset)
                .and_then(|at| usize::try_from(at).ok());
            let byte = place.and_then(|at| data.get(at));
            byte.is_some_and(|byte| byte & mask == value)
        })
    }
}
