//! The host half: the device host's end of a session.
//!
//! Frames go in by [`Host::handle_frame`]; accesses come out of [`Host::next_work`] one after the other and are answered with
//! [`Host::complete`]; frames come out of [`Host::poll_transmit`]. Executing an access and recording its answer are one step: there is no
//! second piece of work before the first is completed. What the device starts itself goes in by [`Host::dma_write`],
//! [`Host::dma_read`], [`Host::raise`] and [`Host::set_intx`], in one order with the answers.

mod crowd;
mod outbound;
mod reads;

use std::collections::VecDeque;

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, FrameHeader, SessionAccept, SessionOpen};

use crate::{
    VERSION,
    access::{Access, DmaError, ForwardEvent, ForwardItem, Operation, ReverseItem, Status, Vector},
    batch::{BatchWriter, read_forward},
    credit::{Grant, NON_POSTED_WINDOW, POSTED_WINDOW, cost},
    frame::{self, Body, Frame, MAX_BATCH_BYTES, check, check_counts, check_path, header_for},
    front::close_frame,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
    violation::Violation,
};
use outbound::Outbound;
use reads::Reads;

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
    next_forward: u64,
    applied: u64,
    /// The newest `applied` that the agent was told.
    told: u64,
    /// The `posted_limit` that the agent was told.
    told_posted: u64,
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
        let header = &frame.header;
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
        if !(open.version_min..=open.version_max).contains(&VERSION) {
            return Err(Violation::Version {
                min: open.version_min,
                max: open.version_max,
                ours: VERSION,
            });
        }
        Ok(Self { path, open })
    }

    /// The frame that refuses it.
    pub fn refuse(path: Path, code: CloseCode, message: String) -> Bytes {
        close_frame(header_for(path), code, message)
    }
}

impl Host {
    /// Accepts a session on its first dial; the answer comes out of the first [`Host::poll_transmit`].
    ///
    /// # Errors
    /// When the agent has accesses that this host never saw: resuming is for a session that lives here.
    pub fn accept(opening: &Opening, incarnation: Incarnation) -> Result<Self, Violation> {
        check("next_reverse", opening.open.next_reverse, 1)?;
        check(
            "oldest_unacknowledged",
            opening.open.oldest_unacknowledged,
            1,
        )?;
        let accept = SessionAccept {
            version: VERSION,
            host_incarnation: incarnation.to_bytes(),
            next_forward: 1,
            posted_limit: POSTED_WINDOW,
            non_posted_limit: NON_POSTED_WINDOW,
        };
        let header = FrameHeader {
            first_sequence: 1,
            ..header_for(opening.path)
        };
        let frame = Frame {
            header,
            body: Body::Accept(accept),
        };
        Ok(Self {
            path: opening.path,
            next_forward: 1,
            applied: 0,
            told: 0,
            told_posted: POSTED_WINDOW,
            queue: VecDeque::new(),
            current: None,
            generations: Generations::default(),
            generation_received: 0,
            outbound: Outbound::new(opening.open.dma_write_limit),
            reads: Reads::default(),
            posted: Grant::new(POSTED_WINDOW),
            non_posted: Grant::new(NON_POSTED_WINDOW),
            unanswered: VecDeque::new(),
            batch: BatchWriter::default(),
            batch_first: 1,
            outgoing: VecDeque::from([frame.encode()]),
            taken: 0,
            beat: 0,
            closed: None,
        })
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

    /// A frame came.
    ///
    /// # Errors
    /// When it breaks the protocol. Nothing of the frame is executed, the session is closed, and a `close` frame is ready to be sent.
    pub fn handle_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        let queued = self.queue.len();
        let result = self.take_frame(bytes);
        if let Err(violation) = &result {
            self.queue.truncate(queued);
            self.close(CloseCode::ProtocolViolation, format!("agent: {violation}"));
        }
        result
    }

    /// Ends the session: a last frame says why, and nothing more is executed.
    pub fn close(&mut self, code: CloseCode, message: String) {
        if !self.is_closed() {
            self.queue.clear();
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
            self.posted.free(cost(0));
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
        if !self.is_closed() {
            self.outbound.raise(self.applied, generation, vector);
        }
    }

    /// The device sets the level of INTx.
    pub fn set_intx(&mut self, level: bool) {
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
                self.posted.free(cost(access.bytes()));
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
        self.fill();
        if self.outgoing.is_empty() && (!self.batch.is_empty() || self.should_acknowledge()) {
            self.seal();
        }
        self.outgoing.pop_front()
    }

    /// The host's beat, sent with every frame.
    pub fn set_beat(&mut self, beat: u64) {
        self.beat = beat;
    }

    fn should_acknowledge(&self) -> bool {
        let idle = self.queue.is_empty() && self.current.is_none();
        let starved = self.posted.limit() - self.told_posted >= POSTED_WINDOW / 2;
        !self.is_closed() && ((idle && self.acknowledgeable() > self.told) || starved)
    }

    /// Answers the access after the last one that was applied, which makes it applied.
    fn answer(&mut self, status: Status, data: &[u8], cost: u64) {
        let sequence = self.applied + 1;
        // Most answers have nothing before them. The frame that has no room for one must not acknowledge it either.
        if self.outbound.is_clear() {
            self.make_room(data.len());
            self.batch.completion(sequence, status, data);
            self.non_posted.free(cost);
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
        self.outbound.acknowledgeable(self.applied)
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
                    let cost = self.unanswered.pop_front();
                    self.non_posted.free(cost.unwrap_or_default());
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

    fn seal(&mut self) {
        let header = self.header();
        self.told = header.acknowledged;
        self.told_posted = self.posted.limit();
        self.batch_first += self.batch.len() as u64;
        self.outgoing
            .push_back(frame::encode_batch(header, &mut self.batch));
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
        if self.is_closed() {
            return Ok(());
        }
        let frame = Frame::decode(bytes)?;
        check_path(&frame.header, self.path)?;
        self.check_acknowledged(&frame.header)?;
        match frame.body {
            Body::Empty => check_counts(&frame.header, &FrameHeader::default())?,
            Body::Batch(batch) => {
                check(
                    "first_sequence",
                    frame.header.first_sequence,
                    self.next_forward,
                )?;
                let counts = self.take_batch(batch)?;
                check_counts(&frame.header, &counts)?;
            }
            Body::Close(_) => {
                self.closed = Some(CloseCode::Normal);
                self.queue.clear();
            }
            Body::Open(_) => {
                return Err(Violation::Unexpected {
                    body: "open",
                    when: "on a live session",
                });
            }
            Body::Accept(_) => {
                return Err(Violation::Unexpected {
                    body: "accept",
                    when: "forward",
                });
            }
        }
        self.taken = self.taken.max(frame.header.acknowledged);
        self.outbound.acknowledge(self.taken);
        self.outbound
            .raise_dma_write_limit(frame.header.dma_write_limit);
        Ok(())
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
            queue.push_back(item);
            *next_forward += 1;
            Ok(())
        })
    }
}
