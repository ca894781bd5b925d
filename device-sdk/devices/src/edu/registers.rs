//! Where the registers are, and who may access them how.

use potemkin_sdk::BarIndex;
use potemkin_sdk::registers::{Entry, RegisterMap, RegisterMapError, Widths};

/// Size of BAR 0, in bytes.
pub(super) const BAR_BYTES: u64 = 1 << 20;

/// "edu" in version 1.0, as the specification spells it.
pub(super) const IDENTIFICATION: u32 = 0x0100_00ed;

/// Status: a factorial is being computed.
pub(super) const STATUS_COMPUTING: u32 = 0x01;
/// Status: raise an interrupt when the factorial is there.
pub(super) const STATUS_INTERRUPT: u32 = 0x80;

/// Interrupt status: the factorial is there.
pub(super) const INTERRUPT_FACTORIAL: u32 = 0x01;
/// Interrupt status: the DMA transfer is done.
pub(super) const INTERRUPT_DMA: u32 = 0x100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    Identification,
    Liveness,
    Factorial,
    Status,
    InterruptStatus,
    InterruptRaise,
    InterruptAcknowledge,
    DmaSource,
    DmaDestination,
    DmaCount,
    DmaCommand,
}

pub(super) fn map() -> Result<RegisterMap<Reg>, RegisterMapError> {
    let dma = Widths::FOUR | Widths::EIGHT;
    let small = |name, offset| Entry::register(name, offset, Widths::FOUR);
    RegisterMap::bar(BarIndex::B0, BAR_BYTES)
        .add(
            Reg::Identification,
            small("identification", 0x00).read_only(),
        )
        .add(Reg::Liveness, small("liveness", 0x04))
        .add(Reg::Factorial, small("factorial", 0x08))
        .add(Reg::Status, small("status", 0x20))
        .add(
            Reg::InterruptStatus,
            small("interrupt status", 0x24).read_only(),
        )
        .add(
            Reg::InterruptRaise,
            small("interrupt raise", 0x60).write_only(),
        )
        .add(
            Reg::InterruptAcknowledge,
            small("interrupt acknowledge", 0x64).write_only(),
        )
        .add(Reg::DmaSource, Entry::register("DMA source", 0x80, dma))
        .add(
            Reg::DmaDestination,
            Entry::register("DMA destination", 0x88, dma),
        )
        .add(Reg::DmaCount, Entry::register("DMA count", 0x90, dma))
        .add(Reg::DmaCommand, Entry::register("DMA command", 0x98, dma))
        .build()
}
