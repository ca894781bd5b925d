//! A guest's memory and interrupts, as a device under test reaches them.

use std::collections::{BTreeMap, VecDeque};

use crate::DmaError;
use crate::bus_master::Vector;
use crate::hosting::{Action, Generations};

/// Something that a device did to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// Memory was written.
    Written {
        /// Where, in bytes.
        address: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Memory was read.
    Read {
        /// Where, in bytes.
        address: u64,
        /// How many bytes.
        length: usize,
    },
    /// An MSI vector fired.
    Msi(u16),
    /// An MSI-X vector fired.
    Msix(u16),
    /// INTx changed to this level.
    Intx(bool),
}

/// What a window of guest memory allows a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryAccess {
    /// Reads and writes.
    ReadWrite,
    /// Reads only.
    ReadOnly,
    /// Writes only.
    WriteOnly,
}

/// For the device, in the order in which it is told.
#[derive(Debug)]
pub(super) enum Answer {
    Read(u64, Result<Vec<u8>, DmaError>),
    WriteFailed(DmaError),
}

#[derive(Debug)]
pub(super) struct Guest {
    windows: BTreeMap<u64, Window>,
    pub(super) generations: Generations,
    pub(super) bus_master: bool,
    pub(super) held: bool,
    pub(super) intx: bool,
    /// Not executed yet, because it is held.
    queue: VecDeque<Action>,
    owed: VecDeque<Owed>,
    events: Vec<BusEvent>,
}

#[derive(Debug)]
struct Window {
    data: Vec<u8>,
    access: MemoryAccess,
}

#[derive(Debug)]
enum Owed {
    Read {
        generation: u64,
        address: u64,
        length: usize,
        tag: u64,
    },
    WriteFailed(DmaError),
}

impl Guest {
    pub(super) fn new() -> Self {
        Self {
            windows: BTreeMap::new(),
            generations: Generations::default(),
            bus_master: true,
            held: false,
            intx: false,
            queue: VecDeque::new(),
            owed: VecDeque::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn map(&mut self, address: u64, length: usize, access: MemoryAccess) {
        let data = vec![0; length];
        self.windows.insert(address, Window { data, access });
    }

    pub(super) fn unmap(&mut self, address: u64) {
        self.windows.remove(&address);
        self.generations.newest += 1;
    }

    /// What began before is void.
    pub(super) fn begin_generation(&mut self) {
        let newest = self.generations.newest + 1;
        self.generations = Generations {
            newest,
            floor: newest,
        };
    }

    pub(super) fn reset(&mut self) {
        self.begin_generation();
        self.queue.clear();
        self.owed.clear();
        self.set_intx(false);
    }

    pub(super) fn take(&mut self, actions: Vec<Action>) {
        self.queue.extend(actions);
        while !self.held
            && let Some(action) = self.queue.pop_front()
        {
            self.execute(action);
        }
    }

    /// Bytes that are not done with.
    pub(super) fn under_way(&self) -> usize {
        let held = self.queue.iter().map(|action| match action {
            Action::DmaWrite { data, .. } => data.len(),
            Action::DmaRead { length, .. } => *length,
            Action::Interrupt { .. } | Action::Intx(_) => 0,
        });
        let owed = self.owed.iter().map(|owed| match owed {
            Owed::Read { length, .. } => *length,
            Owed::WriteFailed(_) => 0,
        });
        held.sum::<usize>() + owed.sum::<usize>()
    }

    /// How many answers are owed now.
    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    /// The next answer; a read takes place now.
    pub(super) fn answer(&mut self) -> Option<Answer> {
        Some(match self.owed.pop_front()? {
            Owed::WriteFailed(error) => Answer::WriteFailed(error),
            Owed::Read {
                generation,
                address,
                length,
                tag,
            } => Answer::Read(tag, self.read(generation, address, length)),
        })
    }

    pub(super) fn take_events(&mut self) -> Vec<BusEvent> {
        std::mem::take(&mut self.events)
    }

    /// The bytes there; `None` when no one window holds them all.
    pub(super) fn memory(&mut self, address: u64, length: usize) -> Option<&mut [u8]> {
        self.window(address, length).map(|(bytes, _)| bytes)
    }

    fn execute(&mut self, action: Action) {
        match action {
            Action::DmaWrite {
                generation,
                address,
                data,
            } if generation >= self.generations.floor => self.write(address, &data),
            Action::DmaWrite { .. } => {}
            Action::DmaRead {
                generation,
                address,
                length,
                tag,
            } => self.owed.push_back(Owed::Read {
                generation,
                address,
                length,
                tag,
            }),
            Action::Interrupt { generation, vector } => {
                if self.bus_master && generation >= self.generations.floor {
                    self.events.push(match vector {
                        Vector::Msi(n) => BusEvent::Msi(n),
                        Vector::Msix(n) => BusEvent::Msix(n),
                    });
                }
            }
            Action::Intx(level) => self.set_intx(level),
        }
    }

    fn set_intx(&mut self, level: bool) {
        if self.intx != level {
            self.intx = level;
            self.events.push(BusEvent::Intx(level));
        }
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        match self.allowed(address, data.len(), MemoryAccess::WriteOnly) {
            Ok(bytes) => {
                bytes.copy_from_slice(data);
                let data = data.to_vec();
                self.events.push(BusEvent::Written { address, data });
            }
            Err(error) => self.owed.push_back(Owed::WriteFailed(error)),
        }
    }

    fn read(&mut self, generation: u64, address: u64, length: usize) -> Result<Vec<u8>, DmaError> {
        if generation < self.generations.floor {
            return Err(DmaError::Disabled);
        }
        let bytes = self.allowed(address, length, MemoryAccess::ReadOnly)?;
        let bytes = bytes.to_vec();
        self.events.push(BusEvent::Read { address, length });
        Ok(bytes)
    }

    /// The bytes there, if a device may do that with them.
    fn allowed(
        &mut self,
        address: u64,
        length: usize,
        direction: MemoryAccess,
    ) -> Result<&mut [u8], DmaError> {
        if !self.bus_master {
            return Err(DmaError::Disabled);
        }
        let (bytes, access) = self.window(address, length).ok_or(DmaError::Range)?;
        if access == MemoryAccess::ReadWrite || access == direction {
            Ok(bytes)
        } else {
            Err(DmaError::Direction)
        }
    }

    fn window(&mut self, address: u64, length: usize) -> Option<(&mut [u8], MemoryAccess)> {
        let (start, window) = self.windows.range_mut(..=address).next_back()?;
        let from = usize::try_from(address - start).ok()?;
        let bytes = window.data.get_mut(from..from.checked_add(length)?)?;
        Some((bytes, window.access))
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
