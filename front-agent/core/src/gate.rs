//! The gate between a device and its guest's memory: which windows there are, and what may pass.
//!
//! Whoever holds the gate's lock copies under it. So a window that was unmapped, and bus mastering that was turned off, waits for the copy that
//! is going on and for nothing else, and afterwards nothing older touches guest memory.

use std::{collections::BTreeMap, sync::Arc};

use potemkin_session::access::DmaError;

use crate::memory::{GuestMemory, Window};

/// Most windows of a function.
const WINDOWS_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    windows: BTreeMap<u64, Mapped>,
    /// Transfers and interrupts that began in an older generation are void.
    pub(crate) floor: u64,
}

#[derive(Debug)]
struct Mapped {
    window: Window,
    /// Transfers that began in an older generation were meant for what was mapped there before.
    since: u64,
}

/// A window that cannot be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// It has no bytes, or passes 2^64.
    #[error("a window has at least one byte and ends below 2^64")]
    Range,
    /// It overlaps another.
    #[error("the window overlaps another")]
    Overlap,
    /// There are 65,536 already.
    #[error("there are 65,536 windows already")]
    TooMany,
}

/// Which way bytes move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The device writes guest memory.
    ToGuest,
    /// The device reads guest memory.
    FromGuest,
}

/// A part of a transfer that lies in one window.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<dyn GuestMemory>,
    offset: u64,
    length: usize,
}

/// How a transfer that was found good is carried out.
#[derive(Debug)]
pub(crate) enum Way {
    /// Here, part by part.
    Local(Vec<Part>),
    /// By the VMM.
    Message,
}

impl Gate {
    pub(crate) fn map(&mut self, window: Window, generation: u64) -> Result<(), MapError> {
        let end = window.address.checked_add(window.size);
        let (Some(end), true) = (end, window.size > 0) else {
            return Err(MapError::Range);
        };
        let overlaps = self
            .windows
            .range(..end)
            .next_back()
            .is_some_and(|(start, mapped)| start + mapped.window.size > window.address);
        if overlaps {
            return Err(MapError::Overlap);
        }
        if self.windows.len() >= WINDOWS_MAX {
            return Err(MapError::TooMany);
        }
        let since = generation;
        self.windows
            .insert(window.address, Mapped { window, since });
        Ok(())
    }

    /// Whether there was such a window.
    pub(crate) fn unmap(&mut self, address: u64, size: u64) -> bool {
        let found = self.windows.get(&address);
        let found = found.is_some_and(|mapped| mapped.window.size == size);
        if found {
            self.windows.remove(&address);
        }
        found
    }

    /// Since which generation each window has been mapped.
    pub(crate) fn since(&self) -> impl Iterator<Item = (u64, u64)> {
        let windows = self.windows.iter();
        windows.map(|(address, mapped)| (*address, mapped.since))
    }

    /// A window has been mapped since this generation, in another process. False when there is none.
    pub(crate) fn set_since(&mut self, address: u64, since: u64) -> bool {
        let mapped = self.windows.get_mut(&address);
        mapped.map(|mapped| mapped.since = since).is_some()
    }

    /// Looks where a transfer goes. All of it is allowed, or nothing.
    pub(crate) fn pass(
        &self,
        generation: u64,
        address: u64,
        length: usize,
        direction: Direction,
    ) -> Result<Way, DmaError> {
        if generation < self.floor {
            return Err(DmaError::Disabled);
        }
        let end = address.checked_add(length as u64).ok_or(DmaError::Range)?;
        let mut parts = Vec::with_capacity(1);
        let mut local = true;
        let mut at = address;
        while at < end {
            let mapped = self.window_at(at).ok_or(DmaError::Range)?;
            let window = &mapped.window;
            let allowed = match direction {
                Direction::ToGuest => window.writable,
                Direction::FromGuest => window.readable,
            };
            if !allowed {
                return Err(DmaError::Direction);
            }
            if generation < mapped.since {
                return Err(DmaError::Disabled);
            }
            let part_end = end.min(window.address + window.size);
            match &window.memory {
                None => local = false,
                Some(memory) => parts.push(Part {
                    memory: Arc::clone(memory),
                    offset: at - window.address,
                    // At most `length`, so it fits.
                    length: usize::try_from(part_end - at).unwrap_or(length),
                }),
            }
            at = part_end;
        }
        Ok(if local {
            Way::Local(parts)
        } else {
            Way::Message
        })
    }

    fn window_at(&self, address: u64) -> Option<&Mapped> {
        let (_, mapped) = self.windows.range(..=address).next_back()?;
        (address - mapped.window.address < mapped.window.size).then_some(mapped)
    }
}

/// Writes a transfer that passed.
pub(crate) fn write_parts(parts: &[Part], mut data: &[u8]) -> Result<(), DmaError> {
    for part in parts {
        let (now, later) = data.split_at(part.length);
        part.memory
            .write(part.offset, now)
            .map_err(|error| failed(&error))?;
        data = later;
    }
    Ok(())
}

/// Reads a transfer that passed.
pub(crate) fn read_parts(parts: &[Part], mut out: &mut [u8]) -> Result<(), DmaError> {
    for part in parts {
        let (now, later) = out.split_at_mut(part.length);
        part.memory
            .read(part.offset, now)
            .map_err(|error| failed(&error))?;
        out = later;
    }
    Ok(())
}

fn failed(error: &std::io::Error) -> DmaError {
    tracing::debug!(%error, "guest memory cannot be accessed");
    DmaError::Failed
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
