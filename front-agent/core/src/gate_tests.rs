#![allow(clippy::unwrap_used)]

use std::{io, sync::Mutex};

use super::*;

#[derive(Debug)]
struct Ram(Mutex<Vec<u8>>);

impl GuestMemory for Ram {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn window(address: u64, size: usize) -> Window {
    Window {
        address,
        size: size as u64,
        readable: true,
        writable: true,
        memory: Some(Arc::new(Ram(Mutex::new(vec![0; size])))),
    }
}

fn refused(gate: &Gate, generation: u64, address: u64, length: usize) -> DmaError {
    gate.pass(generation, address, length, Direction::ToGuest)
        .unwrap_err()
}

fn parts(gate: &Gate, generation: u64, address: u64, length: usize) -> Vec<Part> {
    match gate.pass(generation, address, length, Direction::ToGuest) {
        Ok(Way::Local(parts)) => parts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transfer_crosses_adjacent_windows() {
    let mut gate = Gate::default();
    gate.map(window(0x1000, 16), 0).unwrap();
    gate.map(window(0x1010, 16), 0).unwrap();

    write_parts(&parts(&gate, 0, 0x100e, 4), b"abcd").unwrap();

    let mut out = [0; 4];
    read_parts(&parts(&gate, 0, 0x100e, 4), &mut out).unwrap();
    assert_eq!(&out, b"abcd");
}

#[test]
fn what_leaves_the_windows_moves_nothing() {
    let mut gate = Gate::default();
    gate.map(window(0x1000, 16), 0).unwrap();

    assert_eq!(refused(&gate, 0, 0xfff, 2), DmaError::Range);
    assert_eq!(refused(&gate, 0, 0x100f, 2), DmaError::Range);
    assert_eq!(refused(&gate, 0, u64::MAX, 2), DmaError::Range);
}

#[test]
fn a_window_allows_its_directions_only() {
    let mut gate = Gate::default();
    let read_only = Window {
        writable: false,
        ..window(0x1000, 16)
    };
    gate.map(read_only, 0).unwrap();

    assert_eq!(refused(&gate, 0, 0x1000, 4), DmaError::Direction);
    assert!(gate.pass(0, 0x1000, 4, Direction::FromGuest).is_ok());
}

#[test]
fn older_than_the_floor_is_void() {
    let mut gate = Gate::default();
    gate.map(window(0x1000, 16), 0).unwrap();
    gate.floor = 2;

    assert_eq!(refused(&gate, 1, 0x1000, 4), DmaError::Disabled);
    parts(&gate, 2, 0x1000, 4);
}

#[test]
fn what_was_meant_for_memory_that_is_gone_does_not_land_in_new_memory() {
    let mut gate = Gate::default();
    gate.map(window(0x1000, 16), 0).unwrap();
    gate.map(window(0x2000, 16), 0).unwrap();

    assert!(gate.unmap(0x1000, 16));
    gate.map(window(0x1000, 16), 1).unwrap();

    assert_eq!(refused(&gate, 0, 0x1000, 4), DmaError::Disabled);
    parts(&gate, 0, 0x2000, 4);
    parts(&gate, 1, 0x1000, 4);
}

#[test]
fn windows_do_not_overlap_and_are_unmapped_whole() {
    let mut gate = Gate::default();
    gate.map(window(0x1000, 16), 0).unwrap();

    assert_eq!(gate.map(window(0x100f, 1), 0), Err(MapError::Overlap));
    assert_eq!(gate.map(window(0xff0, 17), 0), Err(MapError::Overlap));
    assert_eq!(gate.map(window(u64::MAX, 1), 0), Err(MapError::Range));
    assert!(!gate.unmap(0x1000, 8));
    assert!(gate.unmap(0x1000, 16));
}

#[test]
fn a_window_without_memory_is_for_messages() {
    let mut gate = Gate::default();
    let distant = Window {
        memory: None,
        ..window(0x1000, 16)
    };
    gate.map(distant, 0).unwrap();

    let way = gate.pass(0, 0x1000, 4, Direction::ToGuest);
    assert!(matches!(way, Ok(Way::Message)));
}
