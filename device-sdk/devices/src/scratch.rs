//! Memory and counters: a device for measurements and trials.
//!
//! | BAR | | |
//! | --- | --- | --- |
//! | 0 | memory, 64-bit, prefetchable | as much memory as was asked for: gives what was written, at every width and offset |
//! | 2 | I/O ports, 16 bytes | 0x0: elements read from BAR 0, 0x4: elements written to it, 4 bytes each, modulo 2^32; a write of anything to either sets both to 0 |

use potemkin_pci::{Bar, BuildError};
use potemkin_sdk::{
    AccessError, BarIndex, Descriptor, DescriptorBuilder, Device, Register, ResetKind, Space, Width,
};

/// Largest BAR 0, in bytes: the memory behind it is the host's.
const SIZE_MAX: u64 = 64 << 20;

/// The device.
#[derive(Debug)]
pub struct Scratch {
    descriptor: Descriptor,
    memory: Vec<u8>,
    reads: u32,
    writes: u32,
}

impl Scratch {
    /// Bytes of BAR 0 when nothing else is asked for.
    pub const DEFAULT_SIZE: u64 = 64 << 10;

    /// A device with `size_bytes` bytes of memory: a power of two from 16 bytes to 64 MiB.
    ///
    /// # Errors
    ///
    /// Any other size.
    pub fn new(size_bytes: u64) -> Result<Self, ScratchError> {
        if size_bytes > SIZE_MAX {
            return Err(ScratchError::TooLarge { size_bytes });
        }
        let descriptor = DescriptorBuilder::new(0x1234, 0x5c7a)
            .bar(BarIndex::B0, Bar::memory64(size_bytes).prefetchable())
            .bar(BarIndex::B2, Bar::io(16))
            .build()?;
        let length =
            usize::try_from(size_bytes).map_err(|_| ScratchError::TooLarge { size_bytes })?;
        Ok(Self {
            descriptor,
            memory: vec![0; length],
            reads: 0,
            writes: 0,
        })
    }

    fn cell(&mut self, at: Register) -> Result<&mut [u8], AccessError> {
        let start = usize::try_from(at.offset).ok();
        let end = start.and_then(|start| start.checked_add(at.bytes()));
        let range = start.zip(end).map(|(start, end)| start..end);
        range
            .and_then(|range| self.memory.get_mut(range))
            .ok_or(AccessError::NoRegister(at))
    }

    fn counter(&mut self, at: Register) -> Result<&mut u32, AccessError> {
        match (at.offset, at.width) {
            (0x0, Width::B4) => Ok(&mut self.reads),
            (0x4, Width::B4) => Ok(&mut self.writes),
            _ => Err(AccessError::NoRegister(at)),
        }
    }
}

impl Device for Scratch {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        match at.space {
            Space::Bar(BarIndex::B0) => {
                let cell = self.cell(at)?;
                let mut value = [0; 8];
                value[..cell.len()].copy_from_slice(cell);
                self.reads = self.reads.wrapping_add(1);
                Ok(u64::from_le_bytes(value))
            }
            Space::Bar(BarIndex::B2) => Ok(u64::from(*self.counter(at)?)),
            _ => Err(AccessError::NoRegister(at)),
        }
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        match at.space {
            Space::Bar(BarIndex::B0) => {
                let cell = self.cell(at)?;
                let bytes = value.to_le_bytes();
                cell.copy_from_slice(&bytes[..cell.len()]);
                self.writes = self.writes.wrapping_add(1);
                Ok(())
            }
            Space::Bar(BarIndex::B2) => {
                self.counter(at)?;
                (self.reads, self.writes) = (0, 0);
                Ok(())
            }
            _ => Err(AccessError::NoRegister(at)),
        }
    }

    fn reset(&mut self, _: ResetKind) {
        self.memory.fill(0);
        (self.reads, self.writes) = (0, 0);
    }
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// More memory than a host gives to one device.
    #[error("size: {size_bytes} bytes are more than {SIZE_MAX}")]
    TooLarge {
        /// What was asked for.
        size_bytes: u64,
    },
    /// No BAR has that size.
    #[error("size: {0}")]
    Descriptor(#[from] BuildError),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use potemkin_sdk::testing::{Harness, bar0};

    use super::*;

    fn port(offset: u64) -> Register {
        Register::new(Space::Bar(BarIndex::B2), offset, Width::B4)
    }

    #[test]
    fn memory_keeps_every_width_at_every_offset() {
        let mut device = Harness::new(Scratch::new(64).unwrap());

        for width in Width::ALL {
            for offset in 0..=64 - width.bytes() as u64 {
                let value = 0x8182_8384_8586_8788 & width.all_ones();
                device.write(bar0(offset, width), value).unwrap();
                assert_eq!(device.read(bar0(offset, width)), value);
            }
        }
    }

    #[test]
    fn elements_are_counted_until_a_counter_is_written() {
        let mut device = Harness::new(Scratch::new(64).unwrap());

        for _ in 0..5 {
            device.write(bar0(0, Width::B4), 1).unwrap();
        }
        device.read(bar0(0, Width::B1));
        assert_eq!((device.read(port(0)), device.read(port(4))), (1, 5));
        device.write(port(4), 0).unwrap();

        assert_eq!((device.read(port(0)), device.read(port(4))), (0, 0));
    }

    #[test]
    fn reset_leaves_nothing_behind() {
        let mut device = Harness::new(Scratch::new(64).unwrap());
        device.write(bar0(8, Width::B8), u64::MAX).unwrap();

        device.reset(ResetKind::Session);

        assert_eq!(device.read(port(4)), 0);
        assert_eq!(device.read(bar0(8, Width::B8)), 0);
    }

    #[test]
    fn unfit_sizes_are_refused() {
        for size in [0, 8, 100, SIZE_MAX * 2] {
            assert!(Scratch::new(size).is_err(), "{size}");
        }
    }
}
