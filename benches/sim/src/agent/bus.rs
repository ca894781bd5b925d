//! The guest's side of DMA and interrupts: what may touch it is decided here, when it is done.

use bytes::Bytes;
use potemkin_session::access::DmaError;

use crate::{device::DESCRIPTOR_BYTES, rng::mix};

/// Windows of guest memory.
pub(super) const WINDOWS: usize = 4;
const WINDOW_BYTES: u64 = 1 << 16;
/// Guest memory that the device may be told of; a transfer may end beyond.
pub(crate) const MEMORY_BYTES: u64 = WINDOWS as u64 * WINDOW_BYTES;

#[derive(Debug)]
pub(super) struct Bus {
    pub(super) master: bool,
    /// Transfers and interrupts of older generations are void.
    pub(super) floor: u64,
    /// The generation since which each window is mapped.
    pub(super) windows: [Option<u64>; WINDOWS],
    nonce: u64,
}

impl Bus {
    pub(super) fn new() -> Self {
        Self {
            master: true,
            floor: 0,
            windows: [Some(0); WINDOWS],
            nonce: 0,
        }
    }

    /// Whether a transfer may go on now.
    pub(super) fn pass(
        &self,
        generation: u64,
        address: u64,
        length: usize,
    ) -> Result<(), DmaError> {
        if !self.may_interrupt(generation) {
            return Err(DmaError::Disabled);
        }
        let last = address + length as u64 - 1;
        for window in address / WINDOW_BYTES..=last / WINDOW_BYTES {
            let since = usize::try_from(window)
                .ok()
                .and_then(|window| *self.windows.get(window)?);
            if since.is_none_or(|since| generation < since) {
                return Err(DmaError::Range);
            }
        }
        Ok(())
    }

    pub(super) fn may_interrupt(&self, generation: u64) -> bool {
        self.master && generation >= self.floor
    }

    /// A descriptor as the guest's memory has it: another one at each read, so that a repeat shows.
    pub(super) fn descriptor(&mut self, length: usize) -> Bytes {
        self.nonce += 1;
        let words = [self.nonce, mix(self.nonce), mix(!self.nonce)];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.resize(length, 0);
        bytes.into()
    }
}

/// The number of a descriptor, and whether it is whole.
pub(crate) fn check_descriptor(bytes: &[u8]) -> (u64, bool) {
    let word = |n: usize| {
        let word = bytes.get(8 * n..8 * n + 8)?;
        Some(u64::from_le_bytes(word.try_into().ok()?))
    };
    let nonce = word(0).unwrap_or(0);
    let right = bytes.len() == DESCRIPTOR_BYTES
        && word(1) == Some(mix(nonce))
        && word(2) == Some(mix(!nonce));
    (nonce, right)
}
