//! A host with a device of its own: a counter that a guest adds to.
//!
//! It takes the arguments and the configuration of `potemkin-host`:
//!
//! ```console
//! cargo run -p potemkin-host --example custom_device -- --config host.toml
//! ```

use std::process::ExitCode;

use potemkin_host::{Offer, cli_main_with};
use potemkin_sdk::registers::{Entry, RegisterMap, Widths};
use potemkin_sdk::{
    AccessError, Bar, BarIndex, Descriptor, DescriptorBuilder, Device, Register, ResetKind,
};
use potemkin_service::{About, BoxError};

const ABOUT: About = About {
    binary: "custom_device",
    summary: "Serves a counter to the pool",
    examples: "  custom_device --config host.toml",
};

fn main() -> ExitCode {
    cli_main_with(&ABOUT, std::env::args_os(), |host| {
        let counter = Offer::new("counter-0", "counter", Box::new(Counter::new()?));
        Ok(host.offer(counter.label("zone", "a")))
    })
}

#[derive(Clone, Copy)]
enum Reg {
    /// The sum so far.
    Count,
    /// What is written is added to the sum.
    Step,
}

struct Counter {
    descriptor: Descriptor,
    registers: RegisterMap<Reg>,
    count: u64,
}

impl Counter {
    fn new() -> Result<Self, BoxError> {
        let descriptor = DescriptorBuilder::new(0x1234, 0xc0de)
            .bar(BarIndex::B0, Bar::memory32(0x1000))
            .build()?;
        let registers = RegisterMap::bar(BarIndex::B0, 0x1000)
            .add(
                Reg::Count,
                Entry::register("count", 0x0, Widths::EIGHT).read_only(),
            )
            .add(
                Reg::Step,
                Entry::register("step", 0x8, Widths::ALL).write_only(),
            )
            .build()?;
        Ok(Self {
            descriptor,
            registers,
            count: 0,
        })
    }
}

impl Device for Counter {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        match self.registers.readable(at)?.key {
            Reg::Count => Ok(self.count),
            Reg::Step => Err(AccessError::Direction(at)),
        }
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        self.registers.writable(at)?;
        self.count = self.count.wrapping_add(value);
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        self.count = 0;
    }
}
