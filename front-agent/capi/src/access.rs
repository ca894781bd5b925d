//! The guest's accesses: configuration space, BARs, and addresses as they stand on the bus.
//!
//! No lengths come back: an access is done, or it has no result.
#![allow(unsafe_code, reason = "C has pointers")]

use std::ffi::c_void;

use potemkin_front_core::{FrontDevice, Outcome, block_on};
use potemkin_pci::{BarIndex, Space, Width};

use crate::{
    POTEMKIN_ACCESS_MAX,
    boundary::{call, input, output, shared},
    function::Function,
    status::Status,
};

/// Bytes of configuration space, at most.
const CONFIG_BYTES: usize = 4_096;

/// Where the BARs end and the expansion ROM stands.
fn space(bar: u32) -> Result<Space, Status> {
    if bar == crate::POTEMKIN_ROM {
        return Ok(Space::Rom);
    }
    let index = u8::try_from(bar).ok().and_then(BarIndex::new);
    index.map(Space::Bar).ok_or(Status::InvalidArgument)
}

/// An access to configuration space lies within it.
fn check_config(offset: u16, length: usize) -> Result<(), Status> {
    if usize::from(offset) + length > CONFIG_BYTES {
        return Err(Status::InvalidArgument);
    }
    Ok(())
}

/// The elements of a string instruction: their width, and all their bytes.
fn elements(width: u32, count: usize) -> Result<(Width, usize), Status> {
    let width = usize::try_from(width).ok().and_then(Width::from_bytes);
    let width = width.ok_or(Status::InvalidArgument)?;
    let bytes = width.bytes().checked_mul(count);
    let bytes = bytes.filter(|bytes| *bytes <= POTEMKIN_ACCESS_MAX);
    Ok((width, bytes.ok_or(Status::InvalidArgument)?))
}

/// # Safety
/// `function` is null or open.
unsafe fn access(
    function: *const Function,
    body: impl AsyncFnOnce(&FrontDevice) -> Outcome,
) -> Result<(), Status> {
    // SAFETY: as the caller promises.
    let function = unsafe { shared(function)? };
    match block_on(body(function.device())).into() {
        Status::Ok => Ok(()),
        status => Err(status),
    }
}

/// Reads configuration space, 1 to 4096 bytes that end at 4096 or before. Local, but for bits that the device declares volatile: those ask its host. Bytes
/// beyond the function's own configuration space read as all-ones.
///
/// # Safety
/// `function` is open; the bytes at `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_config_read(
    function: *const Function,
    offset: u16,
    out: *mut c_void,
    length: usize,
) -> Status {
    call(|| {
        check_config(offset, length)?;
        // SAFETY: as the caller promises.
        let out = unsafe { output(out, length)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.config_read(offset, out).await
            })
        }
    })
}

/// Writes configuration space, 1 to 4096 bytes that end at 4096 or before, of which the bits count that the device lets the guest write. Waits for the
/// device where it wants to hear of the write. One that turns bus mastering off or resets the function also waits for a copy or a callback
/// that goes on, as `potemkin_reset` does; one that moves what decodes calls `map` and `unmap`.
///
/// # Safety
/// `function` is open; the bytes at `data` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_config_write(
    function: *const Function,
    offset: u16,
    data: *const c_void,
    length: usize,
) -> Status {
    call(|| {
        check_config(offset, length)?;
        // SAFETY: as the caller promises.
        let data = unsafe { input(data, length)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.config_write(offset, data).await.outcome
            })
        }
    })
}

/// Reads at an offset in a BAR (0 to 5, memory or ports) or in the expansion ROM (`POTEMKIN_ROM`), whose image is here, and which is
/// read so whether its enable bit is on or off.
///
/// # Safety
/// `function` is open; the bytes at `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_bar_read(
    function: *const Function,
    bar: u32,
    offset: u64,
    out: *mut c_void,
    length: usize,
) -> Status {
    call(|| {
        let space = space(bar)?;
        // SAFETY: as the caller promises.
        let out = unsafe { output(out, length)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.region_read(space, offset, out).await
            })
        }
    })
}

/// Writes at an offset in a BAR. Returns without waiting for the device where the device posts its writes, as memory does by default; else
/// when the device has done it. The expansion ROM ignores what is written to it.
///
/// # Safety
/// `function` is open; the bytes at `data` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_bar_write(
    function: *const Function,
    bar: u32,
    offset: u64,
    data: *const c_void,
    length: usize,
) -> Status {
    call(|| {
        let space = space(bar)?;
        // SAFETY: as the caller promises.
        let data = unsafe { input(data, length)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.region_write(space, offset, data).await
            })
        }
    })
}

/// Reads one register `count` times, as a string instruction (REP INS) does: one round trip for each 4096 bytes. `width` is 1, 2, 4 or
/// 8; `out` has room for `count * width` bytes, at most `POTEMKIN_ACCESS_MAX`. The expansion ROM has no registers.
///
/// # Safety
/// `function` is open; the bytes at `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_bar_read_string(
    function: *const Function,
    bar: u32,
    offset: u64,
    width: u32,
    out: *mut c_void,
    count: usize,
) -> Status {
    call(|| {
        let space = space(bar)?;
        let (width, bytes) = elements(width, count)?;
        // SAFETY: as the caller promises.
        let out = unsafe { output(out, bytes)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.string_read(space, offset, width, out).await
            })
        }
    })
}

/// Writes one register `count` times, as a string instruction (REP OUTS) does: one access for each 4096 bytes.
///
/// # Safety
/// `function` is open; the bytes at `data` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_bar_write_string(
    function: *const Function,
    bar: u32,
    offset: u64,
    width: u32,
    data: *const c_void,
    count: usize,
) -> Status {
    call(|| {
        let space = space(bar)?;
        let (width, bytes) = elements(width, count)?;
        // SAFETY: as the caller promises.
        let data = unsafe { input(data, bytes)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.string_write(space, offset, width, data).await
            })
        }
    })
}

/// Reads at a guest-physical address, if this function decodes it by its BARs and command register as the guest has programmed
/// them (or by its expansion ROM's). All of it lies in one BAR, or the function does not decode it. With
/// `map` set the function is where the VMM has it mapped, also when a move was refused.
///
/// # Safety
/// `function` is open; the bytes at `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_memory_read(
    function: *const Function,
    address: u64,
    out: *mut c_void,
    length: usize,
) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { output(out, length)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.memory_read(address, out).await
            })
        }
    })
}

/// Writes at a guest-physical address, if this function decodes it.
///
/// # Safety
/// `function` is open; the bytes at `data` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_memory_write(
    function: *const Function,
    address: u64,
    data: *const c_void,
    length: usize,
) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let data = unsafe { input(data, length)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.memory_write(address, data).await
            })
        }
    })
}

/// Reads a port, if this function decodes it. More than its width of a register are the ports that follow (not `count` times this one).
///
/// # Safety
/// `function` is open; the bytes at `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_port_read(
    function: *const Function,
    port: u16,
    out: *mut c_void,
    length: usize,
) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let out = unsafe { output(out, length)? };
        // SAFETY: as the caller promises.
        unsafe { access(function, async |device| device.port_read(port, out).await) }
    })
}

/// Writes a port, if this function decodes it.
///
/// # Safety
/// `function` is open; the bytes at `data` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_port_write(
    function: *const Function,
    port: u16,
    data: *const c_void,
    length: usize,
) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        let data = unsafe { input(data, length)? };
        // SAFETY: as the caller promises.
        unsafe { access(function, async |device| device.port_write(port, data).await) }
    })
}

/// Reads a port `count` times (REP INS), if this function decodes it. As `potemkin_bar_read_string`.
///
/// # Safety
/// `function` is open; the bytes at `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_port_read_string(
    function: *const Function,
    port: u16,
    width: u32,
    out: *mut c_void,
    count: usize,
) -> Status {
    call(|| {
        let (width, bytes) = elements(width, count)?;
        // SAFETY: as the caller promises.
        let out = unsafe { output(out, bytes)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.port_string_read(port, width, out).await
            })
        }
    })
}

/// Writes a port `count` times (REP OUTS), if this function decodes it. As `potemkin_bar_write_string`.
///
/// # Safety
/// `function` is open; the bytes at `data` can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_port_write_string(
    function: *const Function,
    port: u16,
    width: u32,
    data: *const c_void,
    count: usize,
) -> Status {
    call(|| {
        let (width, bytes) = elements(width, count)?;
        // SAFETY: as the caller promises.
        let data = unsafe { input(data, bytes)? };
        // SAFETY: as the caller promises.
        unsafe {
            access(function, async |device| {
                device.port_string_write(port, width, data).await
            })
        }
    })
}
