#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use potemkin_devices::Scratch;
use potemkin_sdk::{AccessError, BarIndex, Space, Width};
use potemkin_session::access::{Location, Posting};

use super::*;

const BAR_BYTES: u64 = 64;

fn scratch() -> Guarded {
    guard(Scratch::new(BAR_BYTES).unwrap())
}

fn guard(device: impl Device + 'static) -> Guarded {
    let descriptor = device.descriptor().clone();
    Guarded::new("dev-0", Box::new(device), &descriptor)
}

fn at(offset: u64, width: Width) -> Location {
    Location {
        space: Space::Bar(BarIndex::B0),
        offset,
        width,
    }
}

fn reading(at: Location, extent: Extent) -> Access {
    Access {
        at,
        extent,
        operation: Operation::Read,
    }
}

fn writing(at: Location, extent: Extent, payload: Payload) -> Access {
    Access {
        at,
        extent,
        operation: Operation::Write(Posting::Posted, payload),
    }
}

#[test]
fn read_gives_as_many_bytes_as_its_width() {
    let mut device = scratch();
    let write = writing(
        at(8, Width::B8),
        Extent::Single,
        Payload::Value(0x0807_0605_0403_0201),
    );
    assert_eq!(device.execute(&write), Outcome::Done);

    for width in Width::ALL {
        let outcome = device.execute(&reading(at(8, width), Extent::Single));
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(device.answer(), &[1, 2, 3, 4, 5, 6, 7, 8][..width.bytes()]);
    }
}

#[test]
fn blocks_are_read_and_written_whole() {
    let mut device = scratch();
    let data = Bytes::from_static(&[1, 2, 3, 4, 5, 6]);
    let write = writing(
        at(0, Width::B2),
        Extent::Consecutive(3),
        Payload::Block(data.clone()),
    );
    assert_eq!(device.execute(&write), Outcome::Done);

    device.execute(&reading(at(0, Width::B2), Extent::Consecutive(3)));
    assert_eq!(device.answer(), data);
    device.execute(&reading(at(2, Width::B2), Extent::Fixed(2)));
    assert_eq!(device.answer(), &[3, 4, 3, 4]);
}

#[test]
fn access_beyond_a_space_never_reaches_the_device() {
    let mut device = scratch();
    let last = at(BAR_BYTES - 4, Width::B4);
    let beyond = [
        reading(at(BAR_BYTES - 3, Width::B4), Extent::Single),
        reading(at(u64::MAX, Width::B8), Extent::Single),
        reading(last, Extent::Consecutive(2)),
        writing(at(BAR_BYTES, Width::B1), Extent::Single, Payload::Value(1)),
        reading(
            Location {
                space: Space::Bar(BarIndex::B4),
                ..at(0, Width::B1)
            },
            Extent::Single,
        ),
        reading(
            Location {
                space: Space::Rom,
                ..at(0, Width::B1)
            },
            Extent::Single,
        ),
    ];

    for access in beyond {
        assert_eq!(device.execute(&access), Outcome::OutOfBounds, "{access:?}");
    }

    assert_eq!(
        device.execute(&reading(last, Extent::Single)),
        Outcome::Done
    );
    let fixed = reading(last, Extent::Fixed(1024));
    assert_eq!(device.execute(&fixed), Outcome::Done);
}

#[test]
fn refused_access_is_a_device_error() {
    let mut device = scratch();
    let counters = Location {
        space: Space::Bar(BarIndex::B2),
        offset: 8,
        width: Width::B4,
    };

    let outcome = device.execute(&reading(counters, Extent::Single));

    assert_eq!(outcome, Outcome::Refused);
    assert_eq!(Status::from(outcome), Status::DeviceError);
}

/// Panics on the first read.
struct Fragile {
    inner: Scratch,
    calls: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Device for Fragile {
    fn descriptor(&self) -> &Descriptor {
        self.inner.descriptor()
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        self.calls
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        panic!("no bit left at {:#x}", at.offset);
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        self.inner.write(at, value)
    }

    fn reset(&mut self, kind: ResetKind) {
        self.inner.reset(kind);
    }
}

#[test]
fn panic_fails_the_device_for_good() {
    let calls = std::sync::Arc::default();
    let mut device = guard(Fragile {
        inner: Scratch::new(BAR_BYTES).unwrap(),
        calls: std::sync::Arc::clone(&calls),
    });
    let read = reading(at(4, Width::B4), Extent::Single);

    assert_eq!(device.execute(&read), Outcome::Failed);
    assert_eq!(device.failed(), Some("no bit left at 0x4"));
    device.reset(ResetKind::Function);
    assert_eq!(device.execute(&read), Outcome::Failed);

    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
}
