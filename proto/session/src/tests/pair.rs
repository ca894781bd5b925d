//! A front half and a host half with a wire between them that the test moves by hand, and a device of a few bytes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use potemkin_pci::{BarIndex, Space, Width};
use potemkin_proto::{check, v1::Frame};
use prost::Message;

use crate::{
    VERSION,
    access::{Access, Extent, Location, Operation, Payload, Posting, Status},
    front::{Failure, Front, FrontConfig, FrontEvent},
    host::{Host, Opening, Work},
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) front: Front,
    pub(crate) host: Host,
    /// Every write that the device applied, in order: offset and value.
    pub(crate) log: Vec<(u64, u64)>,
    pub(crate) resets: usize,
    /// Frames that crossed, forward and reverse.
    pub(crate) frames: (usize, usize),
}

pub(crate) fn path() -> Path {
    Path {
        session: SessionId::from_halves(0x0123, 0x4567),
        epoch: Epoch(7),
        attach_number: AttachNumber(1),
    }
}

pub(crate) fn incarnation() -> Incarnation {
    Incarnation::from_bytes([9; 16])
}

pub(crate) fn config() -> FrontConfig {
    FrontConfig {
        path: path(),
        host_incarnation: incarnation(),
        deadline: DEADLINE,
    }
}

pub(crate) fn at(offset: u64) -> Location {
    Location {
        space: Space::Bar(BarIndex::new(0).unwrap()),
        offset,
        width: Width::B4,
    }
}

/// A frame as a peer encodes it, with its check.
pub(crate) fn checked(frame: &Frame) -> Bytes {
    let mut bytes = frame.encode_to_vec();
    check::append(&mut bytes);
    bytes.into()
}

/// A host that accepted, with the frame that says so.
pub(crate) fn accepted() -> (Host, Bytes) {
    let mut front = Front::new(config(), Instant::now());
    let open = front.poll_transmit(Instant::now()).unwrap();
    let mut host = Host::accept(&Opening::decode(open).unwrap(), incarnation(), 1).unwrap();
    let accept = host.poll_transmit().unwrap();
    (host, accept)
}

impl Pair {
    /// A live session.
    pub(crate) fn live() -> Self {
        Self::live_with_version(VERSION)
    }

    /// A live session with a host that speaks no newer version.
    pub(crate) fn live_with_version(version: u32) -> Self {
        let now = Instant::now();
        let mut front = Front::new(config(), now);
        let open = front.poll_transmit(now).unwrap();
        let mut opening = Opening::decode(open).unwrap();
        opening.open.version_max = version;
        let mut host = Host::accept(&opening, incarnation(), 1).unwrap();
        front.handle_frame(host.poll_transmit().unwrap()).unwrap();
        assert_eq!(front.poll_event(), Some(FrontEvent::Opened));
        Self {
            now,
            front,
            host,
            log: Vec::new(),
            resets: 0,
            frames: (0, 0),
        }
    }

    /// The path is lost at both ends, with all that was on it.
    pub(crate) fn cut(&mut self) {
        self.front.handle_lost("cut");
        self.host.suspend();
    }

    /// The agent dials anew, and the host answers; the frames that it sends then.
    pub(crate) fn dial(&mut self) -> Vec<Bytes> {
        self.front.dial(self.now);
        let open = self.front.poll_transmit(self.now).unwrap();
        let opening = Opening::decode(open).unwrap();
        self.host.resume(&opening, 1).unwrap();
        std::iter::from_fn(|| self.host.poll_transmit()).collect()
    }

    /// A new path, and everything that goes over it; what happened at the front.
    pub(crate) fn reconnect(&mut self) -> Vec<FrontEvent> {
        for frame in self.dial() {
            self.front.handle_frame(frame).unwrap();
        }
        self.settle()
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.front
            .write(
                self.now,
                at(offset),
                Extent::Single,
                Posting::Posted,
                &value.to_le_bytes(),
            )
            .unwrap();
    }

    /// All frames that the front half has ready now.
    pub(crate) fn sent(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.front.poll_transmit(self.now)).collect()
    }

    /// Delivers frames to the host and lets the device work; what the host answers.
    pub(crate) fn deliver(&mut self, frames: Vec<Bytes>) -> Vec<Bytes> {
        let mut answers = Vec::new();
        for frame in frames {
            self.frames.0 += 1;
            self.host.handle_frame(frame).unwrap();
            self.work();
            answers.extend(std::iter::from_fn(|| self.host.poll_transmit()));
        }
        answers
    }

    /// Moves everything both ways until nothing moves; what happened at the front.
    pub(crate) fn settle(&mut self) -> Vec<FrontEvent> {
        let mut wire = VecDeque::from(self.sent());
        while let Some(frame) = wire.pop_front() {
            for answer in self.deliver(vec![frame]) {
                self.frames.1 += 1;
                self.front.handle_frame(answer).unwrap();
            }
            wire.extend(self.sent());
        }
        std::iter::from_fn(|| self.front.poll_event()).collect()
    }

    /// The device: a read gives its offset's low bytes, a read of offset 0xbad fails.
    pub(crate) fn work(&mut self) {
        while let Some(work) = self.host.next_work() {
            let Work::Access(access) = work else {
                self.resets += 1;
                self.host.complete(Status::Ok, &[]);
                continue;
            };
            match &access.operation {
                Operation::Read if access.at.offset == 0xbad => {
                    self.host.complete(Status::DeviceError, &[]);
                }
                Operation::Read => self.host.complete(Status::Ok, &contents(&access)),
                Operation::Write(_, payload) => {
                    match payload {
                        Payload::Value(value) => self.log.push((access.at.offset, *value)),
                        Payload::Block(bytes) => {
                            self.log.push((access.at.offset, bytes.len() as u64));
                        }
                    }
                    self.host.complete(Status::Ok, &[]);
                }
            }
        }
    }
}

/// What the test device answers to a read.
pub(crate) fn contents(access: &Access) -> Vec<u8> {
    (0..access.bytes() as u64)
        .map(|i| access.at.offset.wrapping_add(i).to_le_bytes()[0])
        .collect()
}

pub(crate) fn completed(sequence: u64, bytes: &[u8]) -> FrontEvent {
    FrontEvent::Completed {
        sequence,
        outcome: Ok(Bytes::copy_from_slice(bytes)),
    }
}

pub(crate) fn failed(sequence: u64, failure: Failure) -> FrontEvent {
    FrontEvent::Completed {
        sequence,
        outcome: Err(failure),
    }
}
