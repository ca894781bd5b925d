//! The order checker: each number must be the successor of the one before.

use potemkin_sdk::Width;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Checker {
    pub(super) last: u64,
    pub(super) accesses: u64,
    pub(super) gaps: u64,
    pub(super) repeats: u64,
}

impl Checker {
    /// Nothing counted yet; the first number is expected to be the successor of this.
    pub(super) fn from(last: u64) -> Self {
        Self {
            last,
            ..Self::default()
        }
    }

    /// Says whether `value`, written at this width, is the successor.
    pub(super) fn take(&mut self, value: u64, width: Width) -> bool {
        let mask = width.all_ones();
        let next = self.last.wrapping_add(1);
        self.accesses += 1;
        if value == next & mask {
            self.last = next;
            return true;
        }
        if value == self.last & mask {
            self.repeats += 1;
        } else {
            self.gaps += 1;
            self.last = self.last & !mask | value;
        }
        false
    }
}
