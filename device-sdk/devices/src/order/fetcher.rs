//! The fetcher: reads a list of pieces from guest memory, then the pieces, and writes their sum back.

use potemkin_sdk::{BusError, BusMaster, DmaError};

use super::registers::FetcherReg;

const ENTRIES_MAX: u32 = 256;
const ENTRY_BYTES: usize = 16;
const PIECE_BYTES_MAX: u32 = 65_536;

const COMMAND_START: u64 = 1;
const STATE_RUNNING: u64 = 1;
const STATE_FAILED: u64 = 2;

#[derive(Debug, Default)]
pub(super) struct Fetcher {
    list: u64,
    entries: u32,
    vector: u32,
    result: u64,
    sum: u64,
    run: Option<Run>,
    failed: bool,
    /// It ended and nobody was told.
    ended: bool,
    /// Of the newest read: an answer to an older one is recognised.
    last_tag: u64,
}

#[derive(Debug)]
struct Run {
    bus: BusMaster,
    /// What is still to be read, the next one last; none before the list has come.
    pieces: Option<Vec<Piece>>,
    /// The bus master has taken the read that comes next.
    asked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    address: u64,
    length: usize,
}

impl Fetcher {
    pub(super) fn read(&self, reg: FetcherReg) -> u64 {
        match reg {
            FetcherReg::List => self.list,
            FetcherReg::Entries => self.entries.into(),
            FetcherReg::Vector => self.vector.into(),
            FetcherReg::Result => self.result,
            FetcherReg::Sum => self.sum,
            FetcherReg::Command => {
                let running = if self.run.is_some() { STATE_RUNNING } else { 0 };
                running | if self.failed { STATE_FAILED } else { 0 }
            }
        }
    }

    /// Ignored while it runs. `bus` gives the right to act on the guest, for a run that begins now.
    pub(super) fn write(
        &mut self,
        reg: FetcherReg,
        value: u64,
        bus: impl FnOnce() -> Option<BusMaster>,
    ) {
        if self.run.is_some() {
            return;
        }
        let low = u32::try_from(value).unwrap_or(u32::MAX);
        match reg {
            FetcherReg::List => self.list = value,
            FetcherReg::Entries => self.entries = low,
            FetcherReg::Vector => self.vector = low,
            FetcherReg::Result => self.result = value,
            FetcherReg::Sum => {}
            FetcherReg::Command if value & COMMAND_START != 0 => self.start(bus()),
            FetcherReg::Command => {}
        }
    }

    /// There is room for what had to wait.
    pub(super) fn go_on(&mut self) {
        let Some(run) = &mut self.run else { return };
        if run.asked {
            return;
        }
        let next = match &run.pieces {
            None => Some(Piece {
                address: self.list,
                length: self.entries as usize * ENTRY_BYTES,
            }),
            Some(pieces) => pieces.last().copied(),
        };
        let outcome = match next {
            Some(piece) => {
                self.last_tag += 1;
                let asked = run.bus.read(piece.address, piece.length, self.last_tag);
                run.asked = asked.is_ok();
                asked
            }
            None => {
                let sum = self.sum.to_le_bytes().to_vec();
                run.bus.write(self.result, sum).map(|()| self.end(false))
            }
        };
        match outcome {
            Ok(()) | Err(BusError::Full) => {}
            Err(_) => self.end(true),
        }
    }

    pub(super) fn read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        let last = self.last_tag;
        let Some(run) = self.run.as_mut().filter(|run| run.asked && tag == last) else {
            return;
        };
        run.asked = false;
        let Ok(data) = outcome else {
            return self.end(true);
        };
        match &mut run.pieces {
            Some(pieces) => {
                pieces.pop();
                self.sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            }
            None => match pieces(data) {
                Some(pieces) => run.pieces = Some(pieces),
                None => return self.end(true),
            },
        }
        self.go_on();
    }

    /// Whether it ended since this was asked before.
    pub(super) fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// As at power-on, but an answer to a read of before is still recognised as such.
    pub(super) fn after_reset(&self) -> Self {
        Self {
            last_tag: self.last_tag,
            ..Self::default()
        }
    }

    fn start(&mut self, bus: Option<BusMaster>) {
        (self.sum, self.failed) = (0, false);
        let sound = (1..=ENTRIES_MAX).contains(&self.entries);
        self.run = bus.filter(|_| sound).map(|bus| Run {
            bus,
            pieces: None,
            asked: false,
        });
        if self.run.is_none() {
            (self.failed, self.ended) = (true, true);
        }
        self.go_on();
    }

    /// The guest hears of a failure too, so that no driver waits for ever.
    fn end(&mut self, failed: bool) {
        let Some(run) = self.run.take() else { return };
        (self.failed, self.ended) = (failed, true);
        // A right that is over, or a vector that is not there, tells nobody.
        let _ = u16::try_from(self.vector).map(|vector| run.bus.msix(vector));
    }
}

/// The pieces of a list, the first one last. None when one has a length that it must not have.
fn pieces(list: &[u8]) -> Option<Vec<Piece>> {
    let entries = list.chunks_exact(ENTRY_BYTES).rev();
    entries
        .map(|entry| {
            let (address, rest) = entry.split_first_chunk()?;
            let length = u32::from_le_bytes(*rest.first_chunk()?);
            let sound = (1..=PIECE_BYTES_MAX).contains(&length);
            sound.then_some(Piece {
                address: u64::from_le_bytes(*address),
                length: length as usize,
            })
        })
        .collect()
}
