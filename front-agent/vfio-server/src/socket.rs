//! The listening socket and its name in the file system.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use potemkin_vfio_user::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, chmodat, chownat, fchmod, flock,
    openat, statat, unlinkat,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
    sockopt::{socket_acceptconn, socket_domain},
};

use crate::descriptors::{Bundle, Inherited};
use crate::error::BindError;
use crate::saved::SavedListener;

/// Clients that may wait for the present one to go; more are told to try again.
const BACKLOG: i32 = 8;

/// Longest path of a socket in bytes (`sun_path` less its NUL).
const MAX_PATH: usize = 107;

/// A listening socket; dropping it removes its name.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<OwnedFd>,
    path: PathBuf,
    /// Device and inode of the name when it was made: it is removed only while it is still ours.
    identity: (u64, u64),
}

impl Listener {
    /// Makes the socket: for its owner only, or for the members of `group` as well. A socket that nobody listens on any
    /// more is replaced.
    ///
    /// # Errors
    ///
    /// [`BindError`]: the path is too long or taken, or the operating system refuses.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let at = Place { path };
        let address = at.address()?;
        // Two servers that start at once must not each take the other's new socket for a stale one.
        let directory = at.lock_directory()?;
        let socket = at.socket()?;
        // Linux gives the name the mode of the socket, so it never is open to more than its owner.
        let owner = Mode::RUSR | Mode::WUSR;
        fchmod(&socket, owner).map_err(at.failed("setting the mode"))?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                at.remove_stale(&address)?;
                bind(&socket, &address).map_err(at.failed("binding"))?;
            }
            other => other.map_err(at.failed("binding"))?,
        }
        let identity = identity(path).map_err(at.failed("looking at the new socket"))?;
        // From here on a failure removes the name.
        let listener = Self {
            socket: Arc::new(socket),
            path: path.to_owned(),
            identity,
        };
        // Nobody can connect before `listen`, so nobody could while group and mode were others.
        if let Some(group) = group {
            chownat(
                CWD,
                path,
                None,
                Some(Gid::from_raw(group)),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(at.failed("setting the group"))?;
        }
        // The umask may have taken bits away, and it is the whole process's.
        let mode = if group.is_some() {
            owner | Mode::RGRP | Mode::WGRP
        } else {
            owner
        };
        chmodat(CWD, path, mode, AtFlags::empty()).map_err(at.failed("setting the mode"))?;
        listen(&listener.socket, BACKLOG).map_err(at.failed("listening"))?;
        drop(directory);
        Ok(listener)
    }

    /// The socket for another process.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn save(&self, bundle: &mut Bundle) -> io::Result<SavedListener> {
        Ok(SavedListener {
            socket: bundle.add(&*self.socket)?,
            name: self.identity,
        })
    }

    /// Goes on listening on a socket that another process has bound at `path`, and listened on.
    ///
    /// # Errors
    ///
    /// [`BindError`]: it was not inherited, or is no UNIX socket that listens.
    pub fn adopt(
        path: &Path,
        saved: &SavedListener,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let at = Place { path };
        let step = "looking at the socket that was handed over";
        let socket = inherited.take(saved.socket);
        let socket = socket.map_err(|_| at.failed(step)(Errno::BADF))?;
        let listens = socket_acceptconn(&socket).map_err(at.failed(step))?;
        let domain = socket_domain(&socket).map_err(at.failed(step))?;
        if !listens || domain != AddressFamily::UNIX {
            return Err(at.failed(step)(Errno::INVAL));
        }
        Ok(Self {
            socket: Arc::new(socket),
            path: path.to_owned(),
            identity: saved.name,
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor, for watching; it lives as long as the last of its users.
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// Whether a client waits to be accepted.
    pub(crate) fn has_waiting(&self) -> bool {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut fds, Some(&NOW)) == Ok(1)
    }

    /// The next client's socket, which does not block.
    pub(crate) fn accept(&self) -> Result<OwnedFd, Errno> {
        accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if identity(&self.path) == Ok(self.identity) {
            // Nobody is left to tell if it fails; the next server finds the socket stale.
            let _ = unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

/// Where the socket is to be.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path,
}

impl Place<'_> {
    fn failed(self, step: &'static str) -> impl FnOnce(Errno) -> BindError {
        move |errno| BindError::Os {
            path: self.path.to_owned(),
            step,
            errno,
        }
    }

    fn address(self) -> Result<SocketAddrUnix, BindError> {
        let len = self.path.as_os_str().as_bytes().len();
        if len > MAX_PATH {
            return Err(BindError::PathTooLong {
                path: self.path.to_owned(),
                len,
                most: MAX_PATH,
            });
        }
        SocketAddrUnix::new(self.path).map_err(self.failed("reading the path"))
    }

    fn socket(self) -> Result<OwnedFd, BindError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(self.failed("making a socket"))
    }

    /// Holds off other servers that start in the same directory.
    fn lock_directory(self) -> Result<OwnedFd, BindError> {
        let parent = self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty())
            .map_err(self.failed("opening the directory"))?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(self.failed("locking the directory"))?;
        Ok(directory)
    }

    /// Removes what is there if it is a socket that nobody listens on.
    fn remove_stale(self, address: &SocketAddrUnix) -> Result<(), BindError> {
        let stat = statat(CWD, self.path, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("looking at what is there"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(BindError::NotASocket(self.path.to_owned()));
        }
        let probe = self.socket()?;
        match connect(&probe, address) {
            Err(Errno::CONNREFUSED) => unlinkat(CWD, self.path, AtFlags::empty())
                .map_err(self.failed("removing a stale socket")),
            // Taken, or its queue is full.
            Ok(()) | Err(Errno::AGAIN) => Err(BindError::InUse(self.path.to_owned())),
            Err(errno) => Err(self.failed("asking who listens")(errno)),
        }
    }
}

fn identity(path: &Path) -> Result<(u64, u64), Errno> {
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}
