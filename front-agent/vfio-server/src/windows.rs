//! The DMA windows that a client has announced.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use potemkin_vfio_user::Errno;
use potemkin_vfio_user::message::{DmaMap, Protection};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, fstatfs};

use crate::descriptors::Bundle;
use crate::error::Refusal;
use crate::function::DmaWindow;
use crate::saved::{RestoreError, SavedWindow};

/// Most DMA windows of a client. QEMU has about 20, plus one a memory slot; with an IOMMU for its guest one a page, and then the bound is its own.
pub const MAX_DMA_WINDOWS: usize = 65_535;

/// Most files that these are in.
pub const MAX_DMA_FILES: usize = 256;

/// `f_type` of statfs(2).
const FUSE_MAGIC: i64 = 0x6573_5546;

/// Windows by their address; none overlaps another.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    by_address: BTreeMap<u64, Window>,
    /// The files of windows that are there, and of some that were.
    files: HashMap<FileKey, Weak<File>>,
}

#[derive(Debug)]
struct Window {
    /// Not 0, and address + size does not overflow.
    size: u64,
    protection: Protection,
    /// Where it begins in its file.
    offset: u64,
    /// Keeps its entry alive.
    file: Option<WindowFile>,
}

/// Which file, and opened for what: file system, inode, flags.
type FileKey = (u64, u64, u32);

/// The file of a window. One that many windows are in is held open once.
#[derive(Debug)]
pub(crate) struct WindowFile {
    key: FileKey,
    file: Arc<File>,
}

impl WindowFile {
    pub(crate) fn shared(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

impl Windows {
    /// Whether this window may be added, with this descriptor; gives the file to use for it.
    pub(crate) fn check(
        &mut self,
        map: &DmaMap,
        file: Option<OwnedFd>,
    ) -> Result<Option<WindowFile>, Refusal> {
        if self.overlaps(map) {
            return Err(Refusal::because(
                Errno::EXIST,
                "the window overlaps another",
            ));
        }
        if self.by_address.len() >= MAX_DMA_WINDOWS {
            return Err(Refusal::because(Errno::NOSPC, "too many windows"));
        }
        let Some(file) = file else { return Ok(None) };
        self.keep(map, File::from(file)).map(Some)
    }

    /// What of a file to hold for this window.
    fn keep(
        &mut self,
        map: &DmaMap,
        file: impl Into<Arc<File>> + AsFd,
    ) -> Result<WindowFile, Refusal> {
        let key = check_file(map, &file)?;
        if let Some(file) = self.files.get(&key).and_then(Weak::upgrade) {
            return Ok(WindowFile { key, file });
        }
        if self.files.len() >= MAX_DMA_FILES {
            self.files.retain(|_, file| file.strong_count() > 0);
        }
        if self.files.len() >= MAX_DMA_FILES {
            return Err(Refusal::because(Errno::NOSPC, "windows in too many files"));
        }
        let file = file.into();
        Ok(WindowFile { key, file })
    }

    /// The windows, and the files that they are in.
    pub(crate) fn save(&self, bundle: &mut Bundle) -> io::Result<(Vec<SavedWindow>, Vec<i32>)> {
        let (mut windows, mut files) = (Vec::new(), Vec::new());
        let mut places = HashMap::new();
        for (&address, window) in &self.by_address {
            let file = match &window.file {
                None => None,
                Some(WindowFile { key, file }) => Some(match places.entry(*key) {
                    Entry::Occupied(place) => *place.get(),
                    Entry::Vacant(place) => {
                        files.push(bundle.add(&**file)?);
                        *place.insert(files.len() - 1)
                    }
                }),
            };
            windows.push(SavedWindow {
                address,
                size: window.size,
                read: window.protection.read,
                write: window.protection.write,
                file,
                offset: window.offset,
            });
        }
        Ok((windows, files))
    }

    /// A window that was saved, as the function gets it, and what to insert once it has; checked as one that a client announces.
    pub(crate) fn restore(
        &mut self,
        saved: &SavedWindow,
        file: Option<&Arc<File>>,
    ) -> Result<(DmaWindow, Option<WindowFile>), RestoreError> {
        let SavedWindow {
            address,
            size,
            read,
            write,
            offset,
            ..
        } = *saved;
        let map = DmaMap {
            protection: Protection { read, write },
            offset,
            address,
            size,
        };
        let ends = address.checked_add(size).and(offset.checked_add(size));
        if size == 0 || ends.is_none() {
            return Err(RestoreError::Invalid("windows"));
        }
        let refused = |_| RestoreError::Invalid("windows");
        self.check(&map, None).map_err(refused)?;
        let kept = match file {
            None => None,
            Some(file) => Some(self.keep(&map, Arc::clone(file)).map_err(refused)?),
        };
        let window = DmaWindow {
            address,
            size,
            protection: map.protection,
            file: kept.as_ref().map(|kept| (kept.shared(), offset)),
        };
        Ok((window, kept))
    }

    /// Adds a window that [`Self::check`] has found good.
    pub(crate) fn insert(&mut self, map: &DmaMap, file: Option<WindowFile>) {
        if let Some(WindowFile { key, file }) = &file {
            self.files.insert(*key, Arc::downgrade(file));
        }
        let window = Window {
            size: map.size,
            protection: map.protection,
            offset: map.offset,
            file,
        };
        self.by_address.insert(map.address, window);
    }

    /// Takes out the windows that lie in this range, none perhaps: their addresses and sizes. One that lies in it in part is an error, and
    /// nothing is taken out.
    pub(crate) fn remove(&mut self, address: u64, size: u64) -> Result<Vec<(u64, u64)>, Refusal> {
        let last = address + (size - 1);
        let begins_before = self.by_address.range(..=last).rev();
        let reaching = begins_before.take_while(|(start, window)| *start + window.size > address);
        let found: Vec<_> = reaching
            .map(|(start, window)| (*start, window.size))
            .collect();
        let inside = |&(start, size): &(u64, u64)| start >= address && start + (size - 1) <= last;
        if !found.iter().all(inside) {
            return Err(Refusal::because(
                Errno::INVAL,
                "the range has a part of a window",
            ));
        }
        for (start, _) in &found {
            self.by_address.remove(start);
        }
        Ok(found)
    }

    /// Takes out all: their addresses and sizes.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (u64, u64)> {
        self.files.clear();
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

/// The descriptor is a file that has all of the window and was opened for what the window allows: which one.
fn check_file(map: &DmaMap, file: &impl AsFd) -> Result<FileKey, Refusal> {
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
    // A file system of a user's may never answer, and the device's thread waits for it.
    if fstatfs(file).is_ok_and(|system| system.f_type == FUSE_MAGIC) {
        return refuse(Errno::INVAL, "the file is on a FUSE file system");
    }
    let flags = fcntl_getfl(file).unwrap_or(OFlags::PATH);
    if flags.contains(OFlags::APPEND) {
        return refuse(
            Errno::INVAL,
            "the file is opened for appending: nothing can be written in its middle",
        );
    }
    if !opened_for(flags, map.protection) {
        return refuse(
            Errno::ACCESS,
            "the file is not opened for what the window allows",
        );
    }
    Ok((stat.st_dev, stat.st_ino, flags.bits()))
}

fn opened_for(flags: OFlags, wanted: Protection) -> bool {
    if flags.contains(OFlags::PATH) {
        return false;
    }
    let mode = flags & OFlags::ACCMODE;
    let (read, write) = (mode != OFlags::WRONLY, mode != OFlags::RDONLY);
    (read || !wanted.read) && (write || !wanted.write)
}
