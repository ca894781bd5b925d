#![allow(clippy::unwrap_used)]

use std::time::Duration;

use potemkin_pci::{Bar, BarIndex, Capability, Descriptor, DescriptorBuilder, Width};

use super::*;
use crate::testing::{Harness, bar0};
use crate::{AccessError, BusError, BusMaster, Device, DeviceHandle, Register, ResetKind};

const LIMIT: Duration = Duration::from_secs(60);
const MEMORY: u64 = 0x1000;

/// Writes a byte to guest memory and raises MSI vector 0 when register 0 is written; reads 4 bytes when register 4 is.
struct Mover {
    descriptor: Descriptor,
    handle: Option<DeviceHandle>,
    told: Vec<Told>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Read(u64, Result<Vec<u8>, DmaError>),
    WriteFailed(DmaError),
    BusMasterOff,
    Ready,
}

impl Mover {
    fn bus(&self) -> BusMaster {
        self.handle.as_ref().unwrap().bus_master()
    }
}

impl Device for Mover {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        Err(AccessError::Direction(at))
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        let bus = self.bus();
        if at.offset == 4 {
            bus.read(MEMORY, 4, value).unwrap();
        } else {
            bus.write(MEMORY, vec![7]).unwrap();
            bus.msi(0).unwrap();
            self.handle.as_ref().unwrap().set_intx(true);
        }
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {}

    fn attached(&mut self, handle: DeviceHandle) {
        self.handle = Some(handle);
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        self.told.push(Told::Read(tag, outcome.map(<[u8]>::to_vec)));
    }

    fn dma_write_failed(&mut self, error: DmaError) {
        self.told.push(Told::WriteFailed(error));
    }

    fn bus_master_off(&mut self) {
        self.told.push(Told::BusMasterOff);
    }

    fn dma_ready(&mut self) {
        self.told.push(Told::Ready);
    }
}

fn mover() -> Harness<Box<Mover>> {
    let descriptor = DescriptorBuilder::new(0x1234, 0x0001)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .intx_pin(1)
        .capability(Capability::msi(1, false).unwrap())
        .build()
        .unwrap();
    Harness::new(Box::new(Mover {
        descriptor,
        handle: None,
        told: Vec::new(),
    }))
}

fn start_write(harness: &mut Harness<Box<Mover>>) {
    harness.write(bar0(0, Width::B4), 0).unwrap();
}

fn start_read(harness: &mut Harness<Box<Mover>>, tag: u64) {
    harness.write(bar0(4, Width::B4), tag).unwrap();
}

#[test]
fn what_a_callback_starts_is_done_in_order_when_it_returns() {
    let mut harness = mover();
    harness.map_memory(MEMORY, 4);

    start_write(&mut harness);

    let (address, data) = (MEMORY, vec![7]);
    assert_eq!(
        harness.take_events(),
        [
            BusEvent::Written { address, data },
            BusEvent::Msi(0),
            BusEvent::Intx(true),
        ]
    );
    assert_eq!(harness.memory(MEMORY, 4), [7, 0, 0, 0]);
    assert!(harness.intx());
}

#[test]
fn read_takes_place_when_it_is_served() {
    let mut harness = mover();
    harness.map_memory(MEMORY, 4);

    start_read(&mut harness, 9);
    assert!(harness.device().told.is_empty());
    harness.memory(MEMORY, 4).copy_from_slice(&[1, 2, 3, 4]);

    assert_eq!(harness.serve_dma(), 1);
    assert_eq!(harness.serve_dma(), 0);
    assert_eq!(harness.device().told, [Told::Read(9, Ok(vec![1, 2, 3, 4]))]);
}

#[test]
fn window_limits_place_and_direction() {
    let mut harness = mover();

    start_read(&mut harness, 1);
    harness.serve_dma();
    harness.map_memory_for(MEMORY, 4, MemoryAccess::ReadOnly);
    start_write(&mut harness);
    start_read(&mut harness, 2);
    harness.serve_dma();
    harness.unmap_memory(MEMORY);
    harness.map_memory_for(MEMORY, 3, MemoryAccess::WriteOnly);
    start_write(&mut harness);
    start_read(&mut harness, 3);
    harness.serve_dma();

    assert_eq!(
        harness.device().told,
        [
            Told::Read(1, Err(DmaError::Range)),
            Told::WriteFailed(DmaError::Direction),
            Told::Read(2, Ok(vec![0; 4])),
            Told::Read(3, Err(DmaError::Range)),
        ]
    );
}

#[test]
fn bus_mastering_that_is_off_lets_nothing_through_but_intx() {
    let mut harness = mover();
    harness.map_memory(MEMORY, 4);
    start_read(&mut harness, 1);
    let before = harness.device().bus();

    harness.set_bus_master(false);
    harness.set_bus_master(false);
    assert_eq!(before.msi(0), Err(BusError::Revoked));
    start_write(&mut harness);
    harness.serve_dma();
    assert_eq!(harness.take_events(), [BusEvent::Intx(true)]);
    harness.set_bus_master(true);
    start_read(&mut harness, 2);
    harness.serve_dma();

    assert_eq!(
        harness.device().told,
        [
            Told::BusMasterOff,
            Told::Read(1, Err(DmaError::Disabled)),
            Told::WriteFailed(DmaError::Disabled),
            Told::Read(2, Ok(vec![0; 4])),
        ]
    );
}

#[test]
fn reset_cancels_reads_and_lowers_intx() {
    let mut harness = mover();
    harness.map_memory(MEMORY, 4);
    start_write(&mut harness);
    harness.hold_bus(true);
    start_write(&mut harness);
    start_read(&mut harness, 1);
    let before = harness.device().bus();
    harness.take_events();

    harness.reset(ResetKind::Function);
    harness.hold_bus(false);

    assert_eq!(before.write(MEMORY, vec![1]), Err(BusError::Revoked));
    assert_eq!(harness.serve_dma(), 0);
    assert_eq!(harness.take_events(), [BusEvent::Intx(false)]);
    assert!(harness.device().told.is_empty());
}

#[test]
fn held_bus_fills_up_and_readiness_is_told_when_it_goes_on() {
    let mut harness = mover();
    harness.map_memory(MEMORY, 4096);
    harness.hold_bus(true);

    let bus = harness.device().bus();
    while bus.write(MEMORY, vec![1; 4096]).is_ok() {}
    harness.serve_dma();
    assert!(harness.device().told.is_empty());
    harness.hold_bus(false);
    harness.serve_dma();

    assert_eq!(harness.device().told, [Told::Ready]);
    assert_eq!(harness.memory(MEMORY, 1), [1]);
    assert_eq!(bus.write(MEMORY, vec![1; 4096]), Ok(()));
}

#[test]
fn what_a_thread_does_is_waited_for() {
    let mut harness = mover();
    let handle = harness.device().handle.clone().unwrap();

    let thread = std::thread::spawn(move || handle.bus_master().msi(0));

    assert!(harness.wait_bus(LIMIT));
    assert_eq!(harness.take_events(), [BusEvent::Msi(0)]);
    assert_eq!(thread.join().unwrap(), Ok(()));
}
