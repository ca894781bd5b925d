//! Open, close, and what the function is.
#![allow(unsafe_code, reason = "C has pointers")]

use std::{ffi::c_char, ptr, sync::Arc};

use potemkin_front_core::{
    BackgroundError, BackgroundFunction, FrontDevice, RemoteOptions, RemoteUrl, Standing, Target,
};
use potemkin_session::front::FrontState;

use crate::{
    boundary::{call, shared, take, text, write_text},
    callbacks::Callbacks,
    failure::OpenError,
    options::Options,
    status::Status,
};

/// An open function. Any thread may use it, several at a time; accesses of several threads are in flight together.
#[derive(Debug)]
pub struct Function {
    function: BackgroundFunction,
    callbacks: Arc<Callbacks>,
}

impl Function {
    pub(crate) fn device(&self) -> &FrontDevice {
        self.function.device()
    }

    pub(crate) fn background(&self) -> &BackgroundFunction {
        &self.function
    }

    pub(crate) fn callbacks(&self) -> &Arc<Callbacks> {
        &self.callbacks
    }
}

/// The version of this interface: `POTEMKIN_ABI_VERSION` of the header that the library was built with. It rises when something of
/// the older interface changes; what is only added shows in the sizes of structures. May be called at any time, in callbacks too.
#[unsafe(no_mangle)]
pub extern "C" fn potemkin_abi_version() -> u32 {
    crate::POTEMKIN_ABI_VERSION
}

/// Claims a device and opens a session on it; returns when the device's host has accepted it, or when something failed and all is undone: no
/// callback comes any more, and the device is given back. What is refused fails at once. What does not answer is given up: the broker, or
/// one's way to it, after 5 s (besides the time that the system takes for its name), each of its answers after 10 s, the host after
/// `deadline_ms`; with giving the device back that is half a minute at the worst, for each broker that is asked.
///
/// `url`: `potemkin://broker[:port]/device`, or `potemkin://broker[:port]/?class=CLASS&label.KEY=VALUE` for any free device that
/// fits. Both take `transport=quic` (as without) or `transport=grpc`, and `identity=spiffe://DOMAIN/broker/NAME` (without: any
/// broker of our own trust domain). Default port: 7640. Of a pool with several brokers, up to 16 may be given, with commas between them, the preferred
/// one first: `potemkin://b1.example,b2.example:7641/device`. The device is claimed through the first that can be reached and grants it; what
/// one of them refuses is refused.
///
/// When the path to the device is lost the session goes on over another: through any of the brokers, over either transport. Accesses wait
/// meanwhile, each for `deadline_ms` at most; nothing is lost and nothing is done twice. Only when none is found in time the session is lost.
///
/// `callbacks` may be null. Callbacks may come before this returns; so does `map` for a platform function. On success `*function` is the
/// handle, to be closed with `potemkin_close`; else it is null, and `reason` says why in one line of UTF-8 that ends with a zero byte, cut
/// if `reason_size` is too small (512 is plenty). The buffer is the caller's; it may be null. Both are always written; the line is empty on
/// success, and where the status says it all (`POTEMKIN_STATUS_IN_CALLBACK`, `POTEMKIN_STATUS_INTERNAL`).
///
/// A session that is lost stays lost: reads give `POTEMKIN_STATUS_FAILED` and all-ones. Close it and open again.
///
/// # Safety
/// Strings end with a zero byte; structures are as large as they say; `reason` has `reason_size` bytes; `callbacks.user` may be
/// used on any thread until the function is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_open(
    url: *const c_char,
    options: *const Options,
    callbacks: *const Callbacks,
    function: *mut *mut Function,
    reason: *mut c_char,
    reason_size: usize,
) -> Status {
    let tell = |words: &str| {
        // SAFETY: as the caller promises.
        unsafe { write_text(words, reason, reason_size) };
    };
    // First of all: whatever becomes of the call, the caller may print the one and close the other.
    tell("");
    if !function.is_null() {
        // SAFETY: not null; the caller's variable.
        unsafe { function.write(ptr::null_mut()) };
    }
    call(|| {
        if function.is_null() {
            tell("function: null");
            return Err(Status::InvalidArgument);
        }
        // SAFETY: as the caller promises.
        let opened = unsafe { open(url, options, callbacks) };
        let opened = opened.map_err(|error| {
            tell(&error.reason());
            error.status()
        })?;
        // SAFETY: not null; the caller's variable.
        unsafe { function.write(Box::into_raw(Box::new(opened))) };
        Ok(())
    })
}

/// # Safety
/// As for [`potemkin_open`].
unsafe fn open(
    url: *const c_char,
    options: *const Options,
    callbacks: *const Callbacks,
) -> Result<Function, OpenError> {
    // SAFETY: as the caller promises.
    let url = unsafe { text(url) };
    let url = url
        .and_then(|url| url.to_str().ok())
        .ok_or(OpenError::UrlText)?;
    let url: RemoteUrl = url.parse()?;
    // SAFETY: as the caller promises.
    let options = unsafe { take(options) }.map_err(|_| OpenError::Structure("options"))?;
    let callbacks = if callbacks.is_null() {
        Callbacks::NONE
    } else {
        // SAFETY: as the caller promises.
        unsafe { take(callbacks) }.map_err(|_| OpenError::Structure("callbacks"))?
    };
    // SAFETY: as the caller promises.
    let options = unsafe { options.remote(&url)? };
    let callbacks = Arc::new(callbacks);
    Ok(attach(options, url.target, callbacks)?)
}

/// As much of the VMM's part as it leaves to us: the interrupt tables if it takes messages, its address map if it hooks.
fn attach(
    options: RemoteOptions,
    target: Target,
    callbacks: Arc<Callbacks>,
) -> Result<Function, BackgroundError> {
    let vmm = Arc::clone(&callbacks);
    let function = if vmm.message.is_some() {
        BackgroundFunction::embed(options, target, vmm)?
    } else {
        BackgroundFunction::attach(options, target, vmm)?
    };
    if callbacks.map.is_some() {
        function.device().hook(callbacks.clone());
    }
    Ok(Function {
        function,
        callbacks,
    })
}

/// Ends the session and gives the device back (a claim that an operator has made stays); frees the handle. Null is allowed. Before it
/// returns, `unmap` is called for all that is mapped, and INTx is lowered; afterwards no callback comes any more and no window is
/// touched. It waits for a callback or a copy that goes on, and for the brokers, some 20 s at most.
///
/// # Safety
/// No other call with this handle is going on or comes after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_close(function: *mut Function) -> Status {
    call(|| {
        if !function.is_null() {
            // SAFETY: it came from `potemkin_open`, and nobody uses it any more.
            drop(unsafe { Box::from_raw(function) });
        }
        Ok(())
    })
}

/// Whether the session lives: `POTEMKIN_STATUS_OK`, or `POTEMKIN_STATUS_FAILED` and why in `reason`, as `potemkin_open` has it. One that looks for another
/// path lives. With `POTEMKIN_AFTER_LOSS_RESET` it does not from the loss of a session until the guest has reset the function on the next one.
///
/// # Safety
/// `function` is open; `reason` is null or has `reason_size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_state(
    function: *const Function,
    reason: *mut c_char,
    reason_size: usize,
) -> Status {
    let tell = |words: &str| {
        // SAFETY: as the caller promises.
        unsafe { write_text(words, reason, reason_size) };
    };
    tell("");
    call(|| {
        // SAFETY: as the caller promises.
        let function = unsafe { shared(function)? };
        match function.device().standing() {
            Standing::Session => {}
            Standing::Reattaching(lost) => {
                tell(&lost.reason);
                return Err(Status::Failed);
            }
            Standing::AwaitingReset(_) => {
                tell("the device is open again: the function waits until its guest resets it");
                return Err(Status::Failed);
            }
        }
        let session = function.device().session();
        tell(&session.lost().map_or_else(String::new, |lost| lost.reason));
        match session.state() {
            FrontState::Opening
            | FrontState::Live
            | FrontState::Interrupted
            | FrontState::Resuming => Ok(()),
            FrontState::Contained | FrontState::Closed => Err(Status::Failed),
        }
    })
}

/// Resets the function, as a bus reset does: configuration space is as at power-on at once; the device is reset in order with the
/// accesses around; no message and no DMA of before reaches the guest afterwards, and `set_intx` lowers the line soon. Calls `unmap` for
/// what was mapped. Waits for a copy or a callback that goes on, never for the network.
///
/// # Safety
/// `function` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_reset(function: *const Function) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        unsafe { shared(function)? }.device().reset();
        Ok(())
    })
}

/// The guest has ended an INTx interrupt (EOI), and the VMM has lowered its line with that. `set_intx` raises it again if the level is
/// still up once the device has done what the guest wrote before. For a VMM that keeps the line as `set_intx` says there is no need of it.
/// Waits for nothing.
///
/// # Safety
/// `function` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_ack_intx(function: *const Function) -> Status {
    call(|| {
        // SAFETY: as the caller promises.
        unsafe { shared(function)? }.device().intx_ended();
        Ok(())
    })
}
