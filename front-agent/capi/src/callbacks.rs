//! What the VMM does for the device.
#![allow(unsafe_code, reason = "calls functions of the VMM's")]

use std::{
    ffi::{c_int, c_void},
    io,
    sync::Arc,
};

use potemkin_front_core::{Bus, GuestMemory, Interrupts};
use potemkin_pci::Message;

use crate::{
    boundary::{Versioned, callback},
    mapping::Mapping,
};

/// What the VMM does for the device. Set it to zero, then fill it in; it is copied. A callback that is null is not called: such interrupts
/// are lost, such memory cannot be accessed.
///
/// On the session's thread they are called one at a time, in the order in which the device did what they stand for: when an interrupt
/// comes, the memory that the device wrote before it is written. `message`, `map` and `unmap` also come on a thread of the VMM's, inside a
/// call that it made, and then while another callback may run on the session's thread. Wherever they come, they must return soon,
/// must call nothing of this library but `potemkin_abi_version` (all else answers `POTEMKIN_STATUS_IN_CALLBACK`) and must not wait for a thread that
/// is inside a call of it; so a thread that makes a call holds no lock that a callback takes. They must not unwind.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Callbacks {
    /// `sizeof(struct potemkin_callbacks)`.
    pub size: usize,
    /// Given to each callback.
    pub user: *mut c_void,
    /// The level of the function's INTx line changed; as the guest is to see it, the command register's interrupt-disable bit obeyed.
    pub set_intx: Option<extern "C" fn(user: *mut c_void, level: bool)>,
    /// MSI vector 0 to 31 fired; the guest has turned MSI and bus mastering on. Not called with `message` set.
    pub msi: Option<extern "C" fn(user: *mut c_void, vector: u16)>,
    /// MSI-X vector 0 to 2047 fired; the guest has turned MSI-X and bus mastering on. Not called with `message` set.
    pub msix: Option<extern "C" fn(user: *mut c_void, vector: u16)>,
    /// Reads guest memory of a window that was mapped without a base; never beyond the window. 0: done; else the transfer fails.
    pub read_guest_memory: Option<
        extern "C" fn(user: *mut c_void, address: u64, out: *mut c_void, length: usize) -> c_int,
    >,
    /// Writes guest memory of a window that was mapped without a base; never beyond the window. 0: done; else the transfer fails.
    pub write_guest_memory: Option<
        extern "C" fn(user: *mut c_void, address: u64, data: *const c_void, length: usize) -> c_int,
    >,
    /// MSI or MSI-X: the function writes these 4 bytes there, as the guest has programmed it; what the device wrote before is in guest
    /// memory. With this set the library keeps the MSI-X table, the pending bits and the masks, and accesses of them are local;
    /// without it the VMM keeps them, and hears of vectors by `msi` and `msix`.
    ///
    /// Called on the session's thread, or on a thread that unmasks what was pending, inside its write; one message at a time. Once the write
    /// of a mask has returned, nothing that it holds back comes any more.
    pub message: Option<extern "C" fn(user: *mut c_void, address: u64, data: u32)>,
    /// Accesses to this range are the function's from now on. 0: the VMM hands them to it; else the range cannot be had, and what
    /// was mapped before for this BAR stays. It overlaps no other that is mapped for this function.
    ///
    /// Called on the thread that opens the function, resets it, or writes its configuration space, inside that call, which returns when
    /// the VMM's address map is as it says. `map` and `unmap` of one function do not overlap. A BAR that moves is mapped at its
    /// new place, then unmapped at the old one.
    pub map: Option<extern "C" fn(user: *mut c_void, mapping: *const Mapping) -> c_int>,
    /// Ends that; the same range as in `map`. Called as `map`, and by `potemkin_close` for all that is mapped. Not without `map`.
    pub unmap: Option<extern "C" fn(user: *mut c_void, mapping: *const Mapping)>,
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
        message: None,
        map: None,
        unmap: None,
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

impl Interrupts for Callbacks {
    fn set_intx(&self, level: bool) {
        Bus::set_intx(self, level);
    }

    fn message(&self, message: Message) {
        if let Some(send) = self.message {
            callback(|| send(self.user, message.address, message.data));
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
