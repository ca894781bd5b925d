//! A FIFO of bytes.

use std::collections::VecDeque;

const CAPACITY: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Fifo(VecDeque<u8>);

impl Fifo {
    /// The first `width` bytes, little-endian; none when there are not so many.
    pub(super) fn pop(&mut self, width: usize) -> Option<u64> {
        if width > self.0.len() {
            return None;
        }
        let mut value = [0; 8];
        for (byte, popped) in value.iter_mut().zip(self.0.drain(..width)) {
            *byte = popped;
        }
        Some(u64::from_le_bytes(value))
    }

    /// False, and nothing is pushed, when there is no room for `width` bytes.
    pub(super) fn push(&mut self, value: u64, width: usize) -> bool {
        let fits = width <= CAPACITY - self.0.len();
        if fits {
            self.0.extend(&value.to_le_bytes()[..width]);
        }
        fits
    }

    /// In bytes.
    pub(super) fn level(&self) -> u64 {
        self.0.len() as u64
    }
}
