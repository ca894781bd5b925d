#![allow(clippy::unwrap_used)]

use potemkin_devices::{Edu, Scratch};
use potemkin_sdk::testing::bar0;
use potemkin_sdk::{AccessError, BusError, BusMaster, Register, Width};
use potemkin_session::access::{Access, Extent, Location, Operation, Payload, Posting};

use potemkin_session::ids::AttachNumber;

use super::*;
use crate::guarded::Outcome;

const A: SessionId = SessionId::from_bytes([0xaa; 16]);
const B: SessionId = SessionId::from_bytes([0xbb; 16]);

fn served(device: impl Device + 'static) -> Served {
    Served::new(
        "dev-0".into(),
        "dev".into(),
        BTreeMap::new(),
        Box::new(device),
        Epoch(0),
    )
}

fn scratch() -> Served {
    served(Scratch::new(64).unwrap())
}

fn fence(served: &Served, epoch: u64, session: SessionId) {
    let order = FenceOrder {
        epoch: Epoch(epoch),
        session: Some(session),
    };
    served.shut(order).unwrap();
    served.open(order).unwrap();
}

fn path(epoch: u64, session: SessionId, attach: u32) -> Path {
    Path {
        session,
        epoch: Epoch(epoch),
        attach_number: AttachNumber(attach),
    }
}

/// A dial of a session that ends with its path.
fn admit(served: &Served, path: Path) -> Result<Admission, NotAdmitted> {
    let agent = "spiffe://potemkin.dev/agent/dev".parse().unwrap();
    let dial = Dial {
        path,
        agent: &agent,
        resumable: false,
        unfit: None,
    };
    match served.admit(dial)? {
        Seating::First(admission) => Ok(admission),
        again @ Seating::Again(_) => panic!("{again:?}"),
    }
}

fn access(offset: u64, operation: Operation) -> Access {
    let at = bar0(offset, Width::B4);
    Access {
        at: Location {
            space: at.space,
            offset,
            width: at.width,
        },
        extent: Extent::Single,
        operation,
    }
}

fn write(served: &Served, serial: u64, offset: u64, value: u64) -> Result<Outcome, Left> {
    let operation = Operation::Write(Posting::Posted, Payload::Value(value));
    served.with(serial, |device, _| {
        device.execute(&access(offset, operation))
    })
}

fn read(served: &Served, serial: u64, offset: u64) -> u32 {
    served
        .with(serial, |device, _| {
            device.execute(&access(offset, Operation::Read));
            u32::from_le_bytes(device.answer().try_into().unwrap())
        })
        .unwrap()
}

#[test]
fn fence_ends_the_older_session_and_resets_the_device() {
    let served = scratch();
    fence(&served, 1, A);
    let mut first = admit(&served, path(1, A, 1)).unwrap();
    write(&served, first.serial, 8, 5).unwrap();

    fence(&served, 2, B);

    assert_eq!(first.end.try_recv().unwrap().code, CloseCode::Superseded);
    assert_eq!(write(&served, first.serial, 8, 6), Err(Left));
    assert!(served.leave(first.serial, A));
    let second = admit(&served, path(2, B, 1)).unwrap();
    assert_eq!(read(&served, second.serial, 8), 0);
}

#[test]
fn repeated_fence_leaves_the_session_and_its_device_alone() {
    let served = scratch();
    fence(&served, 1, A);
    let mut admission = admit(&served, path(1, A, 1)).unwrap();
    write(&served, admission.serial, 8, 5).unwrap();

    fence(&served, 1, A);

    assert!(admission.end.try_recv().is_err());
    assert_eq!(read(&served, admission.serial, 8), 5);
}

#[test]
fn newer_attach_number_takes_over_and_older_ones_are_refused() {
    let served = scratch();
    fence(&served, 1, A);
    let mut first = admit(&served, path(1, A, 2)).unwrap();

    for attach in [1, 2] {
        let refused = admit(&served, path(1, A, attach)).unwrap_err();
        let old = matches!(refused, NotAdmitted::Gate(AdmitError::OldAttach { .. }));
        assert!(old, "{refused}");
    }
    let second = admit(&served, path(1, A, 3)).unwrap();

    assert_eq!(first.end.try_recv().unwrap().code, CloseCode::Superseded);
    assert!(!served.leave(first.serial, A));
    assert_eq!(write(&served, second.serial, 8, 5), Ok(Outcome::Done));
}

#[test]
fn session_that_left_is_not_admitted_again() {
    let served = scratch();
    fence(&served, 1, A);
    let admission = admit(&served, path(1, A, 1)).unwrap();

    assert!(served.leave(admission.serial, A));

    assert_eq!(
        admit(&served, path(1, A, 2)).unwrap_err(),
        NotAdmitted::Gate(AdmitError::Ended)
    );
}

#[test]
fn dismissed_session_is_told_why() {
    let served = scratch();
    fence(&served, 1, A);
    let mut admission = admit(&served, path(1, A, 1)).unwrap();
    let end = End {
        code: CloseCode::Normal,
        message: "stopping".into(),
    };

    served.dismiss(end.clone());

    assert_eq!(admission.end.try_recv(), Ok(end));
}

#[tokio::test]
async fn notification_reaches_the_device() {
    let served = Arc::new(served(Edu::new().unwrap()));
    fence(&served, 1, A);
    let admission = admit(&served, path(1, A, 1)).unwrap();
    let delivering = Arc::clone(&served);
    let task = tokio::spawn(async move { delivering.deliver_notifications().await });

    write(&served, admission.serial, 0x08, 6).unwrap();
    while read(&served, admission.serial, 0x20) != 0 {
        tokio::task::yield_now().await;
    }

    assert_eq!(read(&served, admission.serial, 0x08), 720);
    task.abort();
}

/// Gives its handle to the test.
struct Open(Scratch, Arc<Mutex<Option<DeviceHandle>>>);

impl Device for Open {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        self.0.read(at)
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        self.0.write(at, value)
    }

    fn reset(&mut self, kind: ResetKind) {
        self.0.reset(kind);
    }

    fn attached(&mut self, handle: DeviceHandle) {
        *self.1.lock().unwrap() = Some(handle);
    }
}

fn waiting(served: &Served, serial: u64) -> Result<usize, Left> {
    served.with(serial, |_, outbox| outbox.take().len())
}

#[test]
fn every_end_of_a_session_revokes_what_its_device_was_given() {
    type Ends = fn(&Served, u64);
    let ends: [Ends; 4] = [
        |served, _| fence(served, 2, B),
        |served, serial| assert!(served.leave(serial, A)),
        |served, _| drop(admit(served, path(1, A, 2)).unwrap()),
        |served, _| {
            served.dismiss(End {
                code: CloseCode::Normal,
                message: "stopping".into(),
            });
        },
    ];
    for end in ends {
        let handle = Arc::default();
        let served = served(Open(Scratch::new(64).unwrap(), Arc::clone(&handle)));
        let handle = handle.lock().unwrap().clone().unwrap();
        let write = |bus: &BusMaster| bus.write(0x1000, vec![1]);
        assert_eq!(write(&handle.bus_master()), Err(BusError::Revoked));
        fence(&served, 1, A);
        let admission = admit(&served, path(1, A, 1)).unwrap();
        let bus = handle.bus_master();
        write(&bus).unwrap();

        end(&served, admission.serial);

        assert_eq!(write(&bus), Err(BusError::Revoked));
        // Whoever comes next finds nothing, and the device may act for them.
        fence(&served, 3, B);
        let next = admit(&served, path(3, B, 1)).unwrap();
        assert_eq!(write(&bus), Err(BusError::Revoked));
        assert_eq!(waiting(&served, next.serial), Ok(0));
        write(&handle.bus_master()).unwrap();
        assert_eq!(waiting(&served, next.serial), Ok(1));
    }
}
