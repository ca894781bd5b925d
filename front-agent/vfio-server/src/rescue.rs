//! Frees a thread that a client has caught in a write to its eventfd.
//!
//! A client may make an eventfd blocking at any time, and fill its counter between our look at it and our write. The thread that writes serves the
//! client's device, and would hang for as long as the agent has the descriptor. So each write is noted, and one thread for all looks every
//! second for one that takes long: it takes the counter, which lets the write go on.

use std::cell::OnceCell;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tracing::warn;

const PERIOD: Duration = Duration::from_secs(1);

/// Adds 1 to the counter. Returns within two seconds or so, whatever the client does.
pub(crate) fn signal(eventfd: &Arc<OwnedFd>) {
    SLOT.with(|slot| {
        let slot = slot.get_or_init(Slot::register);
        *slot.writing() = Some((Arc::clone(eventfd), Instant::now()));
        // Fails if the counter is full: who waits for it is woken anyway.
        let _ = rustix::io::write(eventfd, &1_u64.to_ne_bytes());
        *slot.writing() = None;
    });
}

/// Sets the counter back, without waiting; whether it was not 0.
pub(crate) fn take(eventfd: &OwnedFd) -> bool {
    /// No position: what `preadv2` wants for a file that has none.
    const NO_OFFSET: u64 = u64::MAX;
    let mut counter = [0; 8];
    let mut into = [std::io::IoSliceMut::new(&mut counter)];
    let taken: Result<usize, Errno> =
        preadv2(eventfd, &mut into, NO_OFFSET, ReadWriteFlags::NOWAIT);
    taken.is_ok()
}

thread_local! {
    static SLOT: OnceCell<Arc<Slot>> = const { OnceCell::new() };
}

/// What a thread writes to, and since when. The lock is held for an instant, and no other is taken under it.
struct Slot(Mutex<Option<(Arc<OwnedFd>, Instant)>>);

static SLOTS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

impl Slot {
    fn register() -> Arc<Self> {
        let slot = Arc::new(Self(Mutex::new(None)));
        slots().push(Arc::downgrade(&slot));
        WATCH.call_once(|| {
            let watch = thread::Builder::new().name("eventfd-rescue".to_owned());
            if let Err(error) = watch.spawn(watch_for_ever) {
                warn!(%error, "no thread that frees others from full eventfds");
            }
        });
        slot
    }

    fn writing(&self) -> MutexGuard<'_, Option<(Arc<OwnedFd>, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been written to for long.
    fn stuck(&self) -> Option<Arc<OwnedFd>> {
        let writing = self.writing();
        let (eventfd, since) = writing.as_ref()?;
        (since.elapsed() >= PERIOD).then(|| Arc::clone(eventfd))
    }
}

fn slots() -> MutexGuard<'static, Vec<Weak<Slot>>> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch_for_ever() {
    loop {
        thread::sleep(PERIOD);
        let mut live = Vec::new();
        slots().retain(|slot| {
            let slot = slot.upgrade();
            live.extend(slot.clone());
            slot.is_some()
        });
        for eventfd in live.iter().filter_map(|slot| slot.stuck()) {
            warn!("a client's eventfd is full and blocks: its counter is taken");
            take(&eventfd);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn a_write_to_a_full_counter_that_blocks_goes_on() {
        let full = Arc::new(eventfd(0, EventfdFlags::empty()).unwrap());
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();

        signal(&full);

        assert!(take(&full), "and is counted");
    }
}
