//! The host half: the device host's end of a session.
//!
//! Frames go in by [`Host::handle_frame`]; accesses come out of [`Host::next_work`] one after the other and are answered with
//! [`Host::complete`]; frames come out of [`Host::poll_transmit`]. Executing an access and recording its answer are one step: there is no
//! second piece of work before the first is completed. What the device starts itself goes in by [`Host::dma_write`],
//! [`Host::dma_read`], [`Host::raise`] and [`Host::set_intx`], in one order with the answers.
//!
//! A session lives on when its path is lost ([`Host::suspend`]): the device goes on with what it has, and what it says is kept. On a newer path
//! ([`Host::resume`]) all goes again that the agent lacks. What is kept is bounded by the credits, which are given back when it is
//! acknowledged.

mod crowd;
mod faults;
mod outbound;
mod reads;
mod received;
mod resume;

use std::collections::VecDeque;

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, FrameHeader, SessionAccept, SessionOpen, SessionResend};

use crate::{
    RESUMABLE, VERSION, VERSION_MIN,
    access::{Access, DmaError, ForwardEvent, ForwardItem, Operation, ReverseItem, Status, Vector},
    batch::{BatchWriter, read_forward},
    credit::{DMA_WRITE_LENT_MAX, DMA_WRITE_WINDOW, Grant, NON_POSTED_WINDOW, POSTED_WINDOW, cost},
    frame::{self, Body, Frame, MAX_BATCH_BYTES, check, check_counts, check_path, header_for},
    front::close_frame,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
    planted::{self, Bug},
    sent::SentBatch,
    violation::Violation,
};
use outbound::Outbound;
use reads::Reads;
use received::{Arrival, Received};

/// Most bytes that are kept for an agent that does not acknowledge: twice what the windows of all classes can hold.
const SENT_BYTES_MAX: u64 = 2 * 64 * (DMA_WRITE_WINDOW + DMA_WRITE_LENT_MAX);
/// What an item that waits counts beside its data.
const ITEM_BYTES: usize = 64;

/// Something for the device to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A guest access.
    Access(Access),
    /// The function was reset: nothing that the device began before is under way any more.
    Reset,
    /// Bus mastering was turned off: what the device began before fails.
    BusMasterOff,
    /// A DMA read is over.
    DmaRead {
        /// As it was given to [`Host::dma_read`].
        tag: u64,
        /// All bytes, or why there are none.
        outcome: Result<Bytes, DmaError>,
    },
    /// A DMA write moved nothing, in part at least.
    DmaWriteFailed(DmaError),
}

/// What was given out, to be completed.
#[derive(Debug)]
enum Current {
    Access(Access),
    /// A forward item that needs no answer.
    Event,
    /// Something that came of no item.
    Extra,
}

/// DMA generations: transfers and interrupts carry the one in which they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generations {
    /// Of what begins now.
    pub newest: u64,
    /// What began in an older one is void.
    pub floor: u64,
}

/// The host half of a session.
#[derive(Debug)]
pub struct Host {
    path: Path,
    incarnation: Incarnation,
    /// That was chosen with the agent.
    version: u32,
    /// There is a path.
    connected: bool,
    /// The agent's deadline, in beats; 0: not known.
    deadline_beats: u64,
    /// What came too late was refused, and has not come again.
    refusing: bool,
    /// The agent is to be told so.
    resend_due: bool,
    received: Received,
    next_forward: u64,
    applied: u64,
    /// The newest `applied` that the agent was told.
    told: u64,
    /// The limits that the agent was told.
    told_posted: u64,
    told_non_posted: u64,
    queue: VecDeque<ForwardItem>,
    /// What [`Host::next_work`] gave out.
    current: Option<Current>,
    generations: Generations,
    /// The newest generation that came, not taken yet perhaps.
    generation_received: u64,
    outbound: Outbound,
    reads: Reads,
    posted: Grant,
    non_posted: Grant,
    /// What the answers cost that wait for their turn, oldest first. They hold on to their credit, or the agent could pile them up.
    unanswered: VecDeque<u64>,
    batch: BatchWriter,
    batch_first: u64,
    /// Cost of the accesses whose completions are in `batch`.
    batch_cost: u64,
    /// What the agent has not acknowledged, oldest first, and what the accesses cost that are answered in it: the cache of completions.
    sent: VecDeque<(SentBatch, u64)>,
    /// Bytes of all of them.
    sent_bytes: u64,
    outgoing: VecDeque<Bytes>,
    /// Reverse items that the agent has taken.
    taken: u64,
    beat: u64,
    /// With which code it was closed, by whichever side.
    closed: Option<CloseCode>,
}

/// The first frame of a stream, read: who opens what.
#[derive(Debug)]
pub struct Opening {
    /// Session, epoch and attach number, from its header.
    pub path: Path,
    /// The rest.
    pub open: SessionOpen,
}

impl Opening {
    /// Reads the first frame of a stream.
    ///
    /// # Errors
    /// When it is not a sound `open`, or speaks no version of ours.
    pub fn decode(bytes: Bytes) -> Result<Self, Violation> {
        let frame = Frame::decode(bytes)?;
        let (header, checked) = (&frame.header, frame.checked);
        let path = Path {
            session: SessionId::from_halves(header.session_hi, header.session_lo),
            epoch: Epoch(header.epoch),
            attach_number: AttachNumber(header.attach_number),
        };
        let Body::Open(open) = frame.body else {
            return Err(Violation::Unexpected {
                body: "frame",
                when: "before open",
            });
        };
        if open.version_max < VERSION_MIN || open.version_min > VERSION {
            return Err(Violation::Version {
                min: open.version_min,
                max: open.version_max,
                ours: VERSION,
            });
        }
        // Only a relay of version 1 drops the check, and it lets no other version through than its own.
        if open.version_min >= RESUMABLE && !checked {
            return Err(Violation::Unchecked);
        }
        Ok(Self { path, open })
    }

    /// The frame that refuses it.
    pub fn refuse(path: Path, code: CloseCode, message: String) -> Bytes {
        close_frame(header_for(path), code, message)
    }
}

impl Host {
    /// Accepts a session that does not live here yet; the answer comes out of the first [`Host::poll_transmit`]. `beat`: as for
    /// [`Host::set_beat`].
    ///
    /// # Errors
    /// When the agent has accesses that this host never saw: it speaks of another session.
    pub fn accept(
        opening: &Opening,
        incarnation: Incarnation,
        beat: u64,
    ) -> Result<Self, Violation> {
        let open = &opening.open;
        check("next_reverse", open.next_reverse, 1)?;
        check("oldest_unacknowledged", open.oldest_unacknowledged, 1)?;
        let mut host = Self {
            path: opening.path,
            incarnation,
            version: open.version_max.min(VERSION),
            connected: true,
            deadline_beats: open.deadline_ms.into(),
            refusing: false,
            resend_due: false,
            received: Received::default(),
            next_forward: 1,
            applied: 0,
            told: 0,
            told_posted: 0,
            told_non_posted: 0,
            queue: VecDeque::new(),
            current: None,
            generations: Generations::default(),
            generation_received: 0,
            outbound: Outbound::new(open.dma_write_limit),
            reads: Reads::default(),
            posted: Grant::new(POSTED_WINDOW),
            non_posted: Grant::new(NON_POSTED_WINDOW),
            unanswered: VecDeque::new(),
            batch: BatchWriter::default(),
            batch_first: 1,
            batch_cost: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            outgoing: VecDeque::new(),
            taken: 0,
            beat,
            closed: None,
        };
        host.push_accept();
        Ok(host)
    }

    /// Who this session is.
    pub fn path(&self) -> Path {
        self.path
    }

    /// True when the agent has closed the session, or broken the protocol.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// With which code it was closed: this side's, or normally when the agent closed it.
    pub fn closed_with(&self) -> Option<CloseCode> {
        self.closed
    }

    /// A frame came. [`Host::set_beat`] before tells when.
    ///
    /// # Errors
    /// When it breaks the protocol. Nothing of the frame is executed, and a `close` frame is ready to be sent. The session is closed,
    /// or, if the path may be at fault, suspended.
    pub fn handle_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        let queued = self.queue.len();
        let result = self.take_frame(bytes);
        if let Err(violation) = &result {
            self.queue.truncate(queued);
            let message = format!("agent: {violation}");
            if self.version >= RESUMABLE && violation.is_of_path() {
                self.break_path(message);
            } else {
                self.close(CloseCode::ProtocolViolation, message);
            }
        }
        result
    }

    /// Ends the session: a last frame says why, and nothing more is executed.
    pub fn close(&mut self, code: CloseCode, message: String) {
        if !self.is_closed() {
            self.drop_queue();
            self.flush();
            self.closed = Some(code);
            self.outgoing
                .push_back(close_frame(self.header(), code, message));
        }
    }

    /// The next thing for the device to do; `None` while the last one is not completed, and when the queue is empty.
    pub fn next_work(&mut self) -> Option<Work> {
        if self.current.is_some() {
            return None;
        }
        loop {
            if let Some(finished) = self.reads.finished() {
                self.current = Some(Current::Extra);
                let (tag, outcome) = (finished.tag, finished.outcome);
                return Some(Work::DmaRead { tag, outcome });
            }
            match self.queue.pop_front()? {
                ForwardItem::Access(access) => {
                    self.current = Some(Current::Access(access.clone()));
                    return Some(Work::Access(access));
                }
                ForwardItem::Event(event) => {
                    if let Some(work) = self.take_event(event) {
                        self.current = Some(Current::Event);
                        return Some(work);
                    }
                    self.applied += 1;
                }
            }
        }
    }

    /// What the device has to know of it.
    fn take_event(&mut self, event: ForwardEvent) -> Option<Work> {
        if !matches!(event, ForwardEvent::DmaReadData { .. }) {
            self.free_posted(cost(0));
        }
        match event {
            ForwardEvent::Reset { generation } => {
                self.begin_generation(generation);
                self.reads.abandon();
                Some(Work::Reset)
            }
            ForwardEvent::BusMasterOff { generation } => {
                self.begin_generation(generation);
                Some(Work::BusMasterOff)
            }
            ForwardEvent::Unmapped { generation } => {
                self.generations.newest = generation;
                None
            }
            ForwardEvent::DmaReadData { id, outcome } => {
                self.reads.take(id, outcome);
                None
            }
            ForwardEvent::DmaWriteFailed { error, .. } => Some(Work::DmaWriteFailed(error)),
        }
    }

    fn free_posted(&mut self, cost: u64) {
        // With the bug it was freed when it came.
        if !planted::is(Bug::PostedCreditEarly) {
            self.posted.free(cost);
        }
    }

    /// Nothing older goes out any more.
    fn begin_generation(&mut self, generation: u64) {
        self.generations = Generations {
            newest: generation,
            floor: generation,
        };
        let dropped = self.outbound.raise_floor(generation);
        self.reads.dropped(&dropped);
    }

    /// Which DMA generation is current, as the device has been told.
    pub fn generations(&self) -> Generations {
        self.generations
    }

    /// Bytes of DMA under way: writes that wait for credit, and reads that are not answered, and some for each item, so that many short
    /// ones count too. To be bounded by the driver.
    pub fn dma_backlog(&self) -> usize {
        self.outbound.backlog() + self.reads.reserved()
    }

    /// The device writes guest memory. `generation`: in which the transfer began; of an old one nothing is sent.
    pub fn dma_write(&mut self, generation: u64, address: u64, data: Bytes) {
        let stamp_newest = planted::is(Bug::StampNewestGeneration);
        let generation = if stamp_newest {
            self.generations.newest
        } else {
            generation
        };
        if !self.is_closed() {
            self.outbound
                .dma_write(self.applied, generation, address, data);
        }
    }

    /// The device reads guest memory: [`Work::DmaRead`] with this tag follows, unless the function is reset before.
    pub fn dma_read(&mut self, generation: u64, address: u64, length: usize, tag: u64) {
        if self.is_closed() {
            return;
        }
        let pieces = self.reads.ask(generation, address, length, tag);
        if generation < self.generations.floor {
            let ids: Vec<_> = pieces.iter().map(|piece| piece.id).collect();
            self.reads.dropped(&ids);
            return;
        }
        for piece in pieces {
            self.outbound.dma_read(piece);
        }
    }

    /// The device raises a message-signalled interrupt; it arrives after what was written before.
    pub fn raise(&mut self, generation: u64, vector: Vector) {
        let lost = planted::is(Bug::InterruptLostWithoutPath) && !self.connected;
        if !self.is_closed() && !lost {
            self.outbound.raise(self.applied, generation, vector);
        }
    }

    /// The device sets the level of INTx.
    pub fn set_intx(&mut self, level: bool) {
        if planted::is(Bug::IntxLostWithoutPath) && !self.connected {
            return self.outbound.note_intx(level);
        }
        if !self.is_closed() {
            self.outbound.set_intx(self.applied, level);
        }
    }

    /// The work that [`Host::next_work`] gave is done. `data`: what a good read gave; ignored for all else.
    ///
    /// # Panics
    /// When no work was given out, or a good read has not as many bytes as it asked for: the driver is broken.
    pub fn complete(&mut self, status: Status, data: &[u8]) {
        let access = match self.current.take().expect("work was given out") {
            Current::Extra => return,
            Current::Event => {
                self.applied += 1;
                return;
            }
            Current::Access(access) => access,
        };
        match (&access.operation, access.is_posted()) {
            (_, true) => {
                self.free_posted(cost(access.bytes()));
                self.applied += 1;
            }
            (operation, false) => {
                let answer: &[u8] = match (operation, status) {
                    (Operation::Read, Status::Ok) => {
                        assert_eq!(data.len(), access.bytes(), "a read is answered in full");
                        data
                    }
                    _ => &[],
                };
                self.answer(status, answer, cost(access.bytes()));
            }
        }
    }

    /// The next frame for the transport: answers at once; an acknowledgement by itself when the queue is empty, or when half
    /// of the posted credit is used up.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if self.connected && !self.is_closed() {
            self.check_kept();
        }
        if self.connected {
            if self.outgoing.is_empty() && std::mem::take(&mut self.resend_due) {
                self.push_resend();
            }
            self.fill();
            if self.outgoing.is_empty() && (!self.batch.is_empty() || self.should_acknowledge()) {
                self.seal();
            }
        }
        self.outgoing.pop_front()
    }

    /// The host's beat, sent with every frame.
    pub fn set_beat(&mut self, beat: u64) {
        self.beat = beat;
    }

    fn should_acknowledge(&self) -> bool {
        let idle = self.queue.is_empty() && self.current.is_none();
        let starved = self.posted.limit() - self.told_posted >= POSTED_WINDOW / 2
            || self.non_posted.limit() - self.told_non_posted >= NON_POSTED_WINDOW / 2;
        !self.is_closed() && ((idle && self.acknowledgeable() > self.told) || starved)
    }

    /// Answers the access after the last one that was applied, which makes it applied.
    fn answer(&mut self, status: Status, data: &[u8], cost: u64) {
        let sequence = self.applied + 1;
        // Most answers have nothing before them. The frame that has no room for one must not acknowledge it either.
        if self.outbound.is_clear() || planted::is(Bug::CompletionBeforeDma) {
            self.make_room(data.len());
            self.batch.completion(sequence, status, data);
            self.batch_cost += cost;
        } else {
            self.unanswered.push_back(cost);
            let item = ReverseItem::Completion {
                sequence,
                status,
                data: Bytes::copy_from_slice(data),
            };
            self.outbound.push(self.applied, item);
        }
        self.applied = sequence;
    }

    /// Up to here the agent may hear that it was applied: what it caused is sent, or in the batch.
    fn acknowledgeable(&self) -> u64 {
        let early = planted::is(Bug::AcknowledgeBeforeApply);
        let applied = if early {
            self.received_posted()
        } else {
            self.applied
        };
        self.outbound.acknowledgeable(applied)
    }

    /// Moves what may go into the batch.
    fn fill(&mut self) {
        while !self.is_closed()
            && self.outgoing.is_empty()
            && let Some(data_bytes) = self.outbound.ready()
        {
            // Before it leaves the queue: a frame that is sealed for want of room must not acknowledge what comes behind it.
            self.make_room(data_bytes);
            let sequence = self.batch_first + self.batch.len() as u64;
            let Some(item) = self.outbound.take(sequence) else {
                return;
            };
            match &item {
                ReverseItem::DmaRead { id, length, .. } => self.reads.sent(*id, *length),
                ReverseItem::Completion { .. } => {
                    self.batch_cost += self.unanswered.pop_front().unwrap_or_default();
                }
                _ => {}
            }
            self.batch.reverse(&item);
        }
    }

    /// Seals the batch when an item with this much data might not fit: 50 bytes are more than its numbers take.
    fn make_room(&mut self, data_bytes: usize) {
        if self.batch.encoded_len() + data_bytes + 50 > MAX_BATCH_BYTES {
            self.seal();
        }
    }

    fn flush(&mut self) {
        self.fill();
        if !self.batch.is_empty() {
            self.seal();
        }
    }

    /// Makes a frame of the batch, or of the news alone.
    fn seal(&mut self) {
        let header = self.header();
        self.told = header.acknowledged;
        self.told_limits();
        if self.batch.is_empty() {
            self.outgoing.push_back(frame::encode(header, Body::Empty));
            return;
        }
        let (sent, frame) = SentBatch::seal(header, &mut self.batch, self.version);
        self.batch_first = sent.last() + 1;
        let cost = std::mem::take(&mut self.batch_cost);
        if self.version >= RESUMABLE {
            self.sent_bytes += sent.bytes();
            self.sent.push_back((sent, cost));
            if planted::is(Bug::EvictCompletion) && self.sent.len() > 2 {
                self.evict();
            }
        } else {
            self.non_posted.free(cost);
        }
        // Without a path it waits for the next.
        if self.connected {
            self.outgoing.push_back(frame);
        }
    }

    /// Credits bound what an honest agent leaves unacknowledged; one that grants without end and acknowledges nothing is not.
    fn check_kept(&mut self) {
        if self.sent_bytes > SENT_BYTES_MAX {
            let kept = self.sent_bytes;
            let message = format!("agent: header.acknowledged: {kept} bytes are unacknowledged");
            self.close(CloseCode::ProtocolViolation, message);
        }
    }

    fn told_limits(&mut self) {
        self.told_posted = self.posted.limit();
        self.told_non_posted = self.non_posted.limit();
    }

    fn header(&self) -> FrameHeader {
        FrameHeader {
            first_sequence: self.batch_first,
            acknowledged: self.acknowledgeable(),
            posted_limit: self.posted.limit(),
            non_posted_limit: self.non_posted.limit(),
            beat: self.beat,
            ..header_for(self.path)
        }
    }

    fn take_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        if self.is_closed() || !self.connected {
            return Ok(());
        }
        let frame = Frame::decode(bytes)?;
        frame.require_check(self.version)?;
        let older = frame.header.attach_number < self.path.attach_number.0;
        if self.version >= RESUMABLE && older && !planted::is(Bug::HostHearsOldPath) {
            return Ok(());
        }
        if !(older && planted::is(Bug::HostHearsOldPath)) {
            check_path(&frame.header, self.path)?;
        }
        self.check_acknowledged(&frame.header)?;
        match frame.body {
            Body::Empty => {
                self.check_no_gap(frame.header.first_sequence)?;
                check_counts(&frame.header, &FrameHeader::default())?;
            }
            Body::Batch(batch) => self.take_or_drop(&frame.header, batch)?,
            Body::Close(close) => return self.take_close(close.code()),
            Body::Open(_) => return Err(unexpected("open", "on a live session")),
            Body::Accept(_) => return Err(unexpected("accept", "forward")),
            Body::Resend(_) => return Err(unexpected("resend", "forward")),
        }
        self.take_acknowledged(frame.header.acknowledged);
        self.outbound
            .raise_dma_write_limit(frame.header.dma_write_limit);
        Ok(())
    }

    /// A frame without items says which number the next one will have: what was lost before it is missed at once.
    fn check_no_gap(&self, first: u64) -> Result<(), Violation> {
        if self.version < RESUMABLE || self.refusing || first <= self.next_forward {
            return Ok(());
        }
        check("first_sequence", first, self.next_forward)
    }

    /// The agent has that: it need not be kept.
    fn take_acknowledged(&mut self, acknowledged: u64) {
        self.taken = self.taken.max(acknowledged);
        self.outbound.acknowledge(self.taken);
        while let Some((oldest, cost)) = self.sent.front()
            && oldest.last() <= self.taken
        {
            self.non_posted.free(*cost);
            self.sent_bytes -= oldest.bytes();
            self.sent.pop_front();
        }
    }

    fn take_close(&mut self, code: CloseCode) -> Result<(), Violation> {
        // The agent's own words. All others are a relay's, and of the path: what ends a session comes as a fence.
        let of_agent = matches!(code, CloseCode::Normal | CloseCode::ProtocolViolation);
        if self.version >= RESUMABLE && !of_agent {
            self.suspend();
            return Ok(());
        }
        self.closed = Some(CloseCode::Normal);
        self.drop_queue();
        Ok(())
    }

    /// The session is over: what came and was not executed never is.
    fn drop_queue(&mut self) {
        if !planted::is(Bug::ExecuteAfterClose) {
            self.queue.clear();
        }
    }

    /// A batch that is new and in time is taken; one that came before, or comes behind one that was refused, is dropped.
    fn take_or_drop(&mut self, header: &FrameHeader, batch: Bytes) -> Result<(), Violation> {
        let arrival = self.received.arrival(header, self.next_forward, &batch)?;
        match arrival {
            Arrival::New if self.is_late(header.beat) => {
                self.refusing = true;
                // Once for all that comes meanwhile: an agent that does not read must not make this side write more and more.
                self.resend_due = true;
                if planted::is(Bug::ExecuteRefused) {
                    self.execute_again(batch)?;
                }
                Ok(())
            }
            Arrival::New => {
                self.refusing = false;
                let counts = self.take_batch(batch.clone())?;
                check_counts(header, &counts)?;
                if self.version >= RESUMABLE {
                    self.received
                        .note(header.first_sequence, self.next_forward, &batch);
                }
                Ok(())
            }
            Arrival::Repeated if planted::is(Bug::ExecuteRepeat) => self.execute_again(batch),
            Arrival::Repeated if self.version >= RESUMABLE => Ok(()),
            Arrival::Gap if self.refusing && planted::is(Bug::TakeBehindRefused) => {
                self.execute_again(batch)
            }
            Arrival::Gap if self.refusing => Ok(()),
            Arrival::Gap if planted::is(Bug::HostSkipsGap) => self.skip_gap(header, batch),
            Arrival::Repeated | Arrival::Gap => {
                check("first_sequence", header.first_sequence, self.next_forward)
            }
        }
    }

    /// Whoever made these accesses may have given up on them.
    fn is_late(&self, echoed_beat: u64) -> bool {
        let limit = self.deadline_beats / 4 * 3;
        let late = limit > 0 && self.beat.saturating_sub(echoed_beat) > limit;
        late && !planted::is(Bug::TakeLate)
    }

    fn check_acknowledged(&self, header: &FrameHeader) -> Result<(), Violation> {
        let sent = self.batch_first - 1;
        if header.acknowledged > sent {
            return Err(Violation::Header {
                field: "acknowledged",
                found: header.acknowledged,
                expected: sent,
            });
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: Bytes) -> Result<FrameHeader, Violation> {
        let Self {
            queue,
            posted,
            non_posted,
            next_forward,
            reads,
            outbound,
            generation_received,
            ..
        } = self;
        read_forward(batch, |item| {
            if let ForwardItem::Event(ForwardEvent::DmaReadData { id, outcome }) = &item {
                // Its room was reserved when it was asked for.
                outbound.answered(reads.arrived(*id, outcome)?);
                queue.push_back(item);
                *next_forward += 1;
                return Ok(());
            }
            if let Some(generation) = item.generation() {
                if generation <= *generation_received {
                    return Err(Violation::Generation {
                        found: generation,
                        newest: *generation_received,
                    });
                }
                *generation_received = generation;
            }
            let (class, grant, cost) = match &item {
                ForwardItem::Access(access) if !access.is_posted() => {
                    ("non_posted", &mut *non_posted, cost(access.bytes()))
                }
                ForwardItem::Access(access) => ("posted", &mut *posted, cost(access.bytes())),
                ForwardItem::Event(_) => ("posted", &mut *posted, cost(0)),
            };
            let limit = grant.limit();
            grant
                .receive(cost)
                .map_err(|used| Violation::Credit { class, used, limit })?;
            if planted::is(Bug::PostedCreditEarly) && class == "posted" {
                grant.free(cost);
            }
            let is_reset = matches!(item, ForwardItem::Event(ForwardEvent::Reset { .. }));
            if planted::is(Bug::ResetOvertakes) && is_reset {
                queue.push_front(item);
            } else {
                queue.push_back(item);
            }
            *next_forward += 1;
            Ok(())
        })
    }
}

fn unexpected(body: &'static str, when: &'static str) -> Violation {
    Violation::Unexpected { body, when }
}
