//! `libpotemkin_front`: a remote PCI function for VMMs that are written in C, or in anything that calls C.
//!
//! `cargo build --release -p potemkin-capi` makes `libpotemkin_front.so` and `libpotemkin_front.a` in `target/release`; the header is
//! `front-agent/capi/include/potemkin_front.h`, made from these sources (a test fails when it is stale). It is all that a C program needs: how
//! to link, and the rules at length, stand at its top.
//!
//! ```c
//! potemkin_options options = {.size = sizeof options, .ca_file = "ca.pem", .cert_file = "agent.pem", .key_file = "agent.key"};
//! potemkin_callbacks callbacks = {.size = sizeof callbacks, .user = vm, .set_intx = set_intx, .msi = msi, .msix = msix};
//! potemkin_function *function;
//! char reason[512];
//!
//! if (potemkin_open("potemkin://broker.example/edu-0", &options, &callbacks, &function, reason, sizeof reason))
//!   die("edu-0: %s", reason);
//! potemkin_map_window(function, 0, ram_bytes, POTEMKIN_WINDOW_READ | POTEMKIN_WINDOW_WRITE, ram);
//! ```
//!
//! and from a vCPU's exits, on the vCPU's thread:
//!
//! ```c
//! if (potemkin_memory_read(function, address, data, length) == POTEMKIN_STATUS_NOT_DECODED)
//!   next_device(vm, address, data, length);
//! ```
//!
//! A VMM that has no interrupt tables for the function sets `message`, one that routes addresses by a map of its own sets `map` and `unmap`.
//!
//! Programs that use all of it stand in `benches/e2e/tests/c_abi`: `drive.c`; `embed.c` with messages and mappings; `busy.c`, which takes things
//! away from a device that is at work; `platform.c` with a function that is not on PCI. [`palacios`] says, row by row, what becomes of the interface
//! that this one replaces.
//!
//! # Rules, in short
//!
//! - **Threads.** Any thread may call any function at any time, several with the same handle; accesses of several vCPUs are in flight
//!   together, and reach the device in one order. [`potemkin_close`] must be the last call with its handle.
//! - **Waiting.** A read, and a write that is not posted, waits for the device. What stays unanswered for `deadline_ms` ends the session, and then
//!   nothing waits any more. A path that is lost is replaced meanwhile, unseen. Configuration space, sizing, decode and the ROM are local.
//! - **Callbacks** come on one thread of the library's, in the device's order: an interrupt after the memory that was written before it.
//!   `message`, `map` and `unmap` come on the VMM's own threads too, inside the call that causes them. A
//!   callback calls nothing of this library (but [`potemkin_abi_version`]; else it gets `POTEMKIN_STATUS_IN_CALLBACK`), returns soon, and
//!   takes no lock that a thread holds while it is inside a call. [`potemkin_unmap_window`], [`potemkin_reset`] and a write that
//!   turns bus mastering off wait for one that goes on.
//! - **All or nothing** holds for an access of 1, 2, 4 or 8 bytes: it is done (`POTEMKIN_STATUS_OK`), not this function's
//!   (`POTEMKIN_STATUS_NOT_DECODED`) or without result (`POTEMKIN_STATUS_FAILED`). A block or a string of more than 4096 bytes is several
//!   pieces, of which some may be done when it fails.
//! - **Errors.** No panic crosses the boundary; a null pointer, a wrong number, width or length is `POTEMKIN_STATUS_INVALID_ARGUMENT`. Reasons go
//!   to buffers of the caller's: there is no last error that threads would share.
//! - **Log.** Nothing is said to an operator but by [`potemkin_set_log`].
//! - **Growth.** Structures begin with their size: fields are added at the end, 0 means "as before". [`potemkin_abi_version`], and with it the
//!   shared library's name, rises when something changes its meaning.
//! - **One process is one agent.** Two processes with the same certificate take devices from each other (the newer wins).

mod boundary;
mod failure;

// The interface, in the header's order.
mod status;

mod options;

mod callbacks;

mod mapping;

mod function;

mod info;

mod access;

mod window;

mod log;

#[doc = include_str!("../PALACIOS.md")]
pub mod palacios {}

pub use access::*;
pub use callbacks::Callbacks;
pub use function::*;
pub use info::{BarInfo, BarType, Info, potemkin_get_info};
pub use log::{LogLevel, potemkin_set_log};
pub use mapping::{AddressKind, Mapping};
pub use options::Options;
pub use status::Status;
pub use window::{potemkin_map_window, potemkin_unmap_window};

/// The version of this interface.
pub const POTEMKIN_ABI_VERSION: u32 = 1;
/// In place of a BAR's number: the expansion ROM.
pub const POTEMKIN_ROM: u32 = 6;
/// After the loss of a session: nothing. Reads give all-ones, writes are dropped; unplug the function.
pub const POTEMKIN_AFTER_LOSS_REMOVE: u32 = 0;
/// After the loss of a session: the device is opened again, for as long as it takes. Until the guest resets the function, reads give what the device declares
/// for a failed one, else all-ones, and writes are dropped; then it goes on, on a device that was reset. If the device has become another one, as
/// POTEMKIN_AFTER_LOSS_REMOVE.
pub const POTEMKIN_AFTER_LOSS_RESET: u32 = 1;
/// Longest access, in bytes.
pub const POTEMKIN_ACCESS_MAX: usize = 1_048_576;
/// Bytes of a device's id in the pool, the zero byte at its end among them.
pub const POTEMKIN_ID_BYTES: usize = 64;
/// The device may read the window.
pub const POTEMKIN_WINDOW_READ: u32 = 1;
/// The device may write the window.
pub const POTEMKIN_WINDOW_WRITE: u32 = 2;
