//! The front half: the agent's end of a session.
//!
//! Accesses go in by [`Front::read`], [`Front::write`] and [`Front::reset`]; frames come out of [`Front::poll_transmit`] and go in by
//! [`Front::handle_frame`]; answers, and what the device started itself, come out of [`Front::poll_event`] in the host's order.
//! Time is an argument. Whether DMA and interrupts may touch the guest is for whoever takes the events to decide, at the moment of
//! doing it: the core numbers the DMA generations and tells the host of them.

mod dma;
mod incoming;
mod types;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, FrameHeader, SessionClose, SessionOpen};

use crate::{
    VERSION,
    access::{DmaError, Extent, ForwardEvent, Location, MAX_ACCESS_BYTES, Posting},
    batch::BatchWriter,
    credit::{Allowance, DMA_WRITE_WINDOW, cost},
    frame::{self, Body, Frame, MAX_BATCH_BYTES, header_for},
    violation::Violation,
};
use dma::{Dma, Due};
pub use types::{
    DmaRead, DmaWrite, Failure, FrontConfig, FrontCounters, FrontEvent, FrontState, Refused,
    Revocation,
};

#[derive(Debug)]
struct Outstanding {
    sequence: u64,
    /// Bytes that its completion holds when it is good.
    answer_bytes: usize,
}

/// Items that were sent or queued together, for the deadline.
#[derive(Debug)]
struct Flight {
    last_sequence: u64,
    deadline: Instant,
}

/// The front half of a session.
#[derive(Debug)]
pub struct Front {
    config: FrontConfig,
    state: FrontState,
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
    flights: VecDeque<Flight>,
    /// An access in `batch` has waited for credit, and has no longer than until then.
    batch_until: Option<Instant>,
    outstanding: VecDeque<Outstanding>,
    posted: Allowance,
    non_posted: Allowance,
    /// Somebody was refused for want of credit since the last `Unblocked`.
    blocked: bool,
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
    events: VecDeque<FrontEvent>,
    counters: FrontCounters,
}

impl Front {
    /// A session on its first dial. `open` comes out of the first [`Front::poll_transmit`].
    pub fn new(config: FrontConfig, now: Instant) -> Self {
        let open = open_frame(&config);
        let open_deadline = Some(now + config.deadline);
        Self {
            config,
            state: FrontState::Opening,
            next_sequence: 1,
            batch_first: 1,
            batch: BatchWriter::default(),
            push: false,
            outgoing: VecDeque::from([open]),
            acknowledged: 0,
            flights: VecDeque::new(),
            batch_until: None,
            outstanding: VecDeque::new(),
            posted: Allowance::default(),
            non_posted: Allowance::default(),
            blocked: false,
            next_reverse: 1,
            beat: 0,
            dma: Dma::new(),
            due: Due::default(),
            resetting: None,
            intx: false,
            open_deadline,
            events: VecDeque::new(),
            counters: FrontCounters::default(),
        }
    }

    /// Where the session stands.
    pub fn state(&self) -> FrontState {
        self.state
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
            return Err(self.block());
        }
        self.make_room(now, 0);
        self.batch.read(at, extent);
        Ok(self.wait_for(bytes))
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
            return Err(self.block());
        }
        self.make_room(now, bytes);
        self.batch.write(at, extent, posting, data);
        Ok(match posting {
            Posting::Posted => self.number(),
            Posting::NonPosted => self.wait_for(0),
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
        self.number();
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
    /// When it breaks the protocol. The session is contained then, and a `close` frame is ready to be sent.
    pub fn handle_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        self.counters.frames_received += 1;
        self.counters.bytes_received += bytes.len() as u64;
        let result = self.take_frame(bytes);
        if let Err(violation) = &result {
            let message = violation.to_string();
            let close = close_frame(
                self.header(),
                CloseCode::ProtocolViolation,
                format!("host: {message}"),
            );
            self.outgoing.push_back(close);
            self.contain(format!("the host broke the protocol: {message}"));
        }
        result
    }

    /// The path to the host is lost.
    pub fn handle_lost(&mut self, reason: &str) {
        self.contain(format!("the path is lost: {reason}"));
    }

    /// When [`Front::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let flights = self.flights.iter().map(|flight| flight.deadline);
        self.open_deadline.into_iter().chain(flights).min()
    }

    /// Time has passed: past the deadline the session is contained.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.give_up("no answer from the host");
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

    fn accepts(&self) -> bool {
        matches!(self.state, FrontState::Opening | FrontState::Live)
    }

    fn admit(&mut self, now: Instant, at: Location, extent: Extent) -> Result<usize, Refused> {
        if !self.accepts() {
            return Err(Refused::NotLive);
        }
        if !self.due.is_empty() {
            self.append_due(now);
            if self.due.reset || self.due.bus_master_off || self.due.unmapped {
                return Err(self.block());
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
        self.number();
        self.push |= urgent;
        true
    }

    /// A frame with news alone.
    fn acknowledge(&mut self) {
        let frame = Frame {
            header: self.header(),
            body: Body::Empty,
        };
        self.dma.told();
        self.outgoing.push_back(frame.encode());
    }

    fn block(&mut self) -> Refused {
        self.blocked = true;
        // What waits must drain, or the credit never comes back.
        self.push = true;
        Refused::NoCredit
    }

    /// Seals the batch when an item with this much data might not fit: 40 bytes are more than its numbers take.
    fn make_room(&mut self, now: Instant, data_bytes: usize) {
        if self.batch.encoded_len() + data_bytes + 40 > MAX_BATCH_BYTES {
            self.seal(now);
        }
    }

    fn number(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    fn wait_for(&mut self, answer_bytes: usize) -> u64 {
        let sequence = self.number();
        if self.outstanding.is_empty() {
            self.counters.round_trips += 1;
        }
        self.outstanding.push_back(Outstanding {
            sequence,
            answer_bytes,
        });
        self.dma.lend();
        self.push = true;
        sequence
    }

    fn should_send(&self) -> bool {
        let idle = self.flights.is_empty();
        !self.batch.is_empty() && (self.push || idle)
    }

    /// Makes a frame of the batch.
    fn seal(&mut self, now: Instant) {
        let header = self.header();
        self.dma.told();
        self.batch_first += self.batch.len() as u64;
        self.outgoing
            .push_back(frame::encode_batch(header, &mut self.batch));
        self.push = false;
        let deadline = now + self.config.deadline;
        let until = self.batch_until.take();
        self.flights.push_back(Flight {
            last_sequence: self.batch_first - 1,
            deadline: until.map_or(deadline, |until| until.min(deadline)),
        });
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
        if std::mem::take(&mut self.blocked) {
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
        for waiting in self.outstanding.drain(..) {
            self.events.push_back(FrontEvent::Completed {
                sequence: waiting.sequence,
                outcome: Err(Failure::Contained),
            });
        }
        self.unblock();
        self.events.push_back(FrontEvent::Contained(reason));
    }
}

fn open_frame(config: &FrontConfig) -> Bytes {
    let open = SessionOpen {
        version_min: VERSION,
        version_max: VERSION,
        next_reverse: 1,
        oldest_unacknowledged: 1,
        dma_write_limit: DMA_WRITE_WINDOW,
        grant: None,
        host_incarnation: config.host_incarnation.to_bytes(),
    };
    Frame {
        header: FrameHeader {
            first_sequence: 1,
            ..header_for(config.path)
        },
        body: Body::Open(open),
    }
    .encode()
}

/// A last frame. The message is cut to the 512 bytes that the schema allows.
pub(crate) fn close_frame(header: FrameHeader, code: CloseCode, mut message: String) -> Bytes {
    message.truncate(message.floor_char_boundary(512));
    Frame {
        header,
        body: Body::Close(SessionClose {
            code: code.into(),
            message,
        }),
    }
    .encode()
}
