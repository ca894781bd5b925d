#![allow(clippy::unwrap_used)]

use potemkin_pci::Interrupts;

use super::*;
use crate::DeviceHandle;
use crate::hosting::{Generations, HostEnd, Wake};

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

/// The host's end must live as long as the test.
fn bus_master() -> (BusMaster, HostEnd) {
    let interrupts = Interrupts {
        intx_pin: 0,
        msi_vectors: 4,
        msix_vectors: 2_048,
    };
    let (handle, mut end) = DeviceHandle::new(Silent, interrupts);
    end.outbox.open(Generations::default());
    (handle.bus_master(), end)
}

#[test]
fn transfer_of_no_byte_or_past_the_bound_is_refused() {
    let (bus, _end) = bus_master();
    let long = BusMaster::TRANSFER_BYTES_MAX + 1;

    assert_eq!(bus.write(0, Bytes::new()), Err(BusError::Range));
    assert_eq!(bus.write(0, vec![0; long]), Err(BusError::Range));
    assert_eq!(bus.read(0, 0, 1), Err(BusError::Range));
    assert_eq!(bus.read(0, long, 1), Err(BusError::Range));
    assert_eq!(bus.read(0, usize::MAX, 1), Err(BusError::Range));
}

#[test]
fn transfer_ends_at_the_end_of_the_address_space_at_most() {
    let (bus, _end) = bus_master();

    assert_eq!(bus.write(u64::MAX, vec![1]), Ok(()));
    assert_eq!(bus.read(u64::MAX - 3, 4, 1), Ok(()));
    assert_eq!(bus.write(u64::MAX, vec![1, 2]), Err(BusError::Range));
    assert_eq!(bus.read(u64::MAX - 3, 5, 1), Err(BusError::Range));
}

#[test]
fn vector_that_the_descriptor_does_not_have_is_refused() {
    let (bus, _end) = bus_master();

    assert_eq!(bus.msi(3), Ok(()));
    assert_eq!(bus.msi(4), Err(BusError::Vector));
    assert_eq!(bus.msix(2_047), Ok(()));
    assert_eq!(bus.msix(2_048), Err(BusError::Vector));
}

#[test]
fn right_may_go_to_another_thread() {
    fn check<T: Clone + Send + Sync + 'static>() {}

    check::<BusMaster>();
    check::<DeviceHandle>();
}
