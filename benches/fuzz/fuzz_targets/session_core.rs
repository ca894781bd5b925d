//! Both halves of a session with a wire between them: any order of accesses, DMA, interrupts, resets and deliveries, and any bytes
//! on the wire.
//!
//! As long as nobody lies, each access is applied once and in order, reads see what was written, DMA arrives whole and before the
//! interrupt behind it: also when paths are cut with all that is on them, frames garbled, and batches refused for their age. Whatever arrives: nothing panics, and a half
//! that complains is over, or its path is.

#![no_main]

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use potemkin_pci::{BarIndex, Space, Width};
use potemkin_proto::{
    check::{self, CHECK_BYTES},
    v1,
};
use potemkin_session::{
    access::{Access, Extent, Location, Operation, Payload, Posting, Status, Vector},
    front::{Front, FrontConfig, FrontEvent, FrontState, Refused, Revocation},
    host::{Host, Opening, Work},
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};
use prost::Message;

const REGISTERS: usize = 256;

#[derive(Debug, Arbitrary)]
struct Input {
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Read(Place),
    Write {
        place: Place,
        posted: bool,
        fill: u8,
    },
    Reset,
    Revoke {
        unmapped: bool,
    },
    Push,
    /// Frames that wait, oldest first.
    DeliverForward,
    DeliverReverse,
    Work,
    DmaWrite {
        address: u16,
        length: u16,
    },
    DmaRead {
        address: u16,
        length: u16,
    },
    Interrupt {
        msix: bool,
        vector: u8,
        times: u16,
    },
    Intx(bool),
    Time {
        milliseconds: u16,
    },
    /// The path is lost at both ends.
    Cut,
    /// The agent dials anew, and what was on the older path is lost.
    Dial,
    /// A path garbles a frame; a liar makes its check right again, and from there on the wire is not to be trusted.
    Spoil {
        forward: bool,
        at: u16,
        flip: u8,
        lie: bool,
    },
    Inject {
        forward: bool,
        bytes: Vec<u8>,
    },
    Craft {
        forward: bool,
        batch: Items,
        ahead: i8,
        counts: [u8; 4],
    },
}

#[derive(Debug, Arbitrary)]
struct Place {
    offset: u8,
    width: u8,
    count: u8,
    fixed: bool,
}

#[derive(Debug, Arbitrary)]
struct Items {
    ops: Vec<u8>,
    args: Vec<u64>,
    data: Vec<u8>,
}

impl Place {
    fn get(&self) -> (Location, Extent) {
        let width = Width::ALL[usize::from(self.width % 4)];
        let extent = match self.count % 16 {
            0 => Extent::Single,
            count if self.fixed => Extent::Fixed(count.into()),
            count => Extent::Consecutive(count.into()),
        };
        // Stays inside: 15 elements of 8 bytes.
        let offset = u64::from(self.offset) % (REGISTERS as u64 - 120);
        let space = Space::Bar(BarIndex::B0);
        let at = Location {
            space,
            offset,
            width,
        };
        (at, extent)
    }
}

/// Registers that are memory.
#[derive(Clone)]
struct Device([u8; REGISTERS]);

impl Device {
    fn read(&self, at: Location, extent: Extent) -> Vec<u8> {
        self.places(at, extent).map(|at| self.0[at]).collect()
    }

    fn write(&mut self, at: Location, extent: Extent, data: &[u8]) {
        let places: Vec<_> = self.places(at, extent).collect();
        for (place, byte) in places.into_iter().zip(data) {
            self.0[place] = *byte;
        }
    }

    fn places(&self, at: Location, extent: Extent) -> impl Iterator<Item = usize> + use<> {
        let (width, start) = (at.width.bytes(), at.offset as usize);
        (0..extent.count() * width).map(move |byte| match extent {
            Extent::Fixed(_) => start + byte % width,
            _ => start + byte,
        })
    }
}

struct World {
    now: Instant,
    front: Front,
    host: Host,
    forward: VecDeque<Bytes>,
    reverse: VecDeque<Bytes>,
    device: Device,
    /// The device as the guest's accesses in order leave it.
    model: Device,
    /// What reads and non-posted writes have to give, oldest first.
    expected: VecDeque<(u64, Vec<u8>)>,
    started: Started,
    honest: bool,
    begun: Instant,
}

/// What the device started, and what came of it. Its DMA writes are one stream of numbered bytes.
#[derive(Default)]
struct Started {
    written: u64,
    arrived: u64,
    /// By vector: bytes written before it was last raised.
    raised: BTreeMap<Vector, u64>,
    /// By vector: bytes that had arrived when it last fired.
    fired: BTreeMap<Vector, u64>,
    /// The level of INTx, and the bytes written before it changed.
    level: (bool, u64),
    /// As the agent knows it, and the bytes that had arrived then.
    shown: (bool, u64),
    /// A reset, or bus mastering turned off, may have ended any of it; only the level stays.
    void: bool,
}

impl Started {
    fn write(&mut self, length: usize) -> Vec<u8> {
        let first = self.written;
        self.written += length as u64;
        (first..self.written).map(|n| n as u8).collect()
    }

    fn raise(&mut self, vector: Vector) {
        self.raised.insert(vector, self.written);
    }

    fn set_intx(&mut self, level: bool) {
        if self.level.0 != level {
            self.level = (level, self.written);
        }
    }

    fn arrived(&mut self, data: &[u8]) {
        let first = self.arrived;
        self.arrived += data.len() as u64;
        let right = data.iter().zip(first..).all(|(&byte, n)| byte == n as u8);
        assert!(self.void || right, "whole and in order");
    }

    fn fired(&mut self, vector: Vector) {
        self.fired.insert(vector, self.arrived);
    }

    fn shown(&mut self, level: bool) {
        // The same again is news, too: it may have been low in between.
        self.shown = (level, self.arrived);
    }

    fn check(&self) {
        assert_eq!(self.shown.0, self.level.0, "the last level");
        if self.void {
            return;
        }
        assert_eq!(self.arrived, self.written);
        assert!(
            !self.level.0 || self.shown.1 >= self.level.1,
            "behind the data"
        );
        for (vector, before) in &self.raised {
            let fired = self.fired.get(vector);
            assert!(
                fired.is_some_and(|fired| fired >= before),
                "{vector:?} comes, behind the data"
            );
        }
    }
}

fn path() -> Path {
    Path {
        session: SessionId::from_halves(1, 2),
        epoch: Epoch(3),
        attach_number: AttachNumber(1),
    }
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let incarnation = Incarnation::from_bytes([9; 16]);
        let config = FrontConfig {
            path: path(),
            host_incarnation: incarnation,
            deadline: Duration::from_secs(1),
        };
        let mut front = Front::new(config, now);
        let open = front.poll_transmit(now).expect("it opens");
        let opening = Opening::decode(open).expect("its own open");
        let host = Host::accept(&opening, incarnation, 1).expect("a first dial");
        Self {
            now,
            front,
            host,
            forward: VecDeque::new(),
            reverse: VecDeque::new(),
            device: Device([0; REGISTERS]),
            model: Device([0; REGISTERS]),
            expected: VecDeque::new(),
            started: Started::default(),
            honest: true,
            begun: now,
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Read(place) => self.read(place),
            Step::Write {
                place,
                posted,
                fill,
            } => self.write(place, *posted, *fill),
            Step::Reset => {
                self.front.reset(self.now);
                self.started.void = true;
            }
            Step::Revoke { unmapped } => {
                let why = if *unmapped {
                    Revocation::Unmapped
                } else {
                    Revocation::BusMasterOff
                };
                self.front.revoke(self.now, why);
                self.started.void |= !unmapped;
            }
            Step::Push => self.front.push(),
            Step::DeliverForward => self.deliver_forward(),
            Step::DeliverReverse => self.deliver_reverse(),
            Step::Work => self.work(),
            Step::DmaWrite { address, length } => self.dma(*address, *length, true),
            Step::DmaRead { address, length } => self.dma(*address, *length, false),
            Step::Interrupt {
                msix,
                vector,
                times,
            } => {
                let vector = u16::from(*vector);
                let vector = if *msix {
                    Vector::Msix(vector)
                } else {
                    Vector::Msi(vector)
                };
                for _ in 0..=times % 300 {
                    self.host.raise(self.host.generations().newest, vector);
                }
                self.started.raise(vector);
            }
            Step::Intx(level) => {
                self.host.set_intx(*level);
                self.started.set_intx(*level);
            }
            Step::Time { milliseconds } => {
                self.now += Duration::from_millis((*milliseconds).into());
                self.front.handle_timeout(self.now);
            }
            Step::Cut => self.cut(),
            Step::Dial => self.dial(),
            Step::Spoil {
                forward,
                at,
                flip,
                lie,
            } => self.spoil(*forward, *at, *flip, *lie),
            Step::Inject { forward, bytes } => self.inject(*forward, bytes.clone().into()),
            Step::Craft {
                forward,
                batch,
                ahead,
                counts,
            } => {
                let frame = self.craft(*forward, batch, *ahead, *counts);
                self.inject(*forward, frame);
            }
        }
        self.hear();
    }

    fn read(&mut self, place: &Place) {
        let (at, extent) = place.get();
        match self.front.read(self.now, at, extent) {
            Ok(sequence) => {
                let expected = self.model.read(at, extent);
                self.expected.push_back((sequence, expected));
            }
            Err(refused) => self.refused(refused),
        }
    }

    fn write(&mut self, place: &Place, posted: bool, fill: u8) {
        let (at, extent) = place.get();
        let data: Vec<_> = (0..at.width.bytes() * extent.count())
            .map(|n| fill.wrapping_add(n as u8))
            .collect();
        let posting = if posted {
            Posting::Posted
        } else {
            Posting::NonPosted
        };
        match self.front.write(self.now, at, extent, posting, &data) {
            Ok(sequence) => {
                self.model.write(at, extent, &data);
                if !posted {
                    self.expected.push_back((sequence, Vec::new()));
                }
            }
            Err(refused) => self.refused(refused),
        }
    }

    fn refused(&self, refused: Refused) {
        match refused {
            Refused::NotLive => assert!(!self.front.is_live()),
            Refused::Size => panic!("every access here has a size"),
            Refused::NoCredit | Refused::Resetting => assert!(self.front.is_live()),
        }
    }

    fn dma(&mut self, address: u16, length: u16, write: bool) {
        let length = usize::from(length).max(1);
        if self.host.is_closed() || self.host.dma_backlog() > 1 << 20 {
            return;
        }
        let generation = self.host.generations().newest;
        let address = u64::from(address);
        if write {
            let data = self.started.write(length);
            self.host.dma_write(generation, address, data.into());
        } else {
            self.host.dma_read(generation, address, length, 7);
        }
        self.transmit();
    }

    fn work(&mut self) {
        while let Some(work) = self.host.next_work() {
            let Work::Access(access) = work else {
                self.host.complete(Status::Ok, &[]);
                continue;
            };
            let answer = self.execute(&access);
            match answer {
                Some(answer) => self.host.complete(Status::Ok, &answer),
                None => self.host.complete(Status::DeviceError, &[]),
            }
        }
        self.transmit();
    }

    /// None where nothing is: a crafted frame may ask for anything.
    fn execute(&mut self, access: &Access) -> Option<Vec<u8>> {
        let end = access.at.offset.checked_add(access.bytes() as u64)?;
        if access.at.space != Space::Bar(BarIndex::B0) || end > REGISTERS as u64 {
            assert!(!self.honest);
            return None;
        }
        match &access.operation {
            Operation::Read => Some(self.device.read(access.at, access.extent)),
            Operation::Write(_, payload) => {
                let data = match payload {
                    Payload::Value(value) => {
                        value.to_le_bytes()[..access.at.width.bytes()].to_vec()
                    }
                    Payload::Block(data) => data.to_vec(),
                };
                self.device.write(access.at, access.extent, &data);
                Some(Vec::new())
            }
        }
    }

    fn transmit(&mut self) {
        while let Some(frame) = self.front.poll_transmit(self.now) {
            self.forward.push_back(frame);
        }
        while let Some(frame) = self.host.poll_transmit() {
            self.reverse.push_back(frame);
        }
    }

    fn deliver_forward(&mut self) {
        self.transmit();
        if let Some(frame) = self.forward.pop_front() {
            let beat = (self.now - self.begun).as_millis() as u64 + 1;
            self.host.set_beat(beat);
            let closes = self.front_is_over();
            let outcome = self.host.handle_frame(frame);
            if outcome.is_err() {
                let path_only = !self.host.is_closed() && !self.host.is_connected();
                assert!(path_only || !self.honest || closes, "{outcome:?}");
                assert!(path_only || self.host.is_closed());
            }
        }
    }

    fn deliver_reverse(&mut self) {
        self.transmit();
        if let Some(frame) = self.reverse.pop_front() {
            let outcome = self.front.handle_frame(frame);
            if outcome.is_err() {
                let path_only = self.front.state() == FrontState::Interrupted;
                assert!(path_only || !self.honest, "{outcome:?}");
                assert!(path_only || self.front_is_over());
            }
        }
    }

    fn cut(&mut self) {
        self.forward.clear();
        self.reverse.clear();
        self.front.handle_lost("cut");
        self.host.suspend();
    }

    fn dial(&mut self) {
        self.cut();
        if self.front_is_over() || self.host.is_closed() {
            return;
        }
        self.front.dial(self.now);
        let open = self.front.poll_transmit(self.now).expect("it opens");
        let opening = Opening::decode(open).expect("its own open");
        let beat = (self.now - self.begun).as_millis() as u64 + 1;
        let resumed = self.host.resume(&opening, beat);
        assert!(resumed.is_ok() || !self.honest, "{resumed:?}");
    }

    fn front_is_over(&self) -> bool {
        matches!(
            self.front.state(),
            FrontState::Contained | FrontState::Closed
        )
    }

    /// What happened at the front.
    fn hear(&mut self) {
        while let Some(event) = self.front.poll_event() {
            match event {
                FrontEvent::Completed { sequence, outcome } => {
                    let (asked, expected) = self.expected.pop_front().expect("it was asked for");
                    assert_eq!(sequence, asked, "in order");
                    if let Ok(data) = outcome
                        && self.honest
                    {
                        assert_eq!(data, expected);
                    }
                }
                FrontEvent::DmaWrite(write) => {
                    if self.honest {
                        self.started.arrived(&write.data);
                    }
                    self.front.dma_written(&write, Ok(()));
                }
                FrontEvent::Interrupt { vector, .. } => self.started.fired(vector),
                FrontEvent::Intx(level) => self.started.shown(level),
                FrontEvent::DmaRead(read) => {
                    let data = vec![0xa5; read.length].into();
                    self.front.answer_dma_read(self.now, &read, Ok(data));
                }
                FrontEvent::Contained(_) => assert!(self.expected.is_empty(), "all were failed"),
                _ => {}
            }
        }
    }

    fn spoil(&mut self, forward: bool, at: u16, flip: u8, lie: bool) {
        self.transmit();
        let queue = if forward {
            &mut self.forward
        } else {
            &mut self.reverse
        };
        let Some(frame) = queue.front_mut().filter(|frame| !frame.is_empty()) else {
            return;
        };
        let mut bytes = frame.to_vec();
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= flip;
        if lie && flip != 0 {
            self.honest = false;
            bytes.truncate(bytes.len().saturating_sub(CHECK_BYTES));
            check::append(&mut bytes);
        }
        *frame = bytes.into();
    }

    fn inject(&mut self, forward: bool, frame: Bytes) {
        self.honest = false;
        if forward {
            self.forward.push_front(frame);
        } else {
            self.reverse.push_front(frame);
        }
    }

    /// A frame of this session whose header is right but for what the input says.
    fn craft(&mut self, forward: bool, items: &Items, ahead: i8, counts: [u8; 4]) -> Bytes {
        let path = self.front.path();
        let (session_hi, session_lo) = path.session.halves();
        let next = if forward {
            self.front.acknowledged() + 1
        } else {
            1
        };
        let [a, b, c, d] = counts.map(u32::from);
        let mut header = v1::FrameHeader {
            session_hi,
            session_lo,
            epoch: path.epoch.0,
            attach_number: path.attach_number.0,
            first_sequence: next.wrapping_add_signed(ahead.into()),
            ..v1::FrameHeader::default()
        };
        if forward {
            (header.posted, header.non_posted, header.events) = (a, b, c);
        } else {
            (header.completions, header.dma_writes) = (a, b);
            (header.dma_reads, header.interrupts) = (c, d);
        }
        let batch = v1::Batch {
            ops: items.ops.clone().into(),
            args: items.args.clone(),
            data: items.data.clone().into(),
        };
        let frame = v1::Frame {
            header: Some(header),
            batch: Some(batch),
            ..v1::Frame::default()
        };
        let mut bytes = frame.encode_to_vec();
        check::append(&mut bytes);
        bytes.into()
    }

    /// Everything moves until nothing moves: then all is answered, and the device is what the accesses in order make of it.
    fn settle(&mut self) {
        // Each round moves all that is there; no honest run needs more than a few.
        for _ in 0..1_000 {
            if self.front.state() == FrontState::Interrupted || !self.host.is_connected() {
                self.dial();
            }
            self.work();
            self.hear();
            self.transmit();
            if self.forward.is_empty() && self.reverse.is_empty() {
                break;
            }
            while !self.forward.is_empty() {
                self.deliver_forward();
                self.work();
            }
            while !self.reverse.is_empty() {
                self.deliver_reverse();
                self.hear();
            }
        }
        if self.honest && !self.front_is_over() {
            assert!(
                self.forward.is_empty() && self.reverse.is_empty(),
                "it ends"
            );
            assert!(self.expected.is_empty(), "all is answered");
            assert_eq!(self.device.0, self.model.0);
            assert_eq!(self.front.acknowledged(), self.front.last_sequence());
            self.started.check();
        }
    }
}

fuzz_target!(|input: Input| {
    let mut world = World::new();
    world.deliver_reverse();
    world.hear();
    for step in &input.steps {
        world.take(step);
    }
    world.settle();
});
