//! Guest memory that the device may use.
#![allow(unsafe_code, reason = "guest memory is a pointer of the VMM's")]

use std::{ffi::c_void, io, sync::Arc};

use potemkin_front_core::{GuestMemory, Window};
use vm_memory::{Bytes as _, VolatileSlice};

use crate::{
    POTEMKIN_WINDOW_READ, POTEMKIN_WINDOW_WRITE,
    boundary::{call, shared},
    callbacks::CallbackMemory,
    function::Function,
    status::Status,
};

/// Lets the device use `size` bytes of guest memory at the guest-physical `address`: for reads (`POTEMKIN_WINDOW_READ`), writes
/// (`POTEMKIN_WINDOW_WRITE`) or both.
///
/// `base` is where the VMM has that memory mapped; the library copies from and to it until the window is unmapped or the function is closed. With
/// `base` null the callbacks `read_guest_memory` and `write_guest_memory` do it. Windows do not overlap; there are 4096 at most.
/// Without a window the device's DMA is refused, as it is while the guest has bus mastering turned off. All of a transfer is allowed, or
/// nothing of it moves and the device hears of that; so a window with `flags` 0 is one that refuses.
///
/// `POTEMKIN_STATUS_INVALID_ARGUMENT`: other flags, no bytes, beyond 2^64, longer than memory can be, an overlap, too many. A lost session still
/// takes windows. Waits for a copy or a callback that goes on, never for the network.
///
/// # Safety
/// `base` is null, or `size` bytes there can be read (and written, if the device may) until then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_map_window(
    function: *const Function,
    address: u64,
    size: u64,
    flags: u32,
    base: *mut c_void,
) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let function = unsafe { shared(function)? };
        if flags & !(POTEMKIN_WINDOW_READ | POTEMKIN_WINDOW_WRITE) != 0 {
            return Err(Status::InvalidArgument);
        }
        let memory: Arc<dyn GuestMemory> = if base.is_null() {
            Arc::new(CallbackMemory {
                callbacks: Arc::clone(function.callbacks()),
                address,
            })
        } else {
            Arc::new(HostMemory::new(base, size).ok_or(Status::InvalidArgument)?)
        };
        let window = Window {
            address,
            size,
            readable: flags & POTEMKIN_WINDOW_READ != 0,
            writable: flags & POTEMKIN_WINDOW_WRITE != 0,
            memory: Some(memory),
        };
        let mapped = function.device().map_window(window);
        mapped.map_err(|_| Status::InvalidArgument)
    })
}

/// Withdraws a window that was mapped with this address and size; without one it gives `POTEMKIN_STATUS_INVALID_ARGUMENT` and changes nothing.
/// When this returns nothing touches the window any more; it waits for a copy or a callback that goes on, never for the network.
///
/// # Safety
/// `function` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_unmap_window(
    function: *const Function,
    address: u64,
    size: u64,
) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let function = unsafe { shared(function)? };
        let found = function.device().unmap_window(address, size);
        if found {
            Ok(())
        } else {
            Err(Status::InvalidArgument)
        }
    })
}

/// Guest memory where the VMM has it mapped.
#[derive(Debug)]
struct HostMemory {
    base: *mut u8,
    size: usize,
}

// SAFETY: guest memory is for any thread; we touch it by volatile copies only, as the guest's own accesses race with them.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// None: longer than memory can be.
    fn new(base: *mut c_void, size: u64) -> Option<Self> {
        let size = usize::try_from(size).ok()?;
        isize::try_from(size).ok()?;
        base.addr().checked_add(size)?;
        Some(Self {
            base: base.cast(),
            size,
        })
    }

    fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: whoever mapped the window promised so many bytes there until it is unmapped, which waits for copies.
        unsafe { VolatileSlice::new(self.base, self.size) }
    }
}

impl GuestMemory for HostMemory {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.slice().read_slice(out, at).map_err(io::Error::other)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.slice().write_slice(data, at).map_err(io::Error::other)
    }
}
