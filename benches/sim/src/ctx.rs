//! What all actors use: time, the network, the oracle, the trace.

use potemkin_broker::store::DeviceRow;
use potemkin_session::gate::FenceOrder;

use crate::{
    actor::{ACTORS_MAX, ActorId},
    clock::{Clock, Micros, Origin, SECOND},
    fault::Fault,
    message::{Control, Payload},
    net::{Arrival, Carries, ConnId, Net},
    oracle::Oracle,
    plan::Plan,
    queue::Queue,
    rng::Rng,
    trace::Trace,
};

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// Something arrives at a stream's end.
    Arrive(Arrival),
    /// An actor wanted to be woken.
    Wake(ActorId),
    /// A broker's store has answered.
    Stored {
        broker: ActorId,
        run: u32,
        rows: Vec<DeviceRow>,
        good: bool,
    },
    /// A host's disk has the epoch.
    OnDisk {
        host: ActorId,
        run: u32,
        device: usize,
        order: FenceOrder,
        conn: ConnId,
    },
    /// A fault begins.
    Fault(Fault),
    /// A process that was killed starts again.
    Restart(ActorId),
    /// A process that was stopped goes on.
    Resume(ActorId),
    /// A stream's transport has heard nothing for too long.
    Silent(ConnId),
}

#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) now: Micros,
    pub(crate) plan: Plan,
    pub(crate) queue: Queue<Event>,
    pub(crate) net: Net,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) origin: Origin,
    pub(crate) clocks: [Clock; ACTORS_MAX],
    /// When each actor is woken next.
    wakes: [Micros; ACTORS_MAX],
    pub(crate) resumes: u64,
    pub(crate) containments: u64,
    /// A fault has come; faults of frames not counted.
    pub(crate) disturbed: bool,
    /// Faults are over.
    pub(crate) calm: bool,
}

impl Ctx {
    pub(crate) fn new(plan: Plan, net: Net, oracle: Oracle, trace: Trace, mut rng: Rng) -> Self {
        let drift = plan.drift;
        let clocks = std::array::from_fn(|_| {
            let ppm = i64::try_from(rng.below(601)).unwrap_or(0) - 300;
            Clock::new(if drift { ppm } else { 0 })
        });
        Self {
            now: 0,
            plan,
            queue: Queue::new(),
            net,
            oracle,
            trace,
            origin: Origin::new(),
            clocks,
            wakes: [Micros::MAX; ACTORS_MAX],
            resumes: 0,
            containments: 0,
            disturbed: false,
            calm: false,
        }
    }

    /// What the actor's clock shows.
    pub(crate) fn local(&self, actor: ActorId) -> Micros {
        self.clocks[actor.index()].local(self.now)
    }

    /// Wakes the actor when its clock shows this, at the latest.
    pub(crate) fn wake_at(&mut self, actor: ActorId, local: Micros) {
        let at = self.clocks[actor.index()].when(local, self.now);
        let known = &mut self.wakes[actor.index()];
        if at < *known {
            *known = at;
            self.queue.push(at, Event::Wake(actor));
        }
    }

    /// Whether this wake-up is the one that was asked for last.
    pub(crate) fn is_awaited(&mut self, actor: ActorId) -> bool {
        let known = &mut self.wakes[actor.index()];
        let awaited = *known == self.now;
        if awaited {
            *known = Micros::MAX;
        }
        awaited
    }

    pub(crate) fn forget_wake(&mut self, actor: ActorId) {
        self.wakes[actor.index()] = Micros::MAX;
    }

    pub(crate) fn connect(&mut self, from: ActorId, to: ActorId, carries: Carries) -> ConnId {
        self.net.connect(from, to, carries, 0)
    }

    pub(crate) fn send(&mut self, actor: ActorId, conn: ConnId, payload: Payload) {
        let end = self.net.end_of(conn, actor);
        let (first, second) = self.net.send(self.now, conn, end, payload);
        for arrival in [first, second].into_iter().flatten() {
            self.queue.push(arrival.at, Event::Arrive(arrival));
        }
    }

    pub(crate) fn send_control(&mut self, actor: ActorId, conn: ConnId, message: Control) {
        self.send(actor, conn, Payload::Control(Box::new(message)));
    }

    pub(crate) fn send_frame(&mut self, actor: ActorId, conn: ConnId, bytes: bytes::Bytes) {
        let garbled = false;
        self.send(actor, conn, Payload::Frame { bytes, garbled });
    }

    /// The actor is done with the stream.
    pub(crate) fn close(&mut self, actor: ActorId, conn: ConnId) {
        self.send(actor, conn, Payload::Fin);
        let end = self.net.end_of(conn, actor);
        self.net.shut(conn, end);
    }

    /// How long it takes until guests go on after the faults: by then paths are whole again.
    pub(crate) fn until_epilogue(&self) -> Micros {
        let quiet = 2 * SECOND + self.plan.deadline;
        (self.plan.chaos + quiet).saturating_sub(self.now)
    }

    /// Also what was late has come.
    pub(crate) fn is_long_calm(&self) -> bool {
        self.calm && self.now > self.plan.chaos + 8 * SECOND
    }

    pub(crate) fn trace(&mut self, actor: ActorId, line: impl FnOnce() -> String) {
        let now = self.now;
        self.trace
            .line(now, || format!("{:?} {}", actor.role(), line()));
    }
}
