//! What the device does by itself: memory that it writes and interrupts behind it, memory that it reads.

use std::{os::fd::OwnedFd, time::Instant};

use super::{
    LIMIT,
    driver::{Driver, Stop, Turn, expect},
};
use crate::guest::{BAR0, Guest, RAM, events, take};

/// As many as vectors: an interrupt stands for one round.
const SLOTS: u64 = 32;
const BLOCK_BYTES: usize = 64;
const STRIDE: u64 = 128;
/// More than are ever done.
const ROUNDS: u64 = u64::MAX >> 1;

const TAKEN: u64 = 0x120;
const DONE: u64 = 0x128;
const COMMAND: u64 = 0x130;

/// Rounds that the device does as far ahead of the guest as its ring has slots.
pub(super) struct Messenger {
    events: Vec<OwnedFd>,
    /// Rounds that were seen out of turn, by slot.
    seen: Vec<bool>,
    taken: u64,
}

impl Messenger {
    pub(super) fn connect(guest: &mut Guest) -> Self {
        let events = events(usize::try_from(SLOTS).unwrap_or_default());
        guest.enable_msix();
        guest.listen(0, &events);
        let seen = vec![false; events.len()];
        Self {
            events,
            seen,
            taken: 0,
        }
    }

    pub(super) fn start(&self, driver: &mut Driver<'_>) -> Turn<()> {
        driver.write(BAR0, 0x100, &RAM.to_le_bytes());
        for (register, value) in [
            (0x108, STRIDE),
            (0x10c, SLOTS),
            (0x110, BLOCK_BYTES as u64),
            (0x114, SLOTS),
        ] {
            driver.write(BAR0, register, &value.to_le_bytes()[..4]);
        }
        driver.write(BAR0, 0x118, &ROUNDS.to_le_bytes());
        driver.write(BAR0, COMMAND, &[1, 0, 0, 0]);
        let state = driver.read(BAR0, COMMAND)?;
        expect("messenger", u32::from_le_bytes(state), 1)
    }

    /// What has come. Each must have its data, and come once.
    pub(super) fn take(&mut self, driver: &mut Driver<'_>) -> Turn<()> {
        for (slot, event) in self.events.iter().enumerate() {
            match take(event) {
                0 => {}
                1 if !self.seen[slot] => {
                    expect_block(&driver.guest, round_of(slot as u64, self.taken))?;
                    self.seen[slot] = true;
                }
                count => {
                    let wrong =
                        format!("vector {slot} came {count} times, or twice, for one round");
                    return Err(Stop::Wrong(wrong));
                }
            }
        }
        let before = self.taken;
        while std::mem::take(self.slot(self.taken)) {
            self.taken += 1;
        }
        if self.taken > before {
            driver.took_interrupts(self.taken - before);
            driver.write(BAR0, TAKEN, &self.taken.to_le_bytes());
        }
        Ok(())
    }

    /// Stops it. What it has done must all be there.
    pub(super) fn finish(&mut self, driver: &mut Driver<'_>) -> Turn<()> {
        driver.write(BAR0, COMMAND, &[0; 4]);
        let done = driver.read8(DONE)?;
        // Interrupts do not come behind an answer.
        self.take(driver)?;
        expect("rounds of the messenger", self.taken, done)
    }

    /// Takes signals, whatever they are; how many there were.
    pub(super) fn forget(&self) -> u64 {
        self.events.iter().map(take).sum()
    }

    fn slot(&mut self, round: u64) -> &mut bool {
        &mut self.seen[usize::try_from(round % SLOTS).unwrap_or_default()]
    }
}

/// The round that a vector stands for while the oldest that was not taken is `first`.
fn round_of(vector: u64, first: u64) -> u64 {
    first + (vector + SLOTS - first % SLOTS) % SLOTS
}

fn expect_block(guest: &Guest, round: u64) -> Turn<()> {
    let mut block = [0; BLOCK_BYTES];
    guest.peek(RAM + round % SLOTS * STRIDE, &mut block);
    for (word, k) in block.chunks_exact(8).zip(0_u64..) {
        expect(
            "a block at its interrupt",
            word,
            &(round + (k << 48)).to_le_bytes(),
        )?;
    }
    Ok(())
}

const LIST: u64 = RAM + 0x1_0000;
const SUM: u64 = RAM + 0x1_8000;
const PIECES: u64 = RAM + 0x2_0000;
const PIECE: u64 = 0x1_0000;
const ENTRIES: u64 = 8;
const FETCHER_COMMAND: u64 = 0x1a0;

/// Sums that the device makes of the guest's memory.
pub(super) struct Fetcher {
    event: Vec<OwnedFd>,
    /// Of the run that goes on.
    right: Option<u64>,
    runs: u64,
}

impl Fetcher {
    pub(super) fn connect(guest: &mut Guest) -> Self {
        let event = events(1);
        guest.listen(u32::try_from(SLOTS).unwrap_or_default(), &event);
        Self {
            event,
            right: None,
            runs: 0,
        }
    }

    /// Takes a sum that is ready, and has the next made.
    pub(super) fn turn(&mut self, driver: &mut Driver<'_>) -> Turn<()> {
        if self.right.is_none() {
            self.start(driver);
            return Ok(());
        }
        self.take(driver)
    }

    fn take(&mut self, driver: &mut Driver<'_>) -> Turn<()> {
        match (take(&self.event[0]), self.right.take()) {
            (0, right) => self.right = right,
            (1, Some(right)) => {
                let mut sum = [0; 8];
                driver.guest.peek(SUM, &mut sum);
                expect("a sum at its interrupt", u64::from_le_bytes(sum), right)?;
                driver.took_sum();
            }
            (count, _) => {
                let wrong = format!("the fetcher's vector came {count} times, or unasked");
                return Err(Stop::Wrong(wrong));
            }
        }
        Ok(())
    }

    fn start(&mut self, driver: &mut Driver<'_>) {
        self.runs += 1;
        self.right = Some(fill(&driver.guest, self.runs));
        driver.write(BAR0, 0x180, &LIST.to_le_bytes());
        driver.write(BAR0, 0x188, &ENTRIES.to_le_bytes()[..4]);
        driver.write(BAR0, 0x18c, &SLOTS.to_le_bytes()[..4]);
        driver.write(BAR0, 0x190, &SUM.to_le_bytes());
        driver.write(BAR0, FETCHER_COMMAND, &[1, 0, 0, 0]);
    }

    /// Waits for the run that goes on.
    pub(super) fn finish(&mut self, driver: &mut Driver<'_>) -> Turn<()> {
        let begin = Instant::now();
        while self.right.is_some() {
            if begin.elapsed() > LIMIT {
                return Err(Stop::Wrong("the fetcher does not end".to_owned()));
            }
            // Its DMA reads are answered all the same.
            driver.read8(0x198)?;
            self.take(driver)?;
        }
        Ok(())
    }

    /// Takes signals, whatever they are; how many there were.
    pub(super) fn forget(&self) -> u64 {
        take(&self.event[0])
    }
}

/// Other bytes and other lengths in each run; their sum.
fn fill(guest: &Guest, run: u64) -> u64 {
    let mut list = Vec::new();
    let mut sum = 0;
    for piece in 0..ENTRIES {
        let length = (run * 37 + piece * 501) % 5_000 + 1;
        let byte = (run + piece).to_le_bytes()[0];
        let bytes = vec![byte; usize::try_from(length).unwrap_or_default()];
        guest.poke(PIECES + piece * PIECE, &bytes);
        sum += length * u64::from(byte);
        list.extend((PIECES + piece * PIECE).to_le_bytes());
        list.extend(length.to_le_bytes());
    }
    guest.poke(LIST, &list);
    sum
}
