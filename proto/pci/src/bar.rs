//! Base address registers (PCI 3.0 section 6.2.5.1).

use crate::registers::{BAR_IO, BAR_PREFETCHABLE, BAR_TYPE_64, BAR_TYPE_BELOW_1M};

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory at a 32-bit address.
    Memory32,
    /// Memory at a 64-bit address; takes the next BAR register too.
    Memory64,
    /// Memory that must be placed below 1 MiB (a legacy type: reserved since PCI 2.2). The register is 32 bits wide all the same.
    MemoryBelow1M,
}

impl BarKind {
    /// Whether it decodes memory, not ports.
    #[must_use]
    pub const fn is_memory(self) -> bool {
        !matches!(self, Self::Io)
    }

    /// Smallest and largest size in bytes.
    #[must_use]
    pub const fn sizes(self) -> (u64, u64) {
        match self {
            Self::Io => (4, 256),
            Self::Memory32 => (16, 1 << 31),
            Self::Memory64 => (16, 1 << 40),
            Self::MemoryBelow1M => (16, 1 << 19),
        }
    }
}

/// A base address register's fixed properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bar {
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes: a power of two within [`BarKind::sizes`].
    pub size: u64,
    /// Reads have no side effects and writes may be merged. Memory only.
    pub prefetchable: bool,
}

/// A BAR cannot be as described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BarError {
    /// Registers can only say powers of two.
    #[error("size: {size} is not a power of two")]
    NotPowerOfTwo {
        /// Bytes.
        size: u64,
    },
    /// Too small or too large for its kind.
    #[error("size: {size} is not within {min} to {max} for {kind:?}")]
    OutOfRange {
        /// Bytes.
        size: u64,
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
        /// The BAR's kind.
        kind: BarKind,
    },
    /// Ports are never prefetchable.
    #[error("prefetchable: true on an I/O BAR")]
    PrefetchableIo,
}

impl Bar {
    /// I/O ports: 4 to 256.
    #[must_use]
    pub const fn io(size: u64) -> Self {
        Self::new(BarKind::Io, size)
    }

    /// Memory at a 32-bit address: 16 bytes to 2 GiB.
    #[must_use]
    pub const fn memory32(size: u64) -> Self {
        Self::new(BarKind::Memory32, size)
    }

    /// Memory at a 64-bit address: 16 bytes to 1 TiB.
    #[must_use]
    pub const fn memory64(size: u64) -> Self {
        Self::new(BarKind::Memory64, size)
    }

    /// Memory below 1 MiB: 16 bytes to 512 KiB.
    #[must_use]
    pub const fn memory_below_1m(size: u64) -> Self {
        Self::new(BarKind::MemoryBelow1M, size)
    }

    /// The same BAR, prefetchable.
    #[must_use]
    pub const fn prefetchable(mut self) -> Self {
        self.prefetchable = true;
        self
    }

    const fn new(kind: BarKind, size: u64) -> Self {
        Self {
            kind,
            size,
            prefetchable: false,
        }
    }

    /// Whether a register can say this.
    ///
    /// # Errors
    /// The size is no power of two or not within the kind's limits, or ports are said to be prefetchable.
    pub const fn validate(&self) -> Result<(), BarError> {
        let Self { kind, size, .. } = *self;
        let (min, max) = kind.sizes();
        if !size.is_power_of_two() {
            return Err(BarError::NotPowerOfTwo { size });
        }
        if size < min || size > max {
            return Err(BarError::OutOfRange {
                size,
                min,
                max,
                kind,
            });
        }
        if self.prefetchable && !kind.is_memory() {
            return Err(BarError::PrefetchableIo);
        }
        Ok(())
    }

    /// Whether it takes the next BAR register too.
    #[must_use]
    pub const fn is_64_bit(&self) -> bool {
        matches!(self.kind, BarKind::Memory64)
    }

    /// The read-only low bits of the register, which say its kind.
    #[must_use]
    pub const fn type_bits(&self) -> u32 {
        let kind = match self.kind {
            BarKind::Io => BAR_IO,
            BarKind::Memory32 => 0,
            BarKind::Memory64 => BAR_TYPE_64,
            BarKind::MemoryBelow1M => BAR_TYPE_BELOW_1M,
        };
        if self.prefetchable {
            kind | BAR_PREFETCHABLE
        } else {
            kind
        }
    }

    /// The writable bits of the register, or of both registers (low half in the low bits) of a 64-bit BAR.
    ///
    /// This is also, but for the type bits, what the guest reads back after it wrote all-ones.
    #[must_use]
    pub const fn size_mask(&self) -> u64 {
        let mask = !self.size.wrapping_sub(1);
        if self.is_64_bit() {
            mask
        } else {
            mask & 0xffff_ffff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_at_the_limits_are_accepted_and_past_them_refused() {
        for kind in [
            BarKind::Io,
            BarKind::Memory32,
            BarKind::Memory64,
            BarKind::MemoryBelow1M,
        ] {
            let (min, max) = kind.sizes();
            assert_eq!(Bar::new(kind, min).validate(), Ok(()));
            assert_eq!(Bar::new(kind, max).validate(), Ok(()));
            for size in [min / 2, max * 2] {
                let error = Bar::new(kind, size).validate();
                assert!(
                    matches!(error, Err(BarError::OutOfRange { .. })),
                    "{kind:?}"
                );
            }
        }
    }

    #[test]
    fn sizes_that_are_no_power_of_two_are_refused() {
        for size in [0, 3, 48, u64::MAX] {
            let error = Bar::memory64(size).validate();
            assert_eq!(error, Err(BarError::NotPowerOfTwo { size }));
        }
    }

    #[test]
    fn prefetchable_ports_are_refused() {
        let error = Bar::io(8).prefetchable().validate();
        assert_eq!(error, Err(BarError::PrefetchableIo));
    }

    #[test]
    fn type_bits_say_the_kind() {
        assert_eq!(Bar::io(8).type_bits(), 0b0001);
        assert_eq!(Bar::memory32(16).type_bits(), 0b0000);
        assert_eq!(Bar::memory_below_1m(16).type_bits(), 0b0010);
        assert_eq!(Bar::memory64(16).type_bits(), 0b0100);
        assert_eq!(Bar::memory64(16).prefetchable().type_bits(), 0b1100);
    }

    #[test]
    fn the_size_mask_is_as_wide_as_the_registers() {
        assert_eq!(Bar::io(8).size_mask(), 0xffff_fff8);
        assert_eq!(Bar::memory32(1 << 31).size_mask(), 0x8000_0000);
        assert_eq!(Bar::memory_below_1m(4096).size_mask(), 0xffff_f000);
        assert_eq!(Bar::memory64(4096).size_mask(), 0xffff_ffff_ffff_f000);
        assert_eq!(Bar::memory64(1 << 40).size_mask(), 0xffff_ff00_0000_0000);
    }
}
