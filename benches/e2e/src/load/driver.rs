//! The guest's thread: turn after turn.

use std::{path::Path, time::Instant};

use super::{
    Answer, Shared,
    engines::{Fetcher, Messenger},
};
use crate::guest::{BAR0, CONFIG, Guest, PORTS};

const TICKET: u64 = 0x18;
const STATUS: u64 = 0x20;
const EVENTS: u64 = 0x28;
const EVENT: u64 = 0x30;
const FIFO: u64 = 0x50;
const ORDER: u64 = 0x60;
const ORDER_LAST: u64 = 0x68;
const PORT_FIFO: u64 = 0;
const PORT_ORDER: u64 = 4;
const PORT_TICKET: u64 = 8;
/// A vendor's register of configuration space that the device hears of, and how often it did.
const CONFIG_WRITTEN: u64 = 0xc8;
const CONFIG_COUNT: u64 = 0xc4;

/// Turns from one look at the device's own counters to the next.
const LOOK_EVERY: u64 = 16;
/// How long the function is watched at least once it is contained: reads.
const WATCHED_READS: u64 = 1_000;

/// Why a turn ends early.
pub(super) enum Stop {
    /// A read gave all-ones.
    Contained(Answer),
    /// Something is wrong.
    Wrong(String),
}

pub(super) type Turn<T> = Result<T, Stop>;

/// What the device must say next.
pub(super) struct Driver<'a> {
    pub(super) guest: Guest,
    shared: &'a Shared,
    turn: u64,
    order: u64,
    ticket: u32,
    written: u32,
}

impl<'a> Driver<'a> {
    pub(super) fn new(socket: &Path, shared: &'a Shared) -> Self {
        Self {
            guest: Guest::connect(socket),
            shared,
            turn: 0,
            order: 0,
            ticket: 0,
            written: 0,
        }
    }

    /// Until it is told to stop. What it says is wrong with the device.
    pub(super) fn run(mut self) -> Result<(), String> {
        let mut messenger = Messenger::connect(&mut self.guest);
        let mut fetcher = Fetcher::connect(&mut self.guest);
        match self.drive(&mut messenger, &mut fetcher) {
            Ok(()) => Ok(()),
            Err(Stop::Wrong(wrong)) => Err(format!("turn {}: {wrong}", self.turn)),
            Err(Stop::Contained(answer)) => {
                self.shared.change(|state| state.contained = Some(answer));
                self.watch(&messenger, &fetcher)
            }
        }
    }

    fn drive(&mut self, messenger: &mut Messenger, fetcher: &mut Fetcher) -> Turn<()> {
        messenger.start(self)?;
        while !self.shared.lock().stop {
            self.turn(messenger, fetcher)?;
            self.turn += 1;
            self.shared.change(|state| state.turns += 1);
        }
        messenger.finish(self)?;
        fetcher.finish(self)?;
        self.look()
    }

    fn turn(&mut self, messenger: &mut Messenger, fetcher: &mut Fetcher) -> Turn<()> {
        self.count_up()?;
        self.take_tickets()?;
        self.pass_through_fifo()?;
        self.count_events()?;
        messenger.take(self)?;
        fetcher.turn(self)?;
        if self.turn.is_multiple_of(LOOK_EVERY) {
            self.look()?;
        }
        Ok(())
    }

    /// Writes of all widths, by memory and by port.
    fn count_up(&mut self) -> Turn<()> {
        for n in 0..1 + self.turn % 24 {
            self.order += 1;
            let bytes = self.order.to_le_bytes();
            if n % 8 == 7 {
                self.write(PORTS, PORT_ORDER, &bytes[..4]);
            } else {
                self.write(BAR0, ORDER, &bytes[..1 << (n % 4)]);
            }
        }
        let last = self.read8(ORDER_LAST)?;
        expect("order, last", last, self.order)
    }

    fn take_tickets(&mut self) -> Turn<()> {
        for (region, at) in [(BAR0, TICKET), (PORTS, PORT_TICKET)] {
            self.ticket += 1;
            let taken = self.read(region, at)?;
            expect("ticket", u32::from_le_bytes(taken), self.ticket)?;
        }
        Ok(())
    }

    /// No byte of all-ones: those would look like no answer.
    fn pass_through_fifo(&mut self) -> Turn<()> {
        let [low, high, ..] = (self.turn % 60_000).to_le_bytes();
        let bytes = [low & 0x7f, high & 0x7f, 1, 2, 3, 4, 5, 6];
        self.write(BAR0, FIFO, &bytes);
        let first = self.read(PORTS, PORT_FIFO)?;
        expect("FIFO, by port", first, [bytes[0], bytes[1]])?;
        let rest = self.read(BAR0, FIFO)?;
        expect(
            "FIFO, by memory",
            rest,
            [bytes[2], bytes[3], bytes[4], bytes[5]],
        )?;
        let last = self.read(BAR0, FIFO)?;
        expect("FIFO, its end", last, [bytes[6], bytes[7]])
    }

    fn count_events(&mut self) -> Turn<()> {
        let events = self.turn % 7;
        for _ in 0..events {
            self.write(BAR0, EVENT, &[0]);
        }
        let seen = self.read8(EVENTS)?;
        expect("events", seen, events)
    }

    /// The device's own view.
    fn look(&mut self) -> Turn<()> {
        self.written += 1;
        let value = self.written.to_le_bytes();
        self.write(CONFIG, CONFIG_WRITTEN, &value);
        let written = self.read(CONFIG, CONFIG_COUNT)?;
        expect(
            "writes of configuration space",
            u32::from_le_bytes(written),
            self.written,
        )?;
        let [accesses, gaps, repeats] = [0x70, 0x78, 0x80];
        for (what, at, right) in [
            ("order, accesses", accesses, self.order),
            ("order, gaps", gaps, 0),
            ("order, repeats", repeats, 0),
        ] {
            expect(what, self.read8(at)?, right)?;
        }
        let status = self.read(BAR0, STATUS)?;
        expect("status", u32::from_le_bytes(status), 0)
    }

    /// Nothing comes from a function that was contained: no value, no interrupt, no byte.
    fn watch(&mut self, messenger: &Messenger, fetcher: &Fetcher) -> Result<(), String> {
        let memory = self.guest.memory();
        messenger.forget();
        fetcher.forget();
        let mut reads = 0;
        while reads < WATCHED_READS || !self.shared.lock().stop {
            let value: [u8; 4] = self.guest.read(BAR0, TICKET);
            if value != [0xff; 4] {
                return Err(format!("{value:x?} after containment"));
            }
            self.write(BAR0, ORDER, &[1]);
            reads += 1;
        }
        let late = messenger.forget() + fetcher.forget();
        if late > 0 {
            return Err(format!("{late} interrupts after containment"));
        }
        if memory != self.guest.memory() {
            return Err("DMA after containment".to_owned());
        }
        Ok(())
    }

    pub(super) fn write(&mut self, region: u32, at: u64, bytes: &[u8]) {
        self.guest.write(region, at, bytes);
        self.shared.lock().totals.accesses += 1;
    }

    pub(super) fn read8(&mut self, at: u64) -> Turn<u64> {
        self.read(BAR0, at).map(u64::from_le_bytes)
    }

    /// All-ones means that it is contained: no register that is read here can hold them.
    pub(super) fn read<const N: usize>(&mut self, region: u32, at: u64) -> Turn<[u8; N]> {
        let begun = Instant::now();
        let value = self.guest.read(region, at);
        let answer = Answer {
            begun,
            answered: Instant::now(),
        };
        if value == [0xff; N] {
            return Err(Stop::Contained(answer));
        }
        self.shared.change(|state| {
            let took = answer.answered - begun;
            state.totals.accesses += 1;
            state.totals.reads += 1;
            state.totals.slowest = state.totals.slowest.max(took);
            state.slowest = state.slowest.max(took);
            state.last = Some(answer);
        });
        Ok(value)
    }

    pub(super) fn took_interrupts(&self, count: u64) {
        self.shared.lock().totals.interrupts += count;
    }

    pub(super) fn took_sum(&self) {
        self.shared.lock().totals.sums += 1;
    }
}

pub(super) fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, right: T) -> Turn<()> {
    if is == right {
        return Ok(());
    }
    Err(Stop::Wrong(format!("{what}: {is:?}, not {right:?}")))
}
