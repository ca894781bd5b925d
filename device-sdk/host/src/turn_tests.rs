#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use potemkin_devices::Scratch;
use potemkin_sdk::hosting::{Generations, HostEnd, Wake};
use potemkin_sdk::{
    AccessError, Bar, BarIndex, BusError, BusMaster, Capability, Descriptor, DescriptorBuilder,
    Device, DeviceHandle, Register, Space, Width,
};
use potemkin_session::access::{Extent, Location, Operation, Posting, Vector};
use potemkin_session::front::{Front, FrontConfig, FrontEvent, Revocation};
use potemkin_session::host::Opening;
use potemkin_session::ids::{AttachNumber, Epoch, Incarnation, Path, SessionId};

use super::*;

const INCARNATION: Incarnation = Incarnation::from_bytes([7; 16]);

/// Both ends of a session that the host has accepted.
fn session() -> (Front, Host) {
    let config = FrontConfig {
        path: Path {
            session: SessionId::from_bytes([0xaa; 16]),
            epoch: Epoch(1),
            attach_number: AttachNumber(1),
        },
        host_incarnation: INCARNATION,
        deadline: Duration::from_secs(1),
    };
    let mut front = Front::new(config, Instant::now());
    let open = front.poll_transmit(Instant::now()).unwrap();
    let opening = Opening::decode(open).unwrap();
    let mut host = Host::accept(&opening, INCARNATION, 1).unwrap();
    front.handle_frame(host.poll_transmit().unwrap()).unwrap();
    (front, host)
}

struct Silent;

impl Wake for Silent {
    fn wake(&self) {}
}

/// A session with a device at its end, and what is between them moved by hand.
struct Scene {
    front: Front,
    core: Host,
    device: Guarded,
    outbox: Outbox,
    handle: DeviceHandle,
}

impl Scene {
    fn new(device: impl Device + 'static) -> Self {
        let (front, core) = session();
        let descriptor = device.descriptor().clone();
        let mut device = Guarded::new("dev-0", Box::new(device), &descriptor);
        let (handle, end) = DeviceHandle::new(Silent, descriptor.interrupts());
        let HostEnd { mut outbox, .. } = end;
        device.attached(handle.clone());
        outbox.open(Generations::default());
        Self {
            front,
            core,
            device,
            outbox,
            handle,
        }
    }

    fn write(&mut self) {
        let now = Instant::now();
        self.front
            .write(now, at(0), Extent::Single, Posting::Posted, &[1; 4])
            .unwrap();
    }

    fn read(&mut self) -> u64 {
        let now = Instant::now();
        self.front.read(now, at(0), Extent::Single).unwrap()
    }

    /// What the agent has sent is in the core.
    fn deliver(&mut self) {
        self.front.push();
        while let Some(frame) = self.front.poll_transmit(Instant::now()) {
            self.core.handle_frame(frame).unwrap();
        }
    }

    fn turn(&mut self) -> Tally {
        take_turn(&mut self.core, &mut self.device, &mut self.outbox)
    }

    /// Delivers what was sent, lets the device work, and gives what comes of it at the agent.
    fn step(&mut self) -> (Tally, Vec<FrontEvent>) {
        self.deliver();
        let tally = self.turn();
        while let Some(frame) = self.core.poll_transmit() {
            self.front.handle_frame(frame).unwrap();
        }
        let events = std::iter::from_fn(|| self.front.poll_event());
        let opened = |event: &FrontEvent| matches!(event, FrontEvent::Opened);
        (tally, events.filter(|event| !opened(event)).collect())
    }

    fn bus(&self) -> BusMaster {
        self.handle.bus_master()
    }
}

fn at(offset: u64) -> Location {
    Location {
        space: Space::Bar(BarIndex::B0),
        offset,
        width: Width::B4,
    }
}

/// What a device was told, in order.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Read(u64, Result<Vec<u8>, potemkin_sdk::DmaError>),
    WriteFailed(potemkin_sdk::DmaError),
    BusMasterOff,
    Ready,
    Reset,
}

type Diary = Arc<Mutex<Vec<Told>>>;

/// Does `act` in each access.
struct Actor {
    descriptor: Descriptor,
    handle: Option<DeviceHandle>,
    act: fn(&DeviceHandle),
    told: Diary,
}

impl Actor {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    fn act(&self) {
        (self.act)(self.handle.as_ref().unwrap());
    }
}

fn actor(act: fn(&DeviceHandle)) -> (Scene, Diary) {
    let told = Diary::default();
    let descriptor = DescriptorBuilder::new(0x1234, 0x0001)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .intx_pin(1)
        .capability(Capability::msi(4, false).unwrap())
        .build()
        .unwrap();
    let device = Actor {
        descriptor,
        handle: None,
        act,
        told: Arc::clone(&told),
    };
    (Scene::new(device), told)
}

/// An actor that does nothing in accesses.
fn idler() -> (Scene, Diary) {
    actor(|_| {})
}

fn take(told: &Diary) -> Vec<Told> {
    std::mem::take(&mut *told.lock().unwrap())
}

impl Device for Actor {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn read(&mut self, _: Register) -> Result<u64, AccessError> {
        self.act();
        Ok(5)
    }

    fn write(&mut self, _: Register, _: u64) -> Result<(), AccessError> {
        self.act();
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) {
        // All of it void: it comes too early.
        self.act();
        self.note(Told::Reset);
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.handle = Some(handle);
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], potemkin_sdk::DmaError>) {
        self.note(Told::Read(tag, outcome.map(<[u8]>::to_vec)));
    }

    fn dma_write_failed(&mut self, error: potemkin_sdk::DmaError) {
        self.note(Told::WriteFailed(error));
    }

    fn bus_master_off(&mut self) {
        self.note(Told::BusMasterOff);
    }

    fn dma_ready(&mut self) {
        self.note(Told::Ready);
    }
}

#[test]
fn flood_is_executed_turn_by_turn() {
    let mut scene = Scene::new(Scratch::new(64).unwrap());
    for _ in 0..TURN_MAX + 3 {
        scene.write();
    }
    scene.deliver();

    let first = scene.turn();
    let second = scene.turn();
    let third = scene.turn();

    assert_eq!((first.posted_writes, first.more), (TURN_MAX as u64, true));
    assert_eq!((second.posted_writes, second.more), (3, false));
    assert!(third.is_empty() && !third.more);
}

#[test]
fn reset_is_counted_and_reaches_the_device_in_order() {
    let mut scene = Scene::new(Scratch::new(64).unwrap());
    scene.write();
    scene.front.reset(Instant::now());
    scene.deliver();

    let tally = scene.turn();

    assert_eq!((tally.posted_writes, tally.resets), (1, 1));
    let counters = Location {
        space: Space::Bar(BarIndex::B2),
        ..at(4)
    };
    let read = Access {
        at: counters,
        extent: Extent::Single,
        operation: Operation::Read,
    };
    assert_eq!(scene.device.execute(&read), crate::guarded::Outcome::Done);
    assert_eq!(scene.device.answer(), &[0; 4]);
}

#[test]
fn what_a_callback_does_arrives_before_the_completion_in_order() {
    let (mut scene, _) = actor(|handle| {
        let bus = handle.bus_master();
        bus.write(0x1000, vec![1, 2, 3]).unwrap();
        bus.msi(2).unwrap();
        handle.set_intx(true);
    });
    let sequence = scene.read();

    let (tally, events) = scene.step();

    let [
        FrontEvent::DmaWrite(write),
        FrontEvent::Interrupt { generation, vector },
        FrontEvent::Intx(true),
        FrontEvent::Completed {
            sequence: answered,
            outcome,
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((write.generation, write.address), (0, 0x1000));
    assert_eq!(&write.data[..], [1, 2, 3]);
    assert_eq!((*generation, *vector), (0, Vector::Msi(2)));
    assert_eq!(*answered, sequence);
    assert_eq!(outcome.as_deref(), Ok(&[5, 0, 0, 0][..]));
    let traffic = tally.traffic;
    assert_eq!(
        (traffic.written_bytes, traffic.msi, traffic.intx),
        (3, 1, 1)
    );
}

#[test]
fn what_a_thread_started_goes_with_the_next_turn() {
    let (mut scene, _) = idler();
    scene.step();
    let bus = scene.bus();

    std::thread::spawn(move || bus.msi(1))
        .join()
        .unwrap()
        .unwrap();
    let (tally, events) = scene.step();

    assert!(!tally.is_empty());
    let expected = FrontEvent::Interrupt {
        generation: 0,
        vector: Vector::Msi(1),
    };
    assert_eq!(events, [expected]);
}

#[test]
fn long_dma_read_is_put_together_and_told_once() {
    let (mut scene, told) = idler();
    let length = 100_000;
    scene.bus().read(0x1000, length, 9).unwrap();

    let (_, events) = scene.step();
    for event in events {
        let FrontEvent::DmaRead(read) = event else {
            panic!("{event:?}");
        };
        let byte = read.address.to_le_bytes()[1];
        let data = Bytes::from(vec![byte; read.length]);
        scene.front.answer_dma_read(Instant::now(), &read, Ok(data));
    }
    let (tally, _) = scene.step();

    let [Told::Read(9, Ok(data))] = &take(&told)[..] else {
        panic!("one answer");
    };
    assert_eq!((data.len(), data[0]), (length, 0x10));
    assert_eq!((tally.dma_reads, tally.traffic.read_bytes), (1, 100_000));
}

#[test]
fn reset_cancels_what_was_under_way_and_what_waits() {
    let (mut scene, told) = actor(|handle| {
        let _ = handle.bus_master().write(0, vec![1]);
        handle.set_intx(true);
    });
    scene.write();
    scene.bus().read(0x1000, 4, 1).unwrap();
    let (_, events) = scene.step();
    assert_eq!(events.len(), 3, "{events:?}");
    let under_way = events.into_iter().find_map(|event| match event {
        FrontEvent::DmaWrite(write) => Some(write),
        _ => None,
    });
    let before = scene.bus();
    before.read(0x1000, 4, 2).unwrap();
    before.write(0x1000, vec![1]).unwrap();
    before.msi(0).unwrap();

    let generation = scene.front.reset(Instant::now());
    let refused = Err(potemkin_session::access::DmaError::Disabled);
    scene.front.dma_written(&under_way.unwrap(), refused);
    scene.deliver();
    // Reaches the core before the reset's turn, and is void then.
    let (_, events) = scene.step();

    // The level of after the reset. Of what failed before it the device hears nothing.
    assert_eq!(events, [FrontEvent::Intx(false)]);
    assert_eq!(before.write(0, vec![1]), Err(BusError::Revoked));
    assert_eq!(take(&told), [Told::Reset]);
    scene.bus().write(0x2000, vec![1]).unwrap();
    let (_, events) = scene.step();
    let [FrontEvent::DmaWrite(write)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((write.generation, write.address), (generation, 0x2000));
    assert_eq!(take(&told), []);
}

#[test]
fn bus_master_off_ends_reads_and_revokes() {
    let (mut scene, told) = idler();
    scene.step();
    let before = scene.bus();
    let generation = scene.front.revoke(Instant::now(), Revocation::BusMasterOff);
    before.read(0x1000, 4, 1).unwrap();

    let (tally, events) = scene.step();
    // Passed to the core before it heard, and sent never.
    let (_, late) = scene.step();

    assert_eq!(tally.bus_master_offs, 1);
    assert_eq!((events, late), (vec![], vec![]));
    assert_eq!(
        take(&told),
        [
            Told::BusMasterOff,
            Told::Read(1, Err(potemkin_sdk::DmaError::Disabled)),
        ]
    );
    assert_eq!(before.msi(0), Err(BusError::Revoked));
    scene.bus().msi(0).unwrap();
    let (_, events) = scene.step();
    let vector = Vector::Msi(0);
    assert_eq!(events, [FrontEvent::Interrupt { generation, vector }]);
}

#[test]
fn unmapped_window_makes_newer_work_of_a_newer_generation() {
    let (mut scene, _) = actor(|handle| handle.bus_master().msi(1).unwrap());
    scene.step();
    let before = scene.bus();
    let generation = scene.front.revoke(Instant::now(), Revocation::Unmapped);
    scene.write();

    scene.deliver();
    scene.turn();
    before.msi(0).unwrap();
    let (_, events) = scene.step();

    let interrupt = |generation, n| FrontEvent::Interrupt {
        generation,
        vector: Vector::Msi(n),
    };
    assert_eq!(events, [interrupt(generation, 1), interrupt(0, 0)]);
}

#[test]
fn failed_write_is_told_and_counted() {
    let (mut scene, told) = idler();
    scene.bus().write(0x1000, vec![1]).unwrap();
    let (_, events) = scene.step();
    let [FrontEvent::DmaWrite(write)] = &events[..] else {
        panic!("{events:?}");
    };

    scene.front.dma_written(write, Err(DmaError::Range));
    // The report goes with the next access.
    scene.write();
    let (mut tally, _) = scene.step();
    if tally.traffic.failures().next().is_none() {
        tally = scene.step().0;
    }

    assert_eq!(
        tally.traffic.failures().collect::<Vec<_>>(),
        [(DmaError::Range, 1)]
    );
    assert_eq!(
        take(&told),
        [Told::WriteFailed(potemkin_sdk::DmaError::Range)]
    );
}

#[test]
fn full_device_is_told_when_the_agent_has_made_room() {
    let (mut scene, told) = idler();
    let bus = scene.bus();
    while bus.write(0x1000, vec![1; 4096]).is_ok() {}
    assert_eq!(bus.write(0x1000, vec![1; 4096]), Err(BusError::Full));
    // The agent takes nothing yet: all its credit is used up.
    let (_, events) = scene.step();
    assert_eq!(take(&told), []);

    let mut waiting = events;
    while told.lock().unwrap().is_empty() {
        for event in waiting {
            let FrontEvent::DmaWrite(write) = event else {
                panic!("{event:?}");
            };
            scene.front.dma_written(&write, Ok(()));
        }
        waiting = scene.step().1;
    }

    assert_eq!(take(&told), [Told::Ready]);
    assert_eq!(bus.write(0x1000, vec![1; 4096]), Ok(()));
}

#[test]
fn device_that_panics_has_failed() {
    let (mut scene, _) = actor(|_| panic!("cursed"));
    scene.write();

    let (tally, _) = scene.step();

    assert!(tally.device_failed);
}
