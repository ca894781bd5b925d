//! Guest memory as the VMM gives it: windows, and what is behind them.

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use rustix::fs::{SealFlags, fcntl_get_seals};
use vm_memory::{Bytes as _, FileOffset, MmapRegion, VolatileMemory as _, bitmap::Bitmap};

/// Guest memory behind a window. Offsets are relative to the window's start and checked by whoever calls.
pub trait GuestMemory: Send + Sync + fmt::Debug {
    /// Fills `out` from `offset` on, in bytes.
    ///
    /// # Errors
    /// The memory cannot be read; `out` may be filled in part.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`, in bytes.
    ///
    /// # Errors
    /// The memory cannot be written; part of it may have been.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
}

/// A range of guest-physical addresses that the VMM lets the device use.
#[derive(Debug, Clone)]
pub struct Window {
    /// Guest-physical address, in bytes.
    pub address: u64,
    /// Length in bytes, not 0; `address + size` does not pass 2^64.
    pub size: u64,
    /// Whether the device may read it.
    pub readable: bool,
    /// Whether the device may write it.
    pub writable: bool,
    /// What is behind it; none when only the VMM can access it ([`crate::Bus::dma_by_message`]).
    pub memory: Option<Arc<dyn GuestMemory>>,
}

/// A file that guest memory is made of (memfd, tmpfs, hugetlbfs).
///
/// One that is sealed against shrinking is mapped. Any other is read and written by system calls: its owner could shorten it under a
/// mapping, and the fault would take the process with it, and every other guest's device.
#[derive(Debug)]
pub struct FileMemory(Access);

#[derive(Debug)]
enum Access {
    Mapped(MmapRegion<()>),
    Called { file: File, start: u64 },
}

impl FileMemory {
    /// `size` bytes of `file` from `start` on. `writable`: the file is opened for it.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn new(file: OwnedFd, start: u64, size: u64, writable: bool) -> io::Result<Self> {
        let seals = fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
        let file = File::from(file);
        if !seals.contains(SealFlags::SHRINK) {
            return Ok(Self(Access::Called { file, start }));
        }
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let protection = if writable {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        let mapped = MmapRegion::build(
            Some(FileOffset::new(file, start)),
            size,
            protection,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        );
        mapped
            .map(|region| Self(Access::Mapped(region)))
            .map_err(io::Error::other)
    }
}

impl GuestMemory for FileMemory {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Access::Mapped(region) => GuestMemory::read(region, offset, out),
            Access::Called { file, start } => file.read_exact_at(out, start + offset),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.0 {
            Access::Mapped(region) => GuestMemory::write(region, offset, data),
            Access::Called { file, start } => file.write_all_at(data, start + offset),
        }
    }
}

/// A mapping, a rust-vmm VMM's for one.
impl<B: Bitmap + Send + Sync + fmt::Debug> GuestMemory for MmapRegion<B> {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let slice = self.as_volatile_slice();
        slice.read_slice(out, at).map_err(io::Error::other)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let slice = self.as_volatile_slice();
        slice.write_slice(data, at).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;

    fn memfd(seal: bool) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("guest", flags).unwrap();
        ftruncate(&file, 8192).unwrap();
        if seal {
            fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        }
        file
    }

    #[test]
    fn both_ways_of_access_see_the_same_file() {
        let file = memfd(true);
        let copy = file.try_clone().unwrap();
        let mapped = FileMemory::new(file, 4096, 4096, true).unwrap();
        assert!(matches!(mapped.0, Access::Mapped(_)));
        let called = FileMemory(Access::Called {
            file: File::from(copy),
            start: 4096,
        });

        mapped.write(4090, b"abcdef").unwrap();

        let mut out = [0; 6];
        called.read(4090, &mut out).unwrap();
        assert_eq!(&out, b"abcdef");
        called.write(0, b"xyz").unwrap();
        mapped.read(0, &mut out[..3]).unwrap();
        assert_eq!(&out[..3], b"xyz");
    }

    #[test]
    fn a_file_that_its_owner_shortens_gives_an_error_and_no_fault() {
        let file = memfd(false);
        let owner = file.try_clone().unwrap();
        let memory = FileMemory::new(file, 0, 8192, true).unwrap();

        ftruncate(&owner, 0).unwrap();

        assert!(memory.read(0, &mut [0; 4]).is_err());
    }
}
