//! The front half: the agent's end of a session.
//!
//! Accesses go in by [`Front::read`], [`Front::write`] and [`Front::reset`]; frames come out of [`Front::poll_transmit`] and go in by
//! [`Front::handle_frame`]; answers, and what the device started itself, come out of [`Front::poll_event`] in the host's order.
//! Time is an argument. Whether DMA and interrupts may touch the guest is for whoever takes the events to decide, at the moment of
//! doing it: the core numbers the DMA generations and tells the host of them.
//!
//! A session lives on when its path is lost ([`Front::handle_lost`]): accesses are taken and wait, each for its deadline. A driver that has a new
//! stream says so by [`Front::dial`], and goes on as on the first.

mod dma;
mod faults;
mod flights;
mod incoming;
mod path;
mod saved;
mod succession;
mod types;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, FrameHeader, SessionClose};

use crate::{
    VERSION, VERSION_MIN,
    access::{DmaError, Extent, ForwardEvent, Location, MAX_ACCESS_BYTES, Posting},
    batch::BatchWriter,
    credit::{Allowance, cost},
    frame::{self, Body, MAX_BATCH_BYTES, header_for},
    ids::Path,
    planted::{self, Bug},
    sent::SentBatch,
    violation::Violation,
};
use dma::{Dma, Due};
use flights::Flights;
use path::PathWatch;
pub use saved::{
    NotSaved, SavedAccess, SavedAllowance, SavedBatch, SavedDma, SavedDue, SavedError, SavedFront,
    SavedGrant,
};
pub use succession::Legacy;
pub use types::{
    DmaRead, DmaWrite, Failure, FrontConfig, FrontCounters, FrontEvent, FrontState, Refused,
    Revocation,
};

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    sequence: u64,
    /// Bytes that its completion holds when it is good.
    answer_bytes: usize,
    /// Credits that it holds until its completion is acknowledged.
    cost: u64,
}

/// The front half of a session. A copy is the session as of now: what a machine has that is set back to this moment.
#[derive(Debug, Clone)]
pub struct Front {
    config: FrontConfig,
    state: FrontState,
    /// That was chosen with the host; 0 before.
    version: u32,
    watch: PathWatch,
    /// Forward: number of the next item.
    next_sequence: u64,
    /// Forward: number of the first item in `batch`.
    batch_first: u64,
    batch: BatchWriter,
    /// The batch should go now, whatever is in flight.
    push: bool,
    /// Sealed frames, oldest first.
    outgoing: VecDeque<Bytes>,
    acknowledged: u64,
    flights: Flights,
    /// When what is in `batch` has to be acknowledged.
    batch_until: Option<Instant>,
    outstanding: VecDeque<Outstanding>,
    posted: Allowance,
    non_posted: Allowance,
    /// Cost of the accesses whose completions have come since the host was last told what has.
    completed_cost: u64,
    /// Since when somebody waits for credit: refused, and no `Unblocked` since.
    blocked: Option<Instant>,
    /// Reverse: number of the next item.
    next_reverse: u64,
    /// The host's newest beat, to echo.
    beat: u64,
    dma: Dma,
    due: Due,
    /// Until this item is acknowledged a reset is not confirmed; `u64::MAX` while it has no number.
    resetting: Option<u64>,
    /// The level of INTx, as the host sent it.
    intx: bool,
    open_deadline: Option<Instant>,
    /// The other side ended the session, and why.
    closed_by: Option<CloseCode>,
    events: VecDeque<FrontEvent>,
    counters: FrontCounters,
}

impl Front {
    /// A session on its first dial. `open` comes out of the first [`Front::poll_transmit`].
    pub fn new(config: FrontConfig, now: Instant) -> Self {
        Self::speaking(VERSION, config, now)
    }

    /// The same, speaking no newer version of the protocol than this one.
    pub fn speaking(version_max: u32, config: FrontConfig, now: Instant) -> Self {
        let open_deadline = Some(now + config.deadline);
        let mut front = Self {
            config,
            state: FrontState::Opening,
            version: 0,
            watch: PathWatch::new(now),
            next_sequence: 1,
            batch_first: 1,
            batch: BatchWriter::default(),
            push: false,
            outgoing: VecDeque::new(),
            acknowledged: 0,
            flights: Flights::default(),
            batch_until: None,
            outstanding: VecDeque::new(),
            posted: Allowance::default(),
            non_posted: Allowance::default(),
            completed_cost: 0,
            blocked: None,
            next_reverse: 1,
            beat: 0,
            dma: Dma::new(),
            due: Due::default(),
            resetting: None,
            intx: false,
            open_deadline,
            closed_by: None,
            events: VecDeque::new(),
            counters: FrontCounters::default(),
        };
        front.open_path(VERSION_MIN, version_max);
        front
    }

    /// Where the session stands.
    pub fn state(&self) -> FrontState {
        self.state
    }

    /// Session, epoch, and the number of the newest dial.
    pub fn path(&self) -> Path {
        self.config.path
    }

    /// Takes accesses.
    pub fn is_live(&self) -> bool {
        self.accepts()
    }

    /// The function was reset, and the host has not confirmed it.
    pub fn is_resetting(&self) -> bool {
        self.resetting.is_some()
    }

    /// Number of the last item that was taken; 0 before the first.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// The host has done everything up to this item.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What was counted so far.
    pub fn counters(&self) -> FrontCounters {
        self.counters
    }

    /// Takes a read. It travels behind all earlier writes, in one frame with those not yet sent. None is taken while a reset is not
    /// confirmed: a function that resets does not answer, however long it takes.
    ///
    /// # Errors
    /// When it was not taken; nothing has changed then.
    pub fn read(&mut self, now: Instant, at: Location, extent: Extent) -> Result<u64, Refused> {
        if self.accepts() && self.resetting.is_some() {
            return Err(Refused::Resetting);
        }
        let bytes = self.admit(now, at, extent)?;
        if !self.non_posted.take(cost(bytes)) {
            return Err(self.block(now));
        }
        self.make_room(now, 0);
        self.batch.read(at, extent);
        Ok(self.wait_for(now, bytes, cost(bytes)))
    }

    /// Takes a write of little-endian elements. A non-posted one completes by an event with no bytes.
    ///
    /// # Errors
    /// When it was not taken; nothing has changed then.
    pub fn write(
        &mut self,
        now: Instant,
        at: Location,
        extent: Extent,
        posting: Posting,
        data: &[u8],
    ) -> Result<u64, Refused> {
        let bytes = self.admit(now, at, extent)?;
        if data.len() != bytes {
            return Err(Refused::Size);
        }
        let allowance = match posting {
            Posting::Posted => &mut self.posted,
            Posting::NonPosted => &mut self.non_posted,
        };
        if !allowance.take(cost(bytes)) {
            return Err(self.block(now));
        }
        self.make_room(now, bytes);
        self.batch.write(at, extent, posting, data);
        Ok(match posting {
            Posting::Posted => self.number(now),
            Posting::NonPosted => self.wait_for(now, 0, cost(bytes)),
        })
    }

    /// The function is reset, in order with the accesses: everything before is of an older DMA generation. Taken at once, always:
    /// without credit it goes before whatever is taken next, and several that wait are one. Gives the new DMA generation.
    pub fn reset(&mut self, now: Instant) -> u64 {
        self.begin_generation();
        self.events
            .retain(|event| !matches!(event, FrontEvent::Intx(_)));
        self.due.reset = self.accepts();
        self.resetting = self.accepts().then_some(u64::MAX);
        self.append_due(now);
        self.dma.generation
    }

    /// What was under way is void from here on; the host is told in order with the accesses. Gives the new DMA generation.
    pub fn revoke(&mut self, now: Instant, why: Revocation) -> u64 {
        match why {
            Revocation::BusMasterOff => self.begin_generation(),
            Revocation::Unmapped => self.dma.generation += 1,
        }
        if self.accepts() {
            match why {
                Revocation::BusMasterOff => self.due.bus_master_off = true,
                Revocation::Unmapped => self.due.unmapped = true,
            }
            if self.due.is_urgent() {
                self.append_due(now);
            }
        }
        self.dma.generation
    }

    /// The oldest DMA write is done with: its room is free, and the device is told when it failed. It is not told of one that a reset, or bus
    /// mastering turned off, made void since: it hears of that instead.
    pub fn dma_written(&mut self, write: &DmaWrite, outcome: Result<(), DmaError>) {
        if !self.accepts() {
            return;
        }
        self.dma.writes.free(cost(write.data.len()));
        if let Err(error) = outcome
            && write.generation >= self.dma.floor
        {
            self.due.failed_write.get_or_insert((write.sequence, error));
        }
    }

    /// The oldest DMA read is done with.
    pub fn answer_dma_read(
        &mut self,
        now: Instant,
        read: &DmaRead,
        outcome: Result<Bytes, DmaError>,
    ) {
        if !self.accepts() {
            return;
        }
        self.dma.reads.free(cost(read.length));
        self.make_room(now, outcome.as_ref().map_or(0, Bytes::len));
        let id = read.id;
        self.batch.event(&ForwardEvent::DmaReadData { id, outcome });
        self.number(now);
        self.push = true;
    }

    /// The access that was taken last has waited for credit before: it is to be answered by then, so that its guest waits for the
    /// deadline once.
    pub fn answer_by(&mut self, until: Instant) {
        let earliest = self.batch_until.map_or(until, |other| other.min(until));
        self.batch_until = Some(earliest);
    }

    /// An access waits for credit since longer than the deadline, although the host makes some progress.
    pub fn handle_starved(&mut self) {
        self.give_up("no room at the host");
    }

    /// How long an access may take.
    pub fn deadline(&self) -> Duration {
        self.config.deadline
    }

    /// What is collected goes with the next [`Front::poll_transmit`]: a doorbell was written.
    pub fn push(&mut self) {
        self.push = true;
    }

    /// Ends the session on purpose: a last frame says so.
    pub fn close(&mut self, reason: &str) {
        if self.accepts() {
            self.outgoing.push_back(close_frame(
                self.header(),
                CloseCode::Normal,
                reason.to_owned(),
            ));
        }
        self.state = FrontState::Closed;
    }

    /// The next frame for the transport, by rule 7 of the design: at once when nothing is in flight; else when the flight has
    /// landed, the frame is full, a doorbell was written, or somebody waits.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.due.is_urgent() {
            self.append_due(now);
        }
        self.watch.note(now);
        if self.outgoing.is_empty() && self.state == FrontState::Live {
            if self.should_send() {
                self.seal(now);
            } else if self.dma.has_news() {
                self.acknowledge();
            }
        }
        let frame = self.outgoing.pop_front()?;
        self.counters.frames_sent += 1;
        self.counters.bytes_sent += frame.len() as u64;
        Some(frame)
    }

    /// A frame came.
    ///
    /// # Errors
    /// When it breaks the protocol. A `close` frame is ready to be sent. If the path may be at fault, the session waits for another one
    /// ([`FrontState::Interrupted`]), else it is contained.
    pub fn handle_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        self.counters.frames_received += 1;
        self.counters.bytes_received += bytes.len() as u64;
        let result = self.take_frame(bytes);
        if let Err(violation) = &result {
            self.refuse(violation);
        }
        result
    }

    /// When [`Front::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.next_deadline();
        let stalled = self.stalls_at();
        deadline.into_iter().chain(stalled).min()
    }

    /// Time has passed: past the deadline the session is contained; after a quarter of it without progress another path is wanted.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.watch.note(now);
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let starved = self.flights.is_empty() && self.blocked.is_some();
            self.give_up(if starved {
                "no room at the host"
            } else {
                "no answer from the host"
            });
        } else if self.stalls_at().is_some_and(|at| at <= now) {
            self.watch.stall();
        }
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<FrontEvent> {
        self.events.pop_front()
    }

    /// What began before is void.
    fn begin_generation(&mut self) {
        self.dma.generation += 1;
        self.dma.floor = self.dma.generation;
        self.due.failed_write = None;
    }

    fn give_up(&mut self, why: &str) {
        let reason = format!("{why} within {} ms", self.config.deadline.as_millis());
        // Should the host still hear it, it need not keep the session.
        let close = close_frame(self.header(), CloseCode::Normal, reason.clone());
        self.outgoing.push_back(close);
        self.contain(reason);
    }

    /// Until then something has to be answered.
    fn next_deadline(&self) -> Option<Instant> {
        // While there is a path, what is collected follows what is under way.
        let collected = self.batch_until.filter(|_| self.state != FrontState::Live);
        let flights = self.flights.next_deadline();
        let blocked = self.blocked.map(|since| since + self.config.deadline);
        let waits = flights.into_iter().chain(collected).chain(blocked);
        self.open_deadline.into_iter().chain(waits).min()
    }

    fn accepts(&self) -> bool {
        !matches!(self.state, FrontState::Contained | FrontState::Closed)
    }

    fn admit(&mut self, now: Instant, at: Location, extent: Extent) -> Result<usize, Refused> {
        if !self.accepts() {
            return Err(Refused::NotLive);
        }
        if !self.due.is_empty() {
            self.append_due(now);
            if self.due.reset || self.due.bus_master_off || self.due.unmapped {
                return Err(self.block(now));
            }
        }
        let bytes = at.width.bytes() * extent.count();
        if bytes == 0 || bytes > MAX_ACCESS_BYTES {
            return Err(Refused::Size);
        }
        Ok(bytes)
    }

    /// One event with the newest generation says it all: a reset voids more than bus mastering turned off, and that more than
    /// a window unmapped.
    fn append_due(&mut self, now: Instant) {
        let generation = self.dma.generation;
        let revoked = if self.due.reset {
            Some(ForwardEvent::Reset { generation })
        } else if self.due.bus_master_off {
            Some(ForwardEvent::BusMasterOff { generation })
        } else if self.due.unmapped {
            Some(ForwardEvent::Unmapped { generation })
        } else {
            None
        };
        if let Some(event) = revoked {
            let urgent = self.due.is_urgent();
            if !self.append_event(now, &event, urgent) {
                return;
            }
            if self.due.reset {
                self.resetting = Some(self.next_sequence - 1);
            }
            (self.due.reset, self.due.bus_master_off, self.due.unmapped) = (false, false, false);
        }
        if let Some((sequence, error)) = self.due.failed_write {
            let event = ForwardEvent::DmaWriteFailed { sequence, error };
            if self.append_event(now, &event, true) {
                self.due.failed_write = None;
            }
        }
    }

    /// False without credit.
    fn append_event(&mut self, now: Instant, event: &ForwardEvent, urgent: bool) -> bool {
        if !self.posted.take(cost(0)) {
            return false;
        }
        self.make_room(now, 0);
        self.batch.event(event);
        self.number(now);
        self.push |= urgent;
        true
    }

    /// A frame with news alone.
    fn acknowledge(&mut self) {
        let frame = frame::encode(self.header(), Body::Empty);
        self.told();
        self.outgoing.push_back(frame);
    }

    /// All news goes with a header.
    fn told(&mut self) {
        self.dma.told();
        self.completed_cost = 0;
    }

    fn block(&mut self, now: Instant) -> Refused {
        self.blocked.get_or_insert(now);
        // What waits must drain, or the credit never comes back; and the host may wait to hear that its completions have come.
        self.push = true;
        self.dma.acknowledge |= self.completed_cost > 0;
        Refused::NoCredit
    }

    /// Seals the batch when an item with this much data might not fit: 40 bytes are more than its numbers take.
    fn make_room(&mut self, now: Instant, data_bytes: usize) {
        if self.batch.encoded_len() + data_bytes + 40 > MAX_BATCH_BYTES {
            self.seal(now);
        }
    }

    fn number(&mut self, now: Instant) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if sequence == self.batch_first {
            let deadline = now + self.config.deadline;
            self.batch_until = Some(deadline);
        }
        sequence
    }

    fn wait_for(&mut self, now: Instant, answer_bytes: usize, cost: u64) -> u64 {
        let sequence = self.number(now);
        if self.outstanding.is_empty() {
            self.counters.round_trips += 1;
        }
        self.outstanding.push_back(Outstanding {
            sequence,
            answer_bytes,
            cost,
        });
        self.dma.lend();
        self.push = true;
        sequence
    }

    fn should_send(&self) -> bool {
        let idle = self.flights.is_empty();
        !self.batch.is_empty() && (self.push || idle)
    }

    /// Makes a frame of the batch. Without a path it is kept until there is one.
    fn seal(&mut self, now: Instant) {
        let header = self.header();
        self.told();
        let (sent, frame) = SentBatch::seal(header, &mut self.batch, self.version);
        self.batch_first = sent.last() + 1;
        if self.state == FrontState::Live {
            self.outgoing.push_back(frame);
        }
        self.push = false;
        let deadline = now + self.config.deadline;
        let from_seal = planted::is(Bug::DeadlineFromSeal);
        let until = self.batch_until.take().filter(|_| !from_seal);
        self.flights.push(sent, now, until.unwrap_or(deadline));
    }

    fn header(&self) -> FrameHeader {
        FrameHeader {
            first_sequence: self.batch_first,
            acknowledged: self.next_reverse - 1,
            dma_write_limit: self.dma.writes.limit(),
            beat: self.beat,
            ..header_for(self.config.path)
        }
    }

    fn unblock(&mut self) {
        if self.blocked.take().is_some() {
            self.events.push_back(FrontEvent::Unblocked);
        }
    }

    /// From here on nothing is sent, and nothing that comes is shown.
    fn contain(&mut self, reason: String) {
        if !self.accepts() {
            return;
        }
        self.state = FrontState::Contained;
        self.flights.clear();
        self.open_deadline = None;
        self.batch_until = None;
        for waiting in &self.outstanding {
            self.events.push_back(FrontEvent::Completed {
                sequence: waiting.sequence,
                outcome: Err(Failure::Contained),
            });
        }
        if !planted::is(Bug::ResultAfterContainment) {
            self.outstanding.clear();
        }
        self.unblock();
        self.events.push_back(FrontEvent::Contained(reason));
    }
}

/// A last frame. The message is cut to the 512 bytes that the schema allows.
pub(crate) fn close_frame(header: FrameHeader, code: CloseCode, mut message: String) -> Bytes {
    message.truncate(message.floor_char_boundary(512));
    let close = SessionClose {
        code: code.into(),
        message,
    };
    frame::encode(header, Body::Close(close))
}
