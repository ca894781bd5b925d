//! Descriptors that another program inherits: by `execve` in the same process, under the same numbers.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{FdFlags, dup, fcntl_getfd, fcntl_setfd};
use thiserror::Error;

/// Descriptors for the next program: duplicates that stay open there. Dropped, they are closed.
#[derive(Debug, Default)]
pub struct Bundle {
    fds: Vec<OwnedFd>,
}

impl Bundle {
    /// Adds a duplicate; its number.
    ///
    /// # Errors
    ///
    /// The operating system's, when there are too many.
    pub fn add(&mut self, fd: impl AsFd) -> io::Result<i32> {
        let duplicate = dup(fd)?;
        let number = duplicate.as_raw_fd();
        self.fds.push(duplicate);
        Ok(number)
    }

    /// Adds those of another.
    pub fn append(&mut self, other: Self) {
        self.fds.extend(other.fds);
    }

    /// Their numbers.
    pub fn numbers(&self) -> Vec<i32> {
        self.fds.iter().map(AsRawFd::as_raw_fd).collect()
    }
}

/// Descriptors that this program has inherited. Those that nobody takes are closed.
#[derive(Debug, Default)]
pub struct Inherited {
    fds: BTreeMap<i32, OwnedFd>,
}

/// A number does not stand for an inherited descriptor.
#[derive(Debug, Error)]
#[error("descriptor {0}: not inherited, or taken already")]
pub struct AdoptError(i32);

impl Inherited {
    /// Takes over the descriptors with these numbers, of which another program's [`Bundle`] told. They are not inherited any further.
    ///
    /// # Errors
    ///
    /// One of them was not inherited. Those before it are closed.
    #[allow(unsafe_code)]
    pub fn adopt(numbers: impl IntoIterator<Item = i32>) -> Result<Self, AdoptError> {
        let mut fds = BTreeMap::new();
        for number in numbers {
            if number <= 2 || fds.contains_key(&number) {
                return Err(AdoptError(number));
            }
            // SAFETY: Only asked about, by a call that fails if it is not open, and which changes nothing.
            let asked = unsafe { BorrowedFd::borrow_raw(number) };
            match fcntl_getfd(asked) {
                Ok(flags) if !flags.contains(FdFlags::CLOEXEC) => {}
                _ => return Err(AdoptError(number)),
            }
            // SAFETY: It is open, and nobody has it: whatever this program opens itself is closed on `execve`, as are those adopted before, and
            // this one is not.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(|_| AdoptError(number))?;
            fds.insert(number, fd);
        }
        Ok(Self { fds })
    }

    /// The descriptor with this number; each can be taken once.
    ///
    /// # Errors
    ///
    /// It was not inherited, or taken.
    pub fn take(&mut self, number: i32) -> Result<OwnedFd, AdoptError> {
        self.fds.remove(&number).ok_or(AdoptError(number))
    }

    /// Those with these numbers, as far as they are here.
    pub fn split(&mut self, numbers: &[i32]) -> Self {
        let taken = numbers
            .iter()
            .filter_map(|number| self.fds.remove_entry(number));
        Self {
            fds: taken.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_a_bundle_tells_of_can_be_adopted_once() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut bundle = Bundle::default();
        let number = bundle.add(&reader).unwrap();
        assert_eq!(bundle.numbers(), [number]);
        // As `execve` does.
        std::mem::forget(bundle);

        let mut inherited = Inherited::adopt([number]).unwrap();
        let taken = inherited.take(number).unwrap();

        assert!(inherited.take(number).is_err());
        assert!(fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        writer.write_all(b"x").unwrap();
        let mut byte = [0];
        std::fs::File::from(taken).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_was_not_inherited_is_refused() {
        let (ours, _writer) = std::io::pipe().unwrap();
        for number in [-1, 0, 2, 1 << 20, ours.as_raw_fd()] {
            assert!(Inherited::adopt([number]).is_err(), "{number}");
        }
        let mut bundle = Bundle::default();
        let twice = bundle.add(&ours).unwrap();
        std::mem::forget(bundle);
        assert!(Inherited::adopt([twice, twice]).is_err());
    }
}
