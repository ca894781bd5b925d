//! What stands between C and Rust: no panic goes out, no call comes in from a callback, what comes as a pointer is looked at.
//!
//! The one place where a caller's pointers become references and slices.
#![allow(unsafe_code, reason = "a C caller gives pointers")]

use std::{
    cell::Cell,
    ffi::{CStr, c_char, c_void},
    mem::MaybeUninit,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

use crate::status::Status;

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call. A panic becomes [`Status::Internal`]; a call that a callback makes is refused.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Status>) -> Status {
    if IN_CALLBACK.get() {
        return Status::InCallback;
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(status)) => status,
        Err(_) => Status::Internal,
    }
}

/// Runs a callback of the VMM's. It does not unwind: an `extern "C"` function that does aborts the process.
pub(crate) fn callback<R>(body: impl FnOnce() -> R) -> R {
    IN_CALLBACK.set(true);
    let result = body();
    IN_CALLBACK.set(false);
    result
}

/// # Safety
/// Null, or a pointer to a `T` that lives for `'a` and is not written meanwhile.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T) -> Result<&'a T, Status> {
    // SAFETY: as the caller promises.
    unsafe { pointer.as_ref() }.ok_or(Status::InvalidArgument)
}

/// A buffer that is read.
///
/// # Safety
/// Null, or `length` bytes that can be read for `'a` and are not written meanwhile.
pub(crate) unsafe fn input<'a>(data: *const c_void, length: usize) -> Result<&'a [u8], Status> {
    check_buffer(data, length)?;
    // SAFETY: not null, not longer than a slice may be; the rest as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) })
}

/// A buffer that is written. Not handed to anything before it is initialised: C callers give what the stack held.
///
/// # Safety
/// Null, or `length` bytes that nobody else reads or writes for `'a`.
pub(crate) unsafe fn output<'a>(out: *mut c_void, length: usize) -> Result<&'a mut [u8], Status> {
    check_buffer(out, length)?;
    // SAFETY: not null; a byte of memory that belongs to the caller is a valid u8 for us whatever it holds: it lies beyond a C
    // boundary, where the compiler cannot know it to be uninitialised.
    Ok(unsafe { std::slice::from_raw_parts_mut(out.cast(), length) })
}

fn check_buffer(data: *const c_void, length: usize) -> Result<(), Status> {
    if data.is_null() || length == 0 || length > crate::POTEMKIN_ACCESS_MAX {
        return Err(Status::InvalidArgument);
    }
    Ok(())
}

/// Text; none for a null pointer.
///
/// # Safety
/// Null, or a string that ends with a zero byte, lives for `'a` and is not written meanwhile.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not null where it is used; the rest as the caller promises.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) })
}

/// A structure that begins with its own size and may have got more fields since its caller was compiled, or since we were.
///
/// # Safety
/// `repr(C)`, its first field is a `usize`, and all bits 0 is a value of it.
pub(crate) unsafe trait Versioned: Copy {
    /// The size of its first version.
    const FIRST: usize;
}

/// Takes a caller's structure. Fields that it does not have are 0; fields that we do not have must be 0.
///
/// # Safety
/// Null, or a pointer to as many readable bytes as the first field says.
pub(crate) unsafe fn take<T: Versioned>(pointer: *const T) -> Result<T, Status> {
    // SAFETY: the caller's structure has at least its size.
    let size = unsafe { size_of_caller(pointer)? };
    let known = size.min(size_of::<T>());
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes can be read there and written here.
    unsafe {
        ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known);
    }
    for offset in known..size {
        // SAFETY: below the size that the caller gives.
        if unsafe { pointer.cast::<u8>().add(offset).read() } != 0 {
            return Err(Status::InvalidArgument);
        }
    }
    // SAFETY: zeroed and then filled with a caller's value: each field is what C gave or 0, both valid by the trait.
    Ok(unsafe { value.assume_init() })
}

/// Gives a structure to a caller, as much of it as the caller knows; what only the caller knows becomes 0. Its first field stays what the
/// caller wrote.
///
/// # Safety
/// Null, or a pointer to as many writable bytes as the first field says.
pub(crate) unsafe fn give<T: Versioned>(value: &T, pointer: *mut T) -> Result<(), Status> {
    // SAFETY: the caller's structure has at least its size.
    let size = unsafe { size_of_caller(pointer)? };
    let begin = size_of::<usize>();
    let known = size.min(size_of::<T>());
    let out = pointer.cast::<u8>();
    // SAFETY: `known` is not below the first version's size, and no more than either side has; the caller has `size`.
    unsafe {
        ptr::copy_nonoverlapping(
            ptr::from_ref(value).cast::<u8>().add(begin),
            out.add(begin),
            known - begin,
        );
        out.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// # Safety
/// Null, or a pointer to a readable `usize` at least.
unsafe fn size_of_caller<T: Versioned>(pointer: *const T) -> Result<usize, Status> {
    /// No structure of ours comes near.
    const LARGEST: usize = 4_096;
    if pointer.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: not null, and the first field can be read.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < T::FIRST || size > LARGEST {
        return Err(Status::InvalidArgument);
    }
    Ok(size)
}

/// Writes text that ends with a zero byte, cut at a character if it must be. Nothing where there is no room at all.
///
/// # Safety
/// Null, or `size` bytes that can be written.
pub(crate) unsafe fn write_text(text: &str, out: *mut c_char, size: usize) {
    if out.is_null() || size == 0 {
        return;
    }
    let end = text.floor_char_boundary(text.len().min(size - 1));
    // SAFETY: `end` is below `size`.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), out.cast::<u8>(), end);
        out.add(end).write(0);
    }
}

#[cfg(test)]
#[path = "boundary_tests.rs"]
mod tests;
