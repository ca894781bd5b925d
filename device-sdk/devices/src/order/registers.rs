//! Where the registers are, and who may access them how.

use potemkin_sdk::BarIndex;
use potemkin_sdk::registers::{Entry, RegisterMap, RegisterMapError, Widths};

/// Size of BAR 0, in bytes.
pub(super) const BAR_BYTES: u64 = 4096;
/// Size of BAR 1.
pub(super) const PORTS: u64 = 16;

/// "ORDR".
pub(super) const IDENTIFICATION: u32 = u32::from_le_bytes(*b"ORDR");

/// Status: a push found no room.
pub(super) const STATUS_FIFO_OVERRUN: u32 = 1 << 0;
/// Status: a pop found not enough bytes.
pub(super) const STATUS_FIFO_UNDERRUN: u32 = 1 << 1;
/// Status: a number was not the successor of the one before.
pub(super) const STATUS_ORDER: u32 = 1 << 2;
/// Status: a DMA write moved nothing.
pub(super) const STATUS_DMA_FAILED: u32 = 1 << 3;

/// Interrupt status: the messenger has ended.
pub(super) const INTERRUPT_MESSAGES: u32 = 1 << 0;
/// Interrupt status: the fetcher has ended.
pub(super) const INTERRUPT_FETCHED: u32 = 1 << 1;

/// Status: the function has failed; only while its agent has no device for it, or its guest has not reset it since.
pub(super) const STATUS_FAILED: u32 = 1 << 31;
/// Reset: this write resets the device.
pub(super) const RESET_NOW: u32 = 1;

/// Status.
pub(super) const STATUS: u64 = 0x20;
/// Reset.
pub(super) const RESET: u64 = 0xa0;
/// Of the messenger; doorbells.
pub(super) const MESSENGER_TAKEN: u64 = 0x120;
pub(super) const MESSENGER_COMMAND: u64 = 0x130;
/// Of the fetcher; a doorbell.
pub(super) const FETCHER_COMMAND: u64 = 0x1a0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Identification,
    Vectors,
    MemoryBytes,
    Scratch,
    Ticket,
    Status,
    StatusSet,
    Events,
    Event,
    InterruptStatus,
    InterruptEnable,
    InterruptRaise,
    VectorRaise,
    Fifo,
    FifoLevel,
    FifoClear,
    Order,
    OrderLast,
    OrderAccesses,
    OrderGaps,
    OrderRepeats,
    ConfigValue,
    ConfigPlace,
    ConfigCount,
    Reset,
    Messenger(MessengerReg),
    Fetcher(FetcherReg),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessengerReg {
    Base,
    Stride,
    Slots,
    BlockBytes,
    Vectors,
    Rounds,
    Taken,
    Done,
    Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetcherReg {
    List,
    Entries,
    Vector,
    Result,
    Sum,
    Command,
}

/// BAR 0.
pub(super) fn map() -> Result<RegisterMap<Reg>, RegisterMapError> {
    let any = |name, offset| Entry::register(name, offset, Widths::ALL);
    let mut map = RegisterMap::bar(BarIndex::B0, BAR_BYTES)
        .add(
            Reg::Identification,
            four("identification", 0x00).read_only(),
        )
        .add(Reg::Vectors, four("vectors", 0x04).read_only())
        .add(Reg::MemoryBytes, eight("memory bytes", 0x08).read_only())
        .add(Reg::Scratch, Entry::window("scratch", 0x10, 8, Widths::ALL))
        .add(Reg::Ticket, four("ticket", 0x18).read_only())
        .add(Reg::Status, four("status", STATUS).read_only())
        .add(Reg::StatusSet, four("status set", 0x24).write_only())
        .add(Reg::Events, eight("events", 0x28).read_only())
        .add(Reg::Event, any("event", 0x30).write_only())
        .add(Reg::InterruptStatus, four("interrupt status", 0x40))
        .add(Reg::InterruptEnable, four("interrupt enable", 0x44))
        .add(
            Reg::InterruptRaise,
            four("interrupt raise", 0x48).write_only(),
        )
        .add(Reg::VectorRaise, four("vector raise", 0x4c).write_only())
        .add(Reg::Fifo, any("FIFO", 0x50))
        .add(Reg::FifoLevel, four("FIFO level", 0x58).read_only())
        .add(Reg::FifoClear, four("FIFO clear", 0x5c).write_only())
        .add(Reg::Order, any("order", 0x60).write_only())
        .add(Reg::OrderLast, eight("order last", 0x68))
        .add(
            Reg::OrderAccesses,
            eight("order accesses", 0x70).read_only(),
        )
        .add(Reg::OrderGaps, eight("order gaps", 0x78).read_only())
        .add(Reg::OrderRepeats, eight("order repeats", 0x80).read_only())
        .add(Reg::ConfigValue, eight("config value", 0x90).read_only())
        .add(Reg::ConfigPlace, four("config place", 0x98).read_only())
        .add(Reg::ConfigCount, four("config count", 0x9c).read_only())
        .add(Reg::Reset, four("reset", RESET).write_only());
    for (reg, entry) in messenger() {
        map = map.add(Reg::Messenger(reg), entry);
    }
    for (reg, entry) in fetcher() {
        map = map.add(Reg::Fetcher(reg), entry);
    }
    map.build()
}

/// BAR 1.
pub(super) fn ports() -> Result<RegisterMap<Reg>, RegisterMapError> {
    let narrow = Widths::ONE | Widths::TWO | Widths::FOUR;
    RegisterMap::bar(BarIndex::B1, PORTS)
        .add(Reg::Fifo, Entry::register("FIFO", 0x0, narrow))
        .add(
            Reg::Order,
            Entry::register("order", 0x4, narrow).write_only(),
        )
        .add(Reg::Ticket, four("ticket", 0x8).read_only())
        .add(Reg::Status, four("status", 0xc).read_only())
        .build()
}

fn messenger() -> [(MessengerReg, Entry); 9] {
    [
        (MessengerReg::Base, eight("messenger base", 0x100)),
        (MessengerReg::Stride, four("messenger stride", 0x108)),
        (MessengerReg::Slots, four("messenger slots", 0x10c)),
        (
            MessengerReg::BlockBytes,
            four("messenger block bytes", 0x110),
        ),
        (MessengerReg::Vectors, four("messenger vectors", 0x114)),
        (MessengerReg::Rounds, eight("messenger rounds", 0x118)),
        (
            MessengerReg::Taken,
            eight("messenger taken", MESSENGER_TAKEN),
        ),
        (
            MessengerReg::Done,
            eight("messenger done", 0x128).read_only(),
        ),
        (
            MessengerReg::Command,
            four("messenger command", MESSENGER_COMMAND),
        ),
    ]
}

fn fetcher() -> [(FetcherReg, Entry); 6] {
    [
        (FetcherReg::List, eight("fetcher list", 0x180)),
        (FetcherReg::Entries, four("fetcher entries", 0x188)),
        (FetcherReg::Vector, four("fetcher vector", 0x18c)),
        (FetcherReg::Result, eight("fetcher result", 0x190)),
        (FetcherReg::Sum, eight("fetcher sum", 0x198).read_only()),
        (
            FetcherReg::Command,
            four("fetcher command", FETCHER_COMMAND),
        ),
    ]
}

fn four(name: &'static str, offset: u64) -> Entry {
    Entry::register(name, offset, Widths::FOUR)
}

fn eight(name: &'static str, offset: u64) -> Entry {
    Entry::register(name, offset, Widths::EIGHT)
}
