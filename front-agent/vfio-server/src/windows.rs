//! The DMA windows that a client has announced.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use potemkin_vfio_user::Errno;
use potemkin_vfio_user::message::{DmaMap, Protection};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use crate::error::Refusal;

/// Most DMA windows of a client. QEMU has about 20, plus one a memory slot.
pub const MAX_DMA_WINDOWS: usize = 4096;

/// Most of them that come with a descriptor.
pub const MAX_DMA_FILES: usize = 256;

/// Windows by their address; none overlaps another.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    by_address: BTreeMap<u64, Window>,
    files: usize,
}

#[derive(Debug)]
struct Window {
    /// Not 0, and address + size does not overflow.
    size: u64,
    has_file: bool,
}

impl Windows {
    /// Whether this window may be added, with this descriptor.
    pub(crate) fn check(&self, map: &DmaMap, file: Option<&OwnedFd>) -> Result<(), Refusal> {
        if self.overlaps(map) {
            return Err(Refusal::because(
                Errno::EXIST,
                "the window overlaps another",
            ));
        }
        if self.by_address.len() >= MAX_DMA_WINDOWS {
            return Err(Refusal::because(Errno::NOSPC, "too many windows"));
        }
        let Some(file) = file else { return Ok(()) };
        if self.files >= MAX_DMA_FILES {
            return Err(Refusal::because(
                Errno::NOSPC,
                "too many windows with a descriptor",
            ));
        }
        check_file(map, file)
    }

    /// Adds a window that [`Self::check`] has found good.
    pub(crate) fn insert(&mut self, map: &DmaMap, has_file: bool) {
        self.files += usize::from(has_file);
        self.by_address.insert(
            map.address,
            Window {
                size: map.size,
                has_file,
            },
        );
    }

    /// Takes out the window that begins at `address` and has exactly `size` bytes.
    pub(crate) fn remove(&mut self, address: u64, size: u64) -> Result<(), Refusal> {
        match self.by_address.get(&address) {
            Some(window) if window.size == size => {
                self.files -= usize::from(window.has_file);
                self.by_address.remove(&address);
                Ok(())
            }
            _ => Err(Refusal::because(Errno::NOENT, "there is no such window")),
        }
    }

    /// Takes out all: their addresses and sizes.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (u64, u64)> {
        self.files = 0;
        std::mem::take(&mut self.by_address)
            .into_iter()
            .map(|(address, window)| (address, window.size))
    }

    fn overlaps(&self, map: &DmaMap) -> bool {
        // Of the windows that begin before the new one's end only the last can reach into it.
        let end = map.address + map.size;
        self.by_address
            .range(..end)
            .next_back()
            .is_some_and(|(&address, window)| address + window.size > map.address)
    }
}

/// The descriptor is a file that has all of the window and was opened for what the window allows.
fn check_file(map: &DmaMap, file: &OwnedFd) -> Result<(), Refusal> {
    let refuse = |errno, what| Err(Refusal::because(errno, what));
    let Ok(stat) = fstat(file) else {
        return refuse(Errno::BADF, "the descriptor says nothing about itself");
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return refuse(Errno::INVAL, "the descriptor is not a file");
    }
    let has = u64::try_from(stat.st_size).unwrap_or(0);
    if map.offset + map.size > has {
        return refuse(Errno::INVAL, "the file ends before the window does");
    }
    if !opened_for(file, map.protection) {
        return refuse(
            Errno::ACCESS,
            "the file is not opened for what the window allows",
        );
    }
    Ok(())
}

fn opened_for(file: &OwnedFd, wanted: Protection) -> bool {
    let Ok(flags) = fcntl_getfl(file) else {
        return false;
    };
    if flags.contains(OFlags::PATH) {
        return false;
    }
    let mode = flags & OFlags::ACCMODE;
    let (read, write) = (mode != OFlags::WRONLY, mode != OFlags::RDONLY);
    (read || !wanted.read) && (write || !wanted.write)
}
