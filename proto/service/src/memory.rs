//! Memory that a burst of peers took goes back to the system.
//!
//! The C library's allocator keeps what was freed between blocks that are still in use: after ten thousand connections a process may
//! hold ten times what it uses. So now and then, when that has become much, it is told to give it back.

use std::{thread, time::Duration};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(3);
/// Freed memory that is not worth the work, in bytes.
const SPARE: usize = 8 << 20;

/// Looks after this process's memory from a thread of its own, for as long as the process lives.
pub(crate) fn look_after() {
    let thread = thread::Builder::new().name("memory".to_owned());
    let started = thread.spawn(|| {
        loop {
            thread::sleep(PERIOD);
            give_back();
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "freed memory is not given back to the system");
    }
}

/// Gives freed memory back if there is much of it.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
fn give_back() {
    // SAFETY: Both take no pointers, lock what they look at, and may be called from any thread (malloc_trim(3), mallinfo(3)).
    unsafe {
        if libc::mallinfo2().fordblks > SPARE {
            libc::malloc_trim(0);
        }
    }
}

/// Other C libraries give it back by themselves, or cannot be told.
#[cfg(not(target_env = "gnu"))]
fn give_back() {}
