//! A vfio-user server that an unmodified QEMU accepts.
//!
//! A [`Server`] listens on a UNIX socket and serves one [`Function`] to one client (a VMM) at a time; the client may go
//! and come back. The server speaks the protocol and keeps what belongs to the client: its limits, its DMA windows, its
//! interrupt eventfds. What a register does is the function's affair.
//!
//! # One thread
//!
//! [`Server::serve`] is one future on a `current_thread` tokio runtime with time and I/O enabled. The task that reads the
//! socket calls the function and sends the answer: an access whose answer is local costs one receive, one send and one
//! wait, and no allocation. Posted writes that queue up in the socket are taken by one receive; when all of them have been
//! handled the function hears [`Function::end_of_input`].
//!
//! # What a client cannot do
//!
//! Every message is decoded and checked before it has an effect ([`potemkin_vfio_user::message`]). A refused request is
//! answered with an error and changes nothing. What makes the position in the stream, or the ownership of a descriptor,
//! uncertain ends the connection, and nothing else. A client holds at most one message of 64 KiB in each direction,
//! [`MAX_DMA_WINDOWS`] windows, in [`MAX_DMA_FILES`] files, and a few eventfds per interrupt.

//!
//! # Another process
//!
//! A client that is paused between two messages can be saved, and restored in another process that has inherited its descriptors: QEMU does
//! not connect again, so an agent that is to be upgraded must not close its socket.

mod connection;
mod control;
mod descriptors;
mod dispatch;
mod dma_requests;
mod error;
mod eventfd;
mod function;
mod input;
mod irqs;
mod link;
mod paused;
mod rescue;
mod saved;
mod server;
mod socket;
mod watch;
mod windows;

pub use control::{ClientControl, Delivery, DmaError};
pub use descriptors::{AdoptError, Bundle, Inherited};
pub use error::{BindError, ServeError};
pub use function::{DmaWindow, Function, FunctionInfo, Region};
pub use paused::{Ended, Paused};
pub use saved::{
    RestoreError, SavedClient, SavedInput, SavedIrqs, SavedListener, SavedRequest, SavedVector,
    SavedWindow,
};
pub use server::{Options, Server};
pub use socket::Listener;
pub use windows::{MAX_DMA_FILES, MAX_DMA_WINDOWS};
