#![allow(clippy::unwrap_used)]

use potemkin_sdk::testing::{BusEvent, Harness, bar0};
use potemkin_sdk::{BlockMode, Width};

use super::*;

mod engines;
mod function;
mod registers;

const SCRATCH: u64 = 0x10;
const TICKET: u64 = 0x18;
const STATUS: u64 = 0x20;
const STATUS_SET: u64 = 0x24;
const EVENTS: u64 = 0x28;
const EVENT: u64 = 0x30;
const INTERRUPT_STATUS: u64 = 0x40;
const INTERRUPT_ENABLE: u64 = 0x44;
const INTERRUPT_RAISE: u64 = 0x48;
const VECTOR_RAISE: u64 = 0x4c;
const FIFO: u64 = 0x50;
const FIFO_LEVEL: u64 = 0x58;
const FIFO_CLEAR: u64 = 0x5c;
const ORDER: u64 = 0x60;
const ORDER_LAST: u64 = 0x68;
const ORDER_ACCESSES: u64 = 0x70;
const ORDER_GAPS: u64 = 0x78;
const ORDER_REPEATS: u64 = 0x80;
const RESET: u64 = 0xa0;

fn order() -> Harness<Order> {
    Harness::new(Order::new(64, 1 << 20).unwrap())
}

fn at(bar: u8, offset: u64, width: Width) -> Register {
    Register::new(Space::Bar(BarIndex::new(bar).unwrap()), offset, width)
}

fn read4(order: &mut Harness<Order>, offset: u64) -> u64 {
    order.read(bar0(offset, Width::B4))
}

fn read8(order: &mut Harness<Order>, offset: u64) -> u64 {
    order.read(bar0(offset, Width::B8))
}

fn write4(order: &mut Harness<Order>, offset: u64, value: u64) {
    order.write(bar0(offset, Width::B4), value).unwrap();
}

fn write8(order: &mut Harness<Order>, offset: u64, value: u64) {
    order.write(bar0(offset, Width::B8), value).unwrap();
}
