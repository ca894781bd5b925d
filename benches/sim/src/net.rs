//! Streams between actors: reliable and in order, until a fault hits.

use bytes::{Bytes, BytesMut};

use crate::{
    actor::{ACTORS_MAX, ActorId},
    clock::{MILLI, Micros, SECOND},
    fault::{Fault, Faults},
    message::Payload,
    rng::Rng,
};

/// A stream on which nothing is heard for so long is given up by its transport.
pub(crate) const KEEP_ALIVE: Micros = 3 * SECOND;

/// Names a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnId(pub(crate) u32);

/// One of a stream's two ends: who opened it is 0.
pub(crate) type End = usize;

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    /// A session's frames.
    Frames,
    /// A host's registration, or an agent's request.
    Control,
}

#[derive(Debug)]
struct Conn {
    ends: [ActorId; 2],
    carries: Carries,
    /// That end still sends and listens.
    open: [bool; 2],
    /// What that end sent last arrives then; nothing overtakes.
    last: [Micros; 2],
    /// What that end sends is lost, silently.
    dead: [bool; 2],
    /// Microseconds for each KiB that end sends.
    per_kib: Micros,
}

/// How often a frame meets with each fault: per 100,000.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FrameFaults {
    pub(crate) drop: u64,
    pub(crate) duplicate: u64,
    pub(crate) reorder: u64,
    pub(crate) delay: u64,
    pub(crate) truncate: u64,
    pub(crate) corrupt: u64,
}

/// Something is to arrive.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Micros,
    pub(crate) conn: ConnId,
    /// At this end.
    pub(crate) end: End,
    pub(crate) payload: Payload,
}

#[derive(Debug)]
pub(crate) struct Net {
    conns: Vec<Conn>,
    /// From, to: nothing arrives before then.
    blocked: [[Micros; ACTORS_MAX]; ACTORS_MAX],
    rng: Rng,
    latency: Micros,
    pub(crate) frame_faults: FrameFaults,
    longest_delay: Micros,
    /// The next frame meets with this.
    pub(crate) next_frame: Option<Fault>,
    pub(crate) faults: Faults,
}

impl Net {
    pub(crate) fn new(
        rng: Rng,
        latency: Micros,
        frame_faults: FrameFaults,
        longest_delay: Micros,
    ) -> Self {
        Self {
            conns: Vec::with_capacity(16),
            blocked: [[0; ACTORS_MAX]; ACTORS_MAX],
            rng,
            latency,
            frame_faults,
            longest_delay,
            next_frame: None,
            faults: Faults::default(),
        }
    }

    pub(crate) fn connect(
        &mut self,
        from: ActorId,
        to: ActorId,
        carries: Carries,
        per_kib: Micros,
    ) -> ConnId {
        self.conns.push(Conn {
            ends: [from, to],
            carries,
            open: [true; 2],
            last: [0; 2],
            dead: [false; 2],
            per_kib,
        });
        ConnId(u32::try_from(self.conns.len() - 1).unwrap_or(u32::MAX))
    }

    fn conn(&mut self, id: ConnId) -> &mut Conn {
        &mut self.conns[id.0 as usize]
    }

    pub(crate) fn actor(&self, id: ConnId, end: End) -> ActorId {
        self.conns[id.0 as usize].ends[end]
    }

    /// Which end of the stream this actor is.
    pub(crate) fn end_of(&self, id: ConnId, actor: ActorId) -> End {
        usize::from(self.conns[id.0 as usize].ends[0] != actor)
    }

    pub(crate) fn carries(&self, id: ConnId) -> Carries {
        self.conns[id.0 as usize].carries
    }

    pub(crate) fn is_open(&self, id: ConnId, end: End) -> bool {
        self.conns[id.0 as usize].open[end]
    }

    /// That end neither sends nor listens any more. False: it did not before.
    pub(crate) fn shut(&mut self, id: ConnId, end: End) -> bool {
        std::mem::replace(&mut self.conn(id).open[end], false)
    }

    /// Open streams that end at this actor, with the end.
    pub(crate) fn of(&self, actor: ActorId) -> Vec<(ConnId, End)> {
        self.filter(|conn, end| conn.ends[end] == actor)
    }

    /// Open streams between two actors, with the end of the first.
    pub(crate) fn between(&self, one: ActorId, other: ActorId) -> Vec<(ConnId, End)> {
        self.filter(|conn, end| conn.ends[end] == one && conn.ends[1 - end] == other)
    }

    /// Open streams that carry frames.
    pub(crate) fn data(&self) -> Vec<(ConnId, End)> {
        self.filter(|conn, end| end == 0 && conn.carries == Carries::Frames && conn.open[1])
    }

    /// Open streams on which something is still to come that a fault has held up.
    pub(crate) fn late(&self, now: Micros) -> Vec<(ConnId, End)> {
        let usual = now + 4 * self.latency;
        self.filter(|conn, end| {
            end == 0 && conn.carries == Carries::Frames && conn.last.iter().any(|at| *at > usual)
        })
    }

    fn filter(&self, fits: impl Fn(&Conn, End) -> bool) -> Vec<(ConnId, End)> {
        let all = (0..).zip(&self.conns);
        let ends = all.flat_map(|(n, conn)| [0, 1].map(|end| (ConnId(n), conn, end)));
        ends.filter(|(_, conn, end)| conn.open[*end] && fits(conn, *end))
            .map(|(id, _, end)| (id, end))
            .collect()
    }

    pub(crate) fn kill_direction(&mut self, id: ConnId, end: End) {
        self.conn(id).dead[end] = true;
    }

    pub(crate) fn slow_down(&mut self, id: ConnId, per_kib: Micros) {
        self.conn(id).per_kib = per_kib;
    }

    /// From one actor nothing reaches the other before then.
    pub(crate) fn block(&mut self, from: ActorId, to: ActorId, until: Micros) {
        let blocked = &mut self.blocked[from.index()][to.index()];
        *blocked = until.max(*blocked);
    }

    pub(crate) fn heal(&mut self) {
        self.blocked = Default::default();
        self.frame_faults = FrameFaults::default();
        for conn in &mut self.conns {
            conn.per_kib = 0;
        }
    }

    /// That end sends. What arrives when; nothing, or twice, with faults.
    pub(crate) fn send(
        &mut self,
        now: Micros,
        id: ConnId,
        end: End,
        payload: Payload,
    ) -> (Option<Arrival>, Option<Arrival>) {
        let conn = &self.conns[id.0 as usize];
        if !conn.open[end] || conn.dead[end] {
            return (None, None);
        }
        match payload {
            Payload::Frame { bytes, .. } => self.send_frame(now, id, end, bytes),
            payload => (Some(self.arrive(now, id, end, 0, payload)), None),
        }
    }

    fn send_frame(
        &mut self,
        now: Micros,
        id: ConnId,
        end: End,
        mut bytes: Bytes,
    ) -> (Option<Arrival>, Option<Arrival>) {
        let odds = self.frame_faults;
        let forced = self.next_frame.take();
        let drawn = self.rng.below(100_000);
        let mut garbled = false;
        let mut late = 0;
        let mut bound = 0;
        let mut hit = |fault: Fault, odds: u64| {
            bound += odds;
            (bound - odds..bound).contains(&drawn) || forced == Some(fault)
        };
        if hit(Fault::Drop, odds.drop) {
            self.faults.count(Fault::Drop);
            return (None, None);
        }
        let twice = hit(Fault::Duplicate, odds.duplicate);
        let reorder = hit(Fault::Reorder, odds.reorder);
        if hit(Fault::Delay, odds.delay) {
            self.faults.count(Fault::Delay);
            late = self.rng.below(self.longest_delay);
        }
        if hit(Fault::Truncate, odds.truncate) {
            self.faults.count(Fault::Truncate);
            garbled = true;
            let keep = self.rng.below(bytes.len() as u64);
            bytes.truncate(usize::try_from(keep).unwrap_or(0));
        } else if hit(Fault::Corrupt, odds.corrupt) {
            self.faults.count(Fault::Corrupt);
            let changed = self.corrupt(&bytes);
            garbled = changed != bytes;
            bytes = changed;
        }
        let frame = |bytes: Bytes| Payload::Frame { bytes, garbled };
        if twice {
            self.faults.count(Fault::Duplicate);
            let first = self.arrive(now, id, end, late, frame(bytes.clone()));
            let second = self.arrive(now, id, end, 0, frame(bytes));
            return (Some(first), Some(second));
        }
        if reorder {
            self.faults.count(Fault::Reorder);
            // What is sent after it does not wait for it.
            let before = self.conn(id).last[end];
            let extra = self.rng.below(4 * self.latency + MILLI);
            let arrival = self.arrive(now, id, end, extra, frame(bytes));
            self.conn(id).last[end] = before;
            return (Some(arrival), None);
        }
        (Some(self.arrive(now, id, end, late, frame(bytes))), None)
    }

    /// One bit, or a few bytes.
    fn corrupt(&mut self, bytes: &[u8]) -> Bytes {
        let mut changed = BytesMut::from(bytes);
        let len = changed.len() as u64;
        for _ in 0..self.rng.pick(&[1, 1, 1, 4]) {
            let place = usize::try_from(self.rng.below(len)).unwrap_or(0);
            changed[place] ^= 1 << self.rng.below(8);
        }
        changed.freeze()
    }

    fn arrive(
        &mut self,
        now: Micros,
        id: ConnId,
        end: End,
        late: Micros,
        payload: Payload,
    ) -> Arrival {
        let jitter = self.rng.below(self.latency / 4 + 1);
        let len = match &payload {
            Payload::Frame { bytes, .. } => bytes.len() as u64,
            _ => 64,
        };
        let blocked =
            |conn: &Conn| self.blocked[conn.ends[end].index()][conn.ends[1 - end].index()];
        let blocked_until = blocked(&self.conns[id.0 as usize]);
        let latency = self.latency;
        let conn = self.conn(id);
        let sent = now
            .max(blocked_until)
            .max(conn.last[end].saturating_sub(latency));
        let busy = conn.per_kib * len / 1024;
        let at = (sent + latency + jitter + late + busy).max(conn.last[end]);
        conn.last[end] = at;
        Arrival {
            at,
            conn: id,
            end: 1 - end,
            payload,
        }
    }
}
