//! The vfio-user protocol: messages, descriptor passing and a client.
//!
//! vfio-user carries the kernel's VFIO device interface over a UNIX stream socket: a VMM is the client, the program that
//! has the device is the server. The specification is `docs/interop/vfio-user.rst` in QEMU, and `docs/vfio-user.rst` in
//! libvfio-user; section names in this crate are from there. All numbers are in the byte order of the machine.
//!
//! - [`Header`] and [`message`]: typed messages. Bytes become a value once, here, with every length, count and offset
//!   checked; a [`DecodeError`] names the message and the field.
//! - [`fdpass`]: sending and receiving bytes together with file descriptors, bounded.
//! - [`Client`]: a blocking client, for probing a device, for benchmarks and for tests.

pub mod client;
mod error;
pub mod fdpass;
mod header;
pub mod message;
mod wire;

pub use client::{Client, ClientError, GuestMemory};
pub use error::{DecodeError, Reason};
pub use header::{Command, HEADER_LEN, Header, HeaderError, MessageType};
/// An error number of the operating system, as replies carry it.
pub use rustix::io::Errno;

/// Most bytes that one region or DMA access may move, in either direction: what this side offers as `max_data_xfer_size`. Less than the
/// specification's default of 1 MiB: an access is to be answered within seconds, whatever is behind it.
pub const MAX_DATA_XFER: u32 = 1 << 16;

/// Longest message that either side accepts, in bytes, header included: a region or DMA access of [`MAX_DATA_XFER`].
pub const MAX_MESSAGE: u32 = 32 + MAX_DATA_XFER;
