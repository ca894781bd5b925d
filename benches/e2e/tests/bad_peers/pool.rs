//! Devices that bad agents take turns with: one agent has a device at a time.

use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) const NAMES: [&str; 8] = [
    "edu-2", "edu-3", "edu-4", "edu-5", "edu-6", "edu-7", "edu-8", "edu-9",
];

pub(crate) struct Pool {
    free: Mutex<Vec<&'static str>>,
    count: Semaphore,
}

/// A device, until it is dropped.
pub(crate) struct Taken<'a> {
    pub(crate) name: &'static str,
    pool: &'a Pool,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self {
            free: Mutex::new(NAMES.to_vec()),
            count: Semaphore::new(NAMES.len()),
        }
    }

    pub(crate) async fn take(&self) -> Taken<'_> {
        let permit = self.count.acquire().await.unwrap();
        let name = self.free.lock().unwrap().pop().unwrap();
        Taken {
            name,
            pool: self,
            _permit: permit,
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.pool.free.lock().unwrap().push(self.name);
    }
}
