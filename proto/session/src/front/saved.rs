//! A front half as a value, for a process that hands its session over to another.
//!
//! What is saved has no path: the other process dials, as after any that was lost. So a session that cannot be resumed cannot be saved either.

use std::time::{Duration, Instant};

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, FrameHeader};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Front, FrontConfig, FrontCounters, FrontState, Outstanding, flights::Flight};
use crate::{
    RESUMABLE, VERSION,
    access::{DmaError, MAX_ACCESS_BYTES},
    batch::read_forward,
    credit::{Allowance, DMA_READ_WINDOW, DMA_WRITE_WINDOW, Grant},
    frame::{MAX_BATCH_BYTES, MAX_HEADER_BYTES, check_counts},
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
    sent::SentBatch,
};

/// No session comes so far: numbers below it can be counted up.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// A front half as it was at one moment; times are relative to that.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs)] // The fields of `Front`.
pub struct SavedFront {
    #[serde(with = "potemkin_pci::hex")]
    pub session: [u8; 16],
    pub epoch: u64,
    pub attach_number: u32,
    #[serde(with = "potemkin_pci::hex")]
    pub host_incarnation: [u8; 16],
    pub deadline_us: u64,
    pub version: u32,
    /// It is contained: nothing else counts.
    pub contained: bool,
    pub next_sequence: u64,
    pub acknowledged: u64,
    pub flights: Vec<SavedBatch>,
    pub outstanding: Vec<SavedAccess>,
    pub posted: SavedAllowance,
    pub non_posted: SavedAllowance,
    pub completed_cost: u64,
    pub next_reverse: u64,
    pub beat: u64,
    pub dma: SavedDma,
    pub due: SavedDue,
    pub resetting: Option<u64>,
    pub intx: bool,
    /// Number of the reason that the other side gave when it ended the session.
    #[serde(default)]
    pub closed_by: Option<i32>,
    #[serde(default)]
    pub counters: FrontCounters,
}

/// A batch that is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedBatch {
    /// Its header, encoded.
    #[serde(with = "potemkin_pci::hex")]
    pub header: Vec<u8>,
    /// Its items, encoded.
    #[serde(with = "potemkin_pci::hex")]
    pub body: Bytes,
    /// For how long it has been under way.
    pub age_us: u64,
    /// How long it may still be; below 0 when it is late.
    pub left_us: i64,
}

/// An access that waits for its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedAccess {
    /// Its number.
    pub sequence: u64,
    /// Bytes that its completion holds when it is good.
    pub answer_bytes: usize,
    /// Credits that it holds.
    pub cost: u64,
}

/// What was used of a class of credits, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct SavedAllowance {
    pub used: u64,
    pub limit: u64,
}

/// What was granted of a class of credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct SavedGrant {
    pub received: u64,
    pub freed: u64,
    pub lent: u64,
}

/// What the device started itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct SavedDma {
    pub generation: u64,
    pub floor: u64,
    pub writes: SavedGrant,
    pub told_limit: u64,
    pub reads: SavedGrant,
    pub interrupts: u32,
    pub acknowledge: bool,
}

/// What goes before the next access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct SavedDue {
    pub reset: bool,
    pub bus_master_off: bool,
    pub unmapped: bool,
    pub failed_write: Option<(u64, DmaError)>,
}

/// Why a front half cannot be saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSaved {
    /// It has not been opened, its host does not resume sessions, or it was closed.
    #[error("the session cannot be resumed: it is not open, or its host is too old for that")]
    NotResumable,
    /// It has a path, or events that nobody has taken.
    #[error("the session has not been brought to a stand")]
    Moving,
}

/// A saved front half that cannot be one; the text names what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("saved session: {0}")]
pub struct SavedError(&'static str);

impl Front {
    /// Whether [`Self::save`] will do, once the path is given up and all events are taken.
    pub fn is_savable(&self) -> bool {
        match self.state {
            FrontState::Opening | FrontState::Closed => false,
            FrontState::Contained => true,
            FrontState::Live | FrontState::Interrupted | FrontState::Resuming => {
                self.version >= RESUMABLE
            }
        }
    }

    /// As it is now: without a path ([`Self::handle_lost`]), all events taken. It may go on afterwards.
    ///
    /// # Errors
    /// When it cannot be saved, or not in this state.
    pub fn save(&mut self, now: Instant) -> Result<SavedFront, NotSaved> {
        if !self.is_savable() {
            return Err(NotSaved::NotResumable);
        }
        let stands = matches!(self.state, FrontState::Interrupted | FrontState::Contained);
        if !stands || !self.events.is_empty() {
            return Err(NotSaved::Moving);
        }
        if !self.batch.is_empty() && self.state == FrontState::Interrupted {
            self.seal(now);
        }
        let path = self.config.path;
        Ok(SavedFront {
            session: path.session.to_bytes(),
            epoch: path.epoch.0,
            attach_number: path.attach_number.0,
            host_incarnation: self.config.host_incarnation.as_bytes(),
            deadline_us: micros(self.config.deadline),
            version: self.version,
            contained: self.state == FrontState::Contained,
            next_sequence: self.next_sequence,
            acknowledged: self.acknowledged,
            flights: self
                .flights
                .iter()
                .map(|flight| save(flight, now))
                .collect(),
            outstanding: self.outstanding.iter().map(SavedAccess::from).collect(),
            posted: self.posted.into(),
            non_posted: self.non_posted.into(),
            completed_cost: self.completed_cost,
            next_reverse: self.next_reverse,
            beat: self.beat,
            dma: SavedDma {
                generation: self.dma.generation,
                floor: self.dma.floor,
                writes: self.dma.writes.into(),
                told_limit: self.dma.told_limit,
                reads: self.dma.reads.into(),
                interrupts: self.dma.interrupts,
                acknowledge: self.dma.acknowledge,
            },
            due: SavedDue {
                reset: self.due.reset,
                bus_master_off: self.due.bus_master_off,
                unmapped: self.due.unmapped,
                failed_write: self.due.failed_write,
            },
            resetting: self.resetting,
            intx: self.intx,
            closed_by: self.closed_by.map(i32::from),
            counters: self.counters,
        })
    }

    /// As it was saved at `then`: contained, or without a path ([`Self::wants_path`]).
    ///
    /// # Errors
    /// What in it cannot be.
    pub fn restore(saved: SavedFront, then: Instant) -> Result<Self, SavedError> {
        let mut front = Self::new(saved.config()?, then);
        front.outgoing.clear();
        front.open_deadline = None;
        front.version = saved.version;
        front.counters = saved.counters;
        front.closed_by = saved
            .closed_by
            .and_then(|code| CloseCode::try_from(code).ok());
        front.next_sequence = saved.next_sequence;
        front.acknowledged = saved.acknowledged;
        front.next_reverse = saved.next_reverse;
        saved.check_numbers()?;
        front.batch_first = saved.next_sequence;
        front.dma.generation = saved.dma.generation;
        front.dma.floor = saved.dma.floor;
        if saved.contained {
            front.state = FrontState::Contained;
            return Ok(front);
        }
        front.state = FrontState::Interrupted;
        front.put_flights(&saved, then)?;
        front.put_outstanding(&saved)?;
        front.put_credits(&saved)?;
        front.completed_cost = saved.completed_cost;
        front.beat = saved.beat;
        front.due.reset = saved.due.reset;
        front.due.bus_master_off = saved.due.bus_master_off;
        front.due.unmapped = saved.due.unmapped;
        front.due.failed_write = saved.due.failed_write;
        front.resetting = saved.resetting;
        front.intx = saved.intx;
        Ok(front)
    }

    /// They follow each other, up to the last item that was taken.
    fn put_flights(&mut self, saved: &SavedFront, then: Instant) -> Result<(), SavedError> {
        let wrong = Err(SavedError(
            "flights: not the items that are not acknowledged",
        ));
        let mut next = None;
        for flight in &saved.flights {
            let batch = flight.batch()?;
            let first = batch.first();
            let follows = match next {
                Some(next) => first == next,
                None => first <= saved.acknowledged + 1 && batch.last() > saved.acknowledged,
            };
            if !follows || batch.last() >= saved.next_sequence {
                return wrong;
            }
            next = Some(batch.last() + 1);
            let sent_at = earlier(then, Duration::from_micros(flight.age_us));
            self.flights.push(batch, sent_at, flight.deadline(then));
        }
        if next.unwrap_or(saved.acknowledged + 1) != saved.next_sequence {
            return wrong;
        }
        Ok(())
    }

    fn put_outstanding(&mut self, saved: &SavedFront) -> Result<(), SavedError> {
        let mut after = saved.acknowledged;
        for access in &saved.outstanding {
            let sound = access.sequence > after
                && access.sequence < saved.next_sequence
                && access.answer_bytes <= MAX_ACCESS_BYTES
                && access.cost <= saved.non_posted.used;
            if !sound {
                return Err(SavedError("outstanding: not accesses that wait"));
            }
            after = access.sequence;
            self.outstanding.push_back(Outstanding {
                sequence: access.sequence,
                answer_bytes: access.answer_bytes,
                cost: access.cost,
            });
        }
        Ok(())
    }

    fn put_credits(&mut self, saved: &SavedFront) -> Result<(), SavedError> {
        let wrong = SavedError("credits: more was used than granted");
        let allowance = |saved: SavedAllowance| Allowance::restore(saved.used, saved.limit);
        let grant = |window, saved: SavedGrant| {
            Grant::restore(window, (saved.received, saved.freed, saved.lent))
        };
        self.posted = allowance(saved.posted).ok_or(wrong)?;
        self.non_posted = allowance(saved.non_posted).ok_or(wrong)?;
        self.dma.writes = grant(DMA_WRITE_WINDOW, saved.dma.writes).ok_or(wrong)?;
        self.dma.reads = grant(DMA_READ_WINDOW, saved.dma.reads).ok_or(wrong)?;
        self.dma.told_limit = saved.dma.told_limit.min(self.dma.writes.limit());
        self.dma.interrupts = saved.dma.interrupts;
        self.dma.acknowledge = saved.dma.acknowledge;
        Ok(())
    }
}

impl SavedFront {
    fn config(&self) -> Result<FrontConfig, SavedError> {
        let known = (RESUMABLE..=VERSION).contains(&self.version);
        if !known && !self.contained {
            return Err(SavedError("version: not one that is spoken here"));
        }
        if self.attach_number == u32::MAX {
            return Err(SavedError("attach_number: there is none behind it"));
        }
        Ok(FrontConfig {
            path: Path {
                session: SessionId::from_bytes(self.session),
                epoch: Epoch(self.epoch),
                attach_number: AttachNumber(self.attach_number),
            },
            host_incarnation: Incarnation::from_bytes(self.host_incarnation),
            deadline: Duration::from_micros(self.deadline_us),
        })
    }

    fn check_numbers(&self) -> Result<(), SavedError> {
        let count = |number: u64| (1..=NUMBER_MAX).contains(&number);
        if !count(self.next_sequence) || !count(self.next_reverse) {
            return Err(SavedError("numbers of items: out of range"));
        }
        if self.acknowledged >= self.next_sequence {
            return Err(SavedError("acknowledged: more than was sent"));
        }
        if self.dma.floor > self.dma.generation || self.dma.generation > NUMBER_MAX {
            return Err(SavedError("dma.generation: out of range"));
        }
        let waits = |reset: u64| reset < self.next_sequence || reset == u64::MAX;
        if !self.resetting.is_none_or(waits) {
            return Err(SavedError("resetting: not an item that was sent"));
        }
        Ok(())
    }
}

impl SavedBatch {
    /// Decoded, and each number of it checked, as if it had come from a peer.
    fn batch(&self) -> Result<SentBatch, SavedError> {
        let wrong = |_| SavedError("flights: not a batch");
        if self.header.len() > MAX_HEADER_BYTES || self.body.len() > MAX_BATCH_BYTES {
            return Err(SavedError("flights: a batch is too long"));
        }
        let header = FrameHeader::decode(&self.header[..])
            .map_err(|_| SavedError("flights: not a header"))?;
        let mut items = 0;
        let counts = read_forward(self.body.clone(), |_| {
            items += 1;
            Ok(())
        });
        check_counts(&header, &counts.map_err(wrong)?).map_err(wrong)?;
        if items == 0 || !(1..=NUMBER_MAX).contains(&header.first_sequence) {
            return Err(SavedError(
                "flights: a batch without items, or without a number",
            ));
        }
        Ok(SentBatch::from_parts(header, items, self.body.clone()))
    }

    fn deadline(&self, then: Instant) -> Instant {
        let distance = Duration::from_micros(self.left_us.unsigned_abs());
        if self.left_us < 0 {
            earlier(then, distance)
        } else {
            then.checked_add(distance).unwrap_or(then)
        }
    }
}

fn save(flight: &Flight, now: Instant) -> SavedBatch {
    let (header, body) = flight.batch.parts();
    let left = micros(flight.deadline.saturating_duration_since(now));
    let late = micros(now.saturating_duration_since(flight.deadline));
    let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
    SavedBatch {
        header: header.encode_to_vec(),
        body: body.clone(),
        age_us: micros(now.saturating_duration_since(flight.sent_at)),
        left_us: signed(left) - signed(late),
    }
}

fn earlier(then: Instant, distance: Duration) -> Instant {
    then.checked_sub(distance).unwrap_or(then)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl From<&Outstanding> for SavedAccess {
    fn from(access: &Outstanding) -> Self {
        Self {
            sequence: access.sequence,
            answer_bytes: access.answer_bytes,
            cost: access.cost,
        }
    }
}

impl From<Allowance> for SavedAllowance {
    fn from(allowance: Allowance) -> Self {
        let (used, limit) = allowance.parts();
        Self { used, limit }
    }
}

impl From<Grant> for SavedGrant {
    fn from(grant: Grant) -> Self {
        let (received, freed, lent) = grant.parts();
        Self {
            received,
            freed,
            lent,
        }
    }
}
