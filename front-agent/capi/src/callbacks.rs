//! What the VMM does for the device.
#![allow(unsafe_code, reason = "calls functions of the VMM's")]

use std::{
    ffi::{c_int, c_void},
    io,
    sync::Arc,
};

use potemkin_front_core::{Bus, GuestMemory};

use crate::boundary::{Versioned, callback};

/// What the VMM does for the device. Set it to zero, then fill it in; it is copied. A callback that is null is not called: such interrupts
/// are lost, such memory cannot be accessed.
///
/// They are called on the session's thread, one at a time, in the order in which the device did what they stand for: when an interrupt
/// comes, the memory that the device wrote before it is written. They must return soon, must call nothing of this library
/// (it answers `POTEMKIN_STATUS_IN_CALLBACK`) and must not wait for a thread that is inside a call of it. They must not unwind.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Callbacks {
    /// `sizeof(struct potemkin_callbacks)`.
    pub size: usize,
    /// Given to each callback.
    pub user: *mut c_void,
    /// The level of the function's INTx line changed; as the guest is to see it, the command register's interrupt-disable bit obeyed.
    pub set_intx: Option<extern "C" fn(user: *mut c_void, level: bool)>,
    /// MSI vector 0 to 31 fired; the guest has turned MSI and bus mastering on.
    pub msi: Option<extern "C" fn(user: *mut c_void, vector: u16)>,
    /// MSI-X vector 0 to 2047 fired; the guest has turned MSI-X and bus mastering on.
    pub msix: Option<extern "C" fn(user: *mut c_void, vector: u16)>,
    /// Reads guest memory of a window that was mapped without a base; never beyond the window. 0: done; else the transfer fails.
    pub read_guest_memory: Option<
        extern "C" fn(user: *mut c_void, address: u64, out: *mut c_void, length: usize) -> c_int,
    >,
    /// Writes guest memory of a window that was mapped without a base; never beyond the window. 0: done; else the transfer fails.
    pub write_guest_memory: Option<
        extern "C" fn(user: *mut c_void, address: u64, data: *const c_void, length: usize) -> c_int,
    >,
}

// SAFETY: `repr(C)`, begins with its size; pointers may be null.
unsafe impl Versioned for Callbacks {
    const FIRST: usize = 56;
}

impl Callbacks {
    /// A VMM that does nothing for the device.
    pub(crate) const NONE: Self = Self {
        size: size_of::<Self>(),
        user: std::ptr::null_mut(),
        set_intx: None,
        msi: None,
        msix: None,
        read_guest_memory: None,
        write_guest_memory: None,
    };
}

// SAFETY: functions, and a pointer that we only hand back. `potemkin_open` asks its caller for one that any thread may use.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Bus for Callbacks {
    fn set_intx(&self, level: bool) {
        if let Some(set_intx) = self.set_intx {
            callback(|| set_intx(self.user, level));
        }
    }

    fn msi(&self, vector: u16) {
        if let Some(msi) = self.msi {
            callback(|| msi(self.user, vector));
        }
    }

    fn msix(&self, vector: u16) {
        if let Some(msix) = self.msix {
            callback(|| msix(self.user, vector));
        }
    }
}

/// A window whose memory only the VMM can access.
#[derive(Debug)]
pub(crate) struct CallbackMemory {
    pub(crate) callbacks: Arc<Callbacks>,
    /// Guest-physical, of the window.
    pub(crate) address: u64,
}

impl GuestMemory for CallbackMemory {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let Callbacks {
            user,
            read_guest_memory,
            ..
        } = *self.callbacks;
        let read = read_guest_memory.ok_or(io::ErrorKind::Unsupported)?;
        let address = self.address + offset;
        done(callback(|| {
            read(user, address, out.as_mut_ptr().cast(), out.len())
        }))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Callbacks {
            user,
            write_guest_memory,
            ..
        } = *self.callbacks;
        let write = write_guest_memory.ok_or(io::ErrorKind::Unsupported)?;
        let address = self.address + offset;
        done(callback(|| {
            write(user, address, data.as_ptr().cast(), data.len())
        }))
    }
}

fn done(code: c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::other(format!("the VMM's callback gave {code}"))),
    }
}
