//! What a session has forwarded.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one session. One task writes them, anyone reads.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Agent to host.
    pub forward: Way,
    /// Host to agent.
    pub reverse: Way,
}

/// Counters of one direction.
#[derive(Debug, Default)]
pub struct Way {
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Way {
    /// Counts a frame. Only the task that forwards this direction may call this: it is cheaper than an atomic addition.
    pub fn add_frame(&self, bytes: usize) {
        bump(&self.frames, 1);
        bump(&self.bytes, bytes as u64);
    }

    /// Frames so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Bytes so far, frame payloads only.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}
