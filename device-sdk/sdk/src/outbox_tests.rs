#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::DeviceHandle;
use crate::bus_master::BusMaster;
use crate::hosting::HostEnd;

const PINS: Interrupts = Interrupts {
    intx_pin: 1,
    msi_vectors: 2,
    msix_vectors: 3,
};

#[derive(Clone, Default)]
struct Rung(Arc<AtomicUsize>);

impl Wake for Rung {
    fn wake(&self) {}

    fn wake_bus(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An outbox that is open, and the device's side of it.
fn open() -> (DeviceHandle, Outbox, Rung) {
    let rung = Rung::default();
    let (handle, HostEnd { mut outbox, .. }) = DeviceHandle::new(rung.clone(), PINS);
    outbox.open(Generations::default());
    (handle, outbox, rung)
}

fn msi(generation: u64, n: u16) -> Action {
    let vector = Vector::Msi(n);
    Action::Interrupt { generation, vector }
}

fn fill(bus: &BusMaster) {
    while bus.write(0, vec![0; 4096]).is_ok() {}
}

#[test]
fn what_was_started_is_given_out_in_order_once() {
    let (handle, mut outbox, _) = open();
    let bus = handle.bus_master();

    bus.write(0x1000, vec![1, 2]).unwrap();
    bus.msi(1).unwrap();
    bus.read(0x2000, 7, 9).unwrap();
    handle.set_intx(true);

    let expected = [
        Action::DmaWrite {
            generation: 0,
            address: 0x1000,
            data: Bytes::from_static(&[1, 2]),
        },
        msi(0, 1),
        Action::DmaRead {
            generation: 0,
            address: 0x2000,
            length: 7,
            tag: 9,
        },
        Action::Intx(true),
    ];
    assert_eq!(outbox.take(), expected);
    assert_eq!(outbox.take(), []);
}

#[test]
fn host_is_woken_once_for_what_waits() {
    let (handle, mut outbox, rung) = open();
    let bus = handle.bus_master();

    bus.msi(0).unwrap();
    bus.msi(1).unwrap();
    assert_eq!(rung.0.load(Ordering::Relaxed), 1);
    assert_eq!(outbox.take().len(), 2);
    bus.msi(0).unwrap();

    assert_eq!(rung.0.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_goes_into_a_closed_outbox() {
    let (handle, HostEnd { mut outbox, .. }) = DeviceHandle::new(Rung::default(), PINS);
    let before = handle.bus_master();
    assert_eq!(before.msi(0), Err(BusError::Revoked));

    outbox.open(Generations::default());
    handle.set_intx(true);
    let during = handle.bus_master();
    during.msi(0).unwrap();
    outbox.close();
    handle.set_intx(true);
    let after = handle.bus_master();
    outbox.open(Generations::default());

    for bus in [before, during, after] {
        assert_eq!(bus.msi(0), Err(BusError::Revoked));
        assert_eq!(bus.write(0, vec![1]), Err(BusError::Revoked));
        assert_eq!(bus.read(0, 1, 1), Err(BusError::Revoked));
    }
    assert_eq!(outbox.take(), []);
}

#[test]
fn dropped_outbox_revokes() {
    let (handle, outbox, _) = open();
    let bus = handle.bus_master();

    drop(outbox);

    assert_eq!(bus.msi(0), Err(BusError::Revoked));
}

#[test]
fn floor_revokes_what_is_older_and_what_waited_is_given_out() {
    let (handle, mut outbox, _) = open();
    let first = handle.bus_master();
    outbox.set_generations(Generations {
        newest: 1,
        floor: 0,
    });
    let second = handle.bus_master();
    first.msi(0).unwrap();
    second.msi(1).unwrap();

    outbox.set_generations(Generations {
        newest: 2,
        floor: 2,
    });

    assert_eq!(first.msi(0), Err(BusError::Revoked));
    assert_eq!(second.msi(0), Err(BusError::Revoked));
    handle.bus_master().msi(0).unwrap();
    assert_eq!(outbox.take(), [msi(0, 0), msi(1, 1), msi(2, 0)]);
}

#[test]
fn level_that_does_not_change_is_not_told_again_before_a_reset() {
    let (handle, mut outbox, _) = open();

    handle.set_intx(false);
    handle.set_intx(true);
    handle.set_intx(true);
    assert_eq!(outbox.take(), [Action::Intx(true)]);
    outbox.close();
    outbox.open(Generations::default());
    handle.set_intx(true);

    assert_eq!(outbox.take(), [Action::Intx(true)]);
}

#[test]
fn level_without_a_pin_is_ignored() {
    let (handle, HostEnd { mut outbox, .. }) =
        DeviceHandle::new(Rung::default(), Interrupts::default());
    outbox.open(Generations::default());

    handle.set_intx(true);

    assert_eq!(outbox.take(), []);
}

#[test]
fn flood_of_interrupts_coalesces_and_keeps_the_last_level() {
    let (handle, mut outbox, _) = open();
    let bus = handle.bus_master();

    for _ in 0..10_000 {
        bus.msi(0).unwrap();
        handle.set_intx(true);
        bus.msix(2).unwrap();
        handle.set_intx(false);
    }
    handle.set_intx(true);

    let actions = outbox.take();
    assert_eq!(actions.len(), INTERRUPTS_MAX + 3);
    let vector = Vector::Msix(2);
    let late = Action::Interrupt {
        generation: 0,
        vector,
    };
    assert_eq!(
        actions[INTERRUPTS_MAX..],
        [msi(0, 0), late, Action::Intx(true)]
    );
}

#[test]
fn backlog_is_bounded_and_room_is_told_once() {
    let (handle, mut outbox, _) = open();
    let bus = handle.bus_master();
    assert!(!outbox.take_ready());

    fill(&bus);
    assert_eq!(bus.read(0, 4096, 0), Err(BusError::Full));
    assert!(!outbox.take_ready());
    let taken = outbox.take();
    assert_eq!(taken.len(), BACKLOG_BYTES_MAX / (4096 + TRANSFER_COST));
    assert_eq!(bus.write(0, vec![0; 4096]), Err(BusError::Full));
    assert!(!outbox.take_ready());
    outbox.set_under_way(BACKLOG_BYTES_MAX / 2);

    assert!(outbox.take_ready());
    assert!(!outbox.take_ready());
    bus.write(0, vec![0; 4096]).unwrap();
}

#[test]
fn backlog_of_short_transfers_is_bounded() {
    let (handle, _outbox, _) = open();
    let bus = handle.bus_master();

    let taken = (0..BACKLOG_BYTES_MAX)
        .take_while(|_| bus.write(0, vec![1]).is_ok())
        .count();

    assert_eq!(taken, BACKLOG_BYTES_MAX / (1 + TRANSFER_COST));
}

#[test]
fn long_transfer_goes_when_nothing_else_is_under_way() {
    let (handle, mut outbox, _) = open();
    let bus = handle.bus_master();
    let long = BusMaster::TRANSFER_BYTES_MAX;

    bus.write(0, vec![1]).unwrap();
    assert_eq!(bus.read(0, long, 1), Err(BusError::Full));
    assert_eq!(outbox.take().len(), 1);
    assert!(!outbox.take_ready());
    outbox.set_under_way(0);
    assert!(outbox.take_ready());

    bus.read(0, long, 1).unwrap();
    assert_eq!(bus.write(0, vec![1]), Err(BusError::Full));
}

#[test]
fn interrupts_go_however_much_is_under_way() {
    let (handle, _outbox, _) = open();
    let bus = handle.bus_master();

    fill(&bus);

    assert_eq!(bus.msi(0), Ok(()));
}

#[test]
fn reset_forgets_the_backlog_and_that_it_was_full() {
    let (handle, mut outbox, _) = open();
    fill(&handle.bus_master());

    outbox.close();
    outbox.open(Generations::default());

    assert!(!outbox.take_ready());
    assert_eq!(outbox.take(), []);
    handle.bus_master().write(0, vec![0; 4096]).unwrap();
}
