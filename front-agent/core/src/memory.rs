//! Guest memory as the VMM gives it: windows, and what is behind them.

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{SealFlags, fcntl_get_seals, fstatfs};
use vm_memory::{Bytes as _, FileOffset, MmapRegion, VolatileMemory as _, bitmap::Bitmap};

use crate::huge_pages::HugePages;

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
/// A memfd that is sealed against shrinking is mapped, while there is room for that. Any other file is read and written by system calls: its
/// owner could shorten it under a mapping, and the fault would take the process with it, and every other guest's device. So it would where the
/// system promises no memory that it does not have (`vm.overcommit_memory` = 2): nothing is mapped there. Huge pages are copied by the kernel.
#[derive(Debug)]
pub struct FileMemory(Access);

#[derive(Debug)]
enum Access {
    Mapped { region: MmapRegion<()>, _room: Room },
    Huge { pages: HugePages, _room: Room },
    Called { file: Arc<File>, start: u64 },
}

impl FileMemory {
    /// `size` bytes of `file` from `start` on. `writable`: the file is opened for it.
    ///
    /// # Errors
    /// The file says nothing about itself.
    pub fn new(file: OwnedFd, start: u64, size: u64, writable: bool) -> io::Result<Self> {
        Mapper::default().open(Arc::new(File::from(file)), start, size, writable)
    }
}

/// Opens the memory of one guest: what one VMM may have mapped is bounded, or its sparse files would leave the process no address space.
#[derive(Debug, Default)]
pub struct Mapper(Arc<Usage>);

impl Mapper {
    /// As [`FileMemory::new`], of a file that other windows may share.
    ///
    /// # Errors
    /// The file says nothing about itself.
    pub fn open(
        &self,
        file: Arc<File>,
        start: u64,
        size: u64,
        writable: bool,
    ) -> io::Result<FileMemory> {
        let mapped = match kind(&file, start, size)? {
            Kind::Sealed => self.map(&file, start, size, writable),
            Kind::Huge { page } => self.map_huge(&file, start, size, writable, page),
            Kind::Other => None,
        };
        Ok(FileMemory(mapped.unwrap_or(Access::Called { file, start })))
    }

    fn map(&self, file: &Arc<File>, start: u64, size: u64, writable: bool) -> Option<Access> {
        let room = Room::take(&self.0, size)?;
        let region = map(file, start, size, writable)?;
        Some(Access::Mapped {
            region,
            _room: room,
        })
    }

    fn map_huge(
        &self,
        file: &Arc<File>,
        start: u64,
        size: u64,
        writable: bool,
        page: u64,
    ) -> Option<Access> {
        // With the rest of its first and last page.
        let room = Room::take(&self.0, size.checked_add(2 * page)?)?;
        let pages = HugePages::map(file, start, size, writable, page)?;
        Some(Access::Huge { pages, _room: room })
    }
}

/// How a file can be accessed.
enum Kind {
    /// It keeps its size, and its pages come when they are touched.
    Sealed,
    /// On hugetlbfs.
    Huge {
        page: u64,
    },
    Other,
}

fn kind(file: &File, start: u64, size: u64) -> io::Result<Kind> {
    let system = fstatfs(file)?;
    let page = u64::try_from(system.f_bsize).unwrap_or(0);
    if system.f_type == HUGETLBFS_MAGIC && page.is_power_of_two() {
        return Ok(Kind::Huge { page });
    }
    // First the seals, then the size: what is sealed keeps it.
    let seals = fcntl_get_seals(file).unwrap_or(SealFlags::empty());
    let length = file.metadata()?.len();
    let whole = start.checked_add(size).is_some_and(|end| end <= length);
    let sealed = seals.contains(SealFlags::SHRINK) && system.f_type == TMPFS_MAGIC;
    Ok(
        if sealed && whole && size >= MAPPED_BYTES_MIN && !is_strict() {
            Kind::Sealed
        } else {
            Kind::Other
        },
    )
}

/// Whether a page that is touched for the first time may be refused.
fn is_strict() -> bool {
    static STRICT: OnceLock<bool> = OnceLock::new();
    let mode = || std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    *STRICT.get_or_init(|| mode().is_ok_and(|mode| mode.trim() == "2"))
}

/// Maps a range of a file, shared with its owner.
pub(crate) fn map(
    file: &Arc<File>,
    start: u64,
    size: u64,
    writable: bool,
) -> Option<MmapRegion<()>> {
    let mut protection = libc::PROT_READ;
    if writable {
        protection |= libc::PROT_WRITE;
    }
    let offset = FileOffset::from_arc(Arc::clone(file), start);
    let size = usize::try_from(size).ok()?;
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
    MmapRegion::build(Some(offset), size, protection, flags).ok()
}

/// Shorter windows are not worth a mapping: a guest with an IOMMU has thousands of a page.
const MAPPED_BYTES_MIN: u64 = 1 << 20;

/// What one guest may have mapped, and all of a process's: far from what the kernel allows a process, 65,530 mappings and 128 TiB.
const GUEST_MAX: Limit = Limit {
    mappings: 512,
    bytes: 4 << 40,
};
const PROCESS_MAX: Limit = Limit {
    mappings: 16_384,
    bytes: 32 << 40,
};

/// `f_type` of statfs(2).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

static PROCESS: Usage = Usage {
    mappings: AtomicU64::new(0),
    bytes: AtomicU64::new(0),
};

#[derive(Debug, Clone, Copy)]
struct Limit {
    mappings: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Usage {
    mappings: AtomicU64,
    bytes: AtomicU64,
}

impl Usage {
    /// False when it would be too much.
    fn take(&self, bytes: u64, limit: Limit) -> bool {
        let mappings = self.mappings.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes_now = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let fits = mappings <= limit.mappings && bytes_now <= limit.bytes;
        if !fits {
            self.free(bytes);
        }
        fits
    }

    fn free(&self, bytes: u64) {
        self.mappings.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Room for one mapping, given back when it is dropped.
#[derive(Debug)]
struct Room {
    guest: Arc<Usage>,
    bytes: u64,
}

impl Room {
    fn take(guest: &Arc<Usage>, bytes: u64) -> Option<Self> {
        if bytes > GUEST_MAX.bytes || !guest.take(bytes, GUEST_MAX) {
            return None;
        }
        if !PROCESS.take(bytes, PROCESS_MAX) {
            guest.free(bytes);
            return None;
        }
        let guest = Arc::clone(guest);
        Some(Self { guest, bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.guest.free(self.bytes);
        PROCESS.free(self.bytes);
    }
}

impl GuestMemory for FileMemory {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Access::Mapped { region, .. } => GuestMemory::read(region, offset, out),
            Access::Huge { pages, .. } => pages.read(offset, out),
            Access::Called { file, start } => file.read_exact_at(out, start + offset),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &self.0 {
            Access::Mapped { region, .. } => GuestMemory::write(region, offset, data),
            Access::Huge { pages, .. } => pages.write(offset, data),
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

    const SIZE: u64 = 2 * MAPPED_BYTES_MIN;

    fn memfd(flags: MemfdFlags, size: u64, seal: bool) -> OwnedFd {
        let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("guest", flags).unwrap();
        ftruncate(&file, size).unwrap();
        if seal {
            fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        }
        file
    }

    fn is_mapped(memory: &FileMemory) -> bool {
        matches!(memory.0, Access::Mapped { .. })
    }

    #[test]
    fn both_ways_of_access_see_the_same_file() {
        let half = SIZE / 2;
        let file = memfd(MemfdFlags::empty(), SIZE, true);
        let copy = file.try_clone().unwrap();
        let mapped = FileMemory::new(file, half, half, true).unwrap();
        assert!(is_mapped(&mapped));
        let called = FileMemory(Access::Called {
            file: Arc::new(File::from(copy)),
            start: half,
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
        let file = memfd(MemfdFlags::empty(), SIZE, false);
        let owner = file.try_clone().unwrap();
        let memory = FileMemory::new(file, 0, SIZE, true).unwrap();

        ftruncate(&owner, 0).unwrap();

        assert!(memory.read(0, &mut [0; 4]).is_err());
    }

    #[test]
    fn a_file_that_was_shortened_before_its_seal_is_not_mapped() {
        let file = memfd(MemfdFlags::empty(), 4096, true);

        let memory = FileMemory::new(file, 0, SIZE, true).unwrap();

        assert!(!is_mapped(&memory));
        assert!(memory.read(8192, &mut [0; 4]).is_err());
    }

    #[test]
    fn huge_pages_that_are_not_there_are_an_error_and_no_fault() {
        // Far more than any machine has reserved for this, from the middle of a page on.
        let (start, size) = (0xc_0000, 1 << 40);
        for seal in [true, false] {
            let file = memfd(MemfdFlags::HUGETLB, 2 * size, seal);
            let memory = FileMemory::new(file, start, size, true).unwrap();

            assert!(matches!(memory.0, Access::Huge { .. }));
            assert!(memory.write(size - 1, &[1]).is_err());
            assert!(memory.read(0, &mut [0; 4]).is_err());
        }
    }

    #[test]
    fn sparse_files_do_not_use_up_the_address_space() {
        let mapper = Mapper::default();
        let size = 1 << 40;
        let open = || {
            let file = memfd(MemfdFlags::empty(), size, true);
            mapper
                .open(Arc::new(File::from(file)), 0, size, true)
                .unwrap()
        };

        let windows: Vec<_> = (0..8).map(|_| open()).collect();

        let mapped = windows.iter().filter(|window| is_mapped(window)).count();
        assert_eq!(mapped, 4);
        let last = windows.last().unwrap();
        last.write(size - 1, &[7]).unwrap();
        let mut out = [0];
        last.read(size - 1, &mut out).unwrap();
        assert_eq!(out, [7]);
        drop(windows);
        assert!(is_mapped(&open()), "the room is there again");
    }

    #[test]
    fn thousands_of_windows_leave_room_for_other_mappings() {
        let mapper = Mapper::default();
        let file = Arc::new(File::from(memfd(MemfdFlags::empty(), SIZE, true)));
        let open = |size| mapper.open(Arc::clone(&file), 0, size, true).unwrap();

        let pages: Vec<_> = (0..2_000).map(|_| open(4096)).collect();
        let windows: Vec<_> = (0..600).map(|_| open(SIZE)).collect();

        assert!(!pages.iter().any(is_mapped));
        let mapped = windows.iter().filter(|window| is_mapped(window)).count();
        assert_eq!(mapped, 512);
    }
}
