//! Guest memory of huge pages. Their owner may punch holes into the file, and use up the pages, seals or not; and such a file cannot be written by
//! system calls. So it is mapped, and the kernel copies: it finds a page that is missing, and does not fault.

#![allow(unsafe_code)]

use std::{fs::File, io, sync::Arc};

use vm_memory::MmapRegion;

use crate::memory::{GuestMemory, map};

/// A window in such a file.
#[derive(Debug)]
pub(crate) struct HugePages {
    region: MmapRegion<()>,
    /// Bytes of the first page that are before the window.
    before: u64,
}

impl HugePages {
    /// `size` bytes of `file` from `start` on, as whole pages of `page` bytes: others can be neither mapped nor unmapped.
    pub(crate) fn map(
        file: &Arc<File>,
        start: u64,
        size: u64,
        writable: bool,
        page: u64,
    ) -> Option<Self> {
        let end = start.checked_add(size)?.checked_next_multiple_of(page)?;
        let first = start - start % page;
        Some(Self {
            region: map(file, first, end - first, writable)?,
            before: start - first,
        })
    }

    /// Where bytes of the window are mapped.
    fn place(&self, offset: u64, length: usize) -> io::Result<libc::iovec> {
        let outside = || io::Error::from(io::ErrorKind::InvalidInput);
        let at = self.before.checked_add(offset).ok_or_else(outside)?;
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let end = at.checked_add(length).ok_or_else(outside)?;
        if end > self.region.size() {
            return Err(outside());
        }
        Ok(iovec(self.region.as_ptr().wrapping_add(at), length))
    }
}

impl GuestMemory for HugePages {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let local = iovec(out.as_mut_ptr(), out.len());
        let pages = self.place(offset, out.len())?;
        // SAFETY: `local` is all of `out`, which may be written. `pages` lies in a mapping of ours, whose pages the kernel checks.
        let copied = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &pages, 1, 0) };
        whole(copied, out.len())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let local = iovec(data.as_ptr().cast_mut(), data.len());
        let pages = self.place(offset, data.len())?;
        // SAFETY: `local` is all of `data`, and only read. `pages` lies in a mapping of ours, whose pages the kernel checks: the guest's memory,
        // to which there are no references here.
        let copied = unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &pages, 1, 0) };
        whole(copied, data.len())
    }
}

fn iovec(base: *mut u8, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: base.cast(),
        iov_len: length,
    }
}

/// All of it, or an error: a page that is missing ends a copy early.
fn whole(copied: isize, length: usize) -> io::Result<()> {
    match usize::try_from(copied) {
        Ok(copied) if copied == length => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::FileExt as _;

    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn pages_are_read_and_written_and_one_that_is_missing_is_an_error() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(4 * PAGE).unwrap();
        let pages = HugePages::map(&file, PAGE + 8, 2 * PAGE, true, PAGE).unwrap();

        pages.write(2, b"abc").unwrap();

        let mut out = [0; 3];
        file.read_exact_at(&mut out, PAGE + 10).unwrap();
        assert_eq!(&out, b"abc");
        out.fill(0);
        pages.read(2, &mut out).unwrap();
        assert_eq!(&out, b"abc");
        assert!(pages.read(u64::MAX, &mut out).is_err());
        assert!(pages.read(4 * PAGE, &mut out).is_err());
        // The owner takes pages away: those behind one that is there, and all.
        file.set_len(2 * PAGE).unwrap();
        assert!(pages.write(PAGE - 9, b"abc").is_err());
        file.set_len(0).unwrap();
        assert!(pages.read(2, &mut out).is_err());
    }
}
