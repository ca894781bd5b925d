//! Descriptors that tokio watches.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that tokio watches.
pub(crate) type Watched = AsyncFd<Arc<OwnedFd>>;

/// Has tokio watch `fd` for `interest`.
///
/// # Panics
///
/// Outside of a tokio runtime with I/O enabled.
#[allow(unsafe_code)]
pub(crate) fn watch(fd: Arc<OwnedFd>, interest: Interest) -> io::Result<Watched> {
    // SAFETY: An `Arc<OwnedFd>` names the same descriptor, which is open, for as long as it lives. The result owns it,
    // and nothing in this crate exchanges it through `get_mut`.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|error| error.into_parts().1)
}
