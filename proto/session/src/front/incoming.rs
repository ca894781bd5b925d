//! What comes from the host: checked, numbered, and made events.

use std::collections::VecDeque;

use bytes::Bytes;
use potemkin_proto::v1::FrameHeader;

use super::{Dma, DmaRead, DmaWrite, Failure, Front, FrontEvent, FrontState, Outstanding};
use crate::{
    RESUMABLE,
    access::{ReverseItem, Status},
    batch::read_reverse,
    credit::NON_POSTED_WINDOW,
    frame::{Body, Frame, check, check_counts, check_path},
    planted::{self, Bug},
    violation::Violation,
};

impl Front {
    pub(super) fn take_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        if !self.has_path() {
            // Late news of a session that is over here, or of a path, is no news.
            return Ok(());
        }
        let frame = Frame::decode(bytes)?;
        frame.require_check(self.version)?;
        let older = frame.header.attach_number < self.config.path.attach_number.0;
        if older && !planted::is(Bug::FrontHearsOldPath) {
            return Ok(());
        }
        if !older {
            check_path(&frame.header, self.config.path)?;
        }
        if planted::is(Bug::FrontSkipsGap) && self.state == FrontState::Live {
            self.next_reverse = self.next_reverse.max(frame.header.first_sequence);
        }
        match (self.hears_as(), frame.body) {
            (_, Body::Close(close)) => self.take_close(&close),
            (FrontState::Live, Body::Resend(resend)) => {
                self.check_no_gap(frame.header.first_sequence)?;
                self.take_header(&frame.header)?;
                self.take_resend(resend)?;
            }
            (FrontState::Live, body) => {
                self.watch.hear();
                self.take_body(&frame.header, body)?;
            }
            (_, Body::Accept(accept)) => {
                self.watch.hear();
                self.beat = self.beat.max(frame.header.beat);
                self.take_accept(&accept, frame.checked)?;
                if planted::is(Bug::AcceptAcknowledges) {
                    self.take_acknowledged(frame.header.acknowledged);
                }
            }
            _ => return Err(unexpected("frame", "before accept")),
        }
        Ok(())
    }

    fn has_path(&self) -> bool {
        matches!(
            self.hears_as(),
            FrontState::Opening | FrontState::Live | FrontState::Resuming
        )
    }

    /// The state that counts for what comes.
    fn hears_as(&self) -> FrontState {
        match self.state {
            FrontState::Contained if planted::is(Bug::ResultAfterContainment) => FrontState::Live,
            FrontState::Contained if planted::is(Bug::LateAcceptRevives) => FrontState::Resuming,
            state => state,
        }
    }

    fn take_body(&mut self, header: &FrameHeader, body: Body) -> Result<(), Violation> {
        match body {
            Body::Empty => {
                self.check_no_gap(header.first_sequence)?;
                check_counts(header, &FrameHeader::default())?;
                self.take_header(header)
            }
            Body::Batch(batch) => {
                self.check_first(header.first_sequence)?;
                let counts = self.take_batch(header.first_sequence, batch)?;
                if !self.flights.is_empty() {
                    self.dma.lend();
                }
                check_counts(header, &counts)?;
                // An acknowledgement takes effect after the body that it came with.
                self.take_header(header)
            }
            Body::Accept(_) => Err(unexpected("accept", "on a live session")),
            _ => Err(unexpected("open", "in reverse")),
        }
    }

    /// A frame without items says which number the next one will have: a batch that was lost before it must not be acknowledged over.
    fn check_no_gap(&self, first: u64) -> Result<(), Violation> {
        if self.version < RESUMABLE || first <= self.next_reverse {
            return Ok(());
        }
        check("first_sequence", first, self.next_reverse)
    }

    /// No gap. What came before comes again after a path was lost.
    fn check_first(&self, first: u64) -> Result<(), Violation> {
        let expected = self.next_reverse;
        let repeats = self.version >= RESUMABLE && (1..expected).contains(&first);
        if first == expected || repeats {
            return Ok(());
        }
        check("first_sequence", first, expected)
    }

    fn take_batch(&mut self, mut sequence: u64, batch: Bytes) -> Result<FrameHeader, Violation> {
        let Self {
            outstanding,
            events,
            next_reverse,
            dma,
            resetting,
            intx,
            completed_cost,
            ..
        } = self;
        read_reverse(batch, |item| {
            sequence += 1;
            let off_by_one = u64::from(planted::is(Bug::DuplicateOffByOne));
            if sequence + off_by_one <= *next_reverse {
                // It was taken before.
                if planted::is(Bug::DmaWriteTwice) {
                    events.extend(write_again(dma, sequence - 1, item)?);
                }
                return Ok(());
            }
            dma.receive(&item)?;
            events.push_back(match item {
                ReverseItem::Completion {
                    sequence,
                    status,
                    data,
                } => {
                    let (event, cost) = complete(outstanding, sequence, status, data)?;
                    *completed_cost += cost;
                    dma.acknowledge |= *completed_cost >= NON_POSTED_WINDOW / 2;
                    event
                }
                ReverseItem::DmaWrite {
                    generation,
                    address,
                    data,
                } => FrontEvent::DmaWrite(DmaWrite {
                    sequence: *next_reverse,
                    generation,
                    address,
                    data,
                }),
                ReverseItem::DmaRead {
                    generation,
                    id,
                    address,
                    length,
                } => FrontEvent::DmaRead(DmaRead {
                    id,
                    generation,
                    address,
                    length,
                }),
                ReverseItem::Msi { generation, vector } => {
                    FrontEvent::Interrupt { generation, vector }
                }
                ReverseItem::Intx(level) => {
                    *intx = level;
                    // Of the time before.
                    if resetting.is_some() && !planted::is(Bug::StaleIntx) {
                        *next_reverse += 1;
                        return Ok(());
                    }
                    FrontEvent::Intx(level)
                }
            });
            *next_reverse += 1;
            Ok(())
        })
    }

    fn take_header(&mut self, header: &FrameHeader) -> Result<(), Violation> {
        let sent = self.batch_first - 1;
        if header.acknowledged > sent {
            return Err(Violation::Header {
                field: "acknowledged",
                found: header.acknowledged,
                expected: sent,
            });
        }
        if let Some(waiting) = self.outstanding.front()
            && header.acknowledged >= waiting.sequence
        {
            return Err(Violation::Completion {
                sequence: waiting.sequence,
                problem: "acknowledged without a completion",
            });
        }
        self.beat = self.beat.max(header.beat);
        self.take_acknowledged(header.acknowledged);
        self.posted.raise(header.posted_limit);
        self.non_posted.raise(header.non_posted_limit);
        self.unblock();
        Ok(())
    }

    fn take_acknowledged(&mut self, acknowledged: u64) {
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.land();
        }
    }

    /// What was waited for is done.
    fn land(&mut self) {
        if self
            .resetting
            .is_some_and(|reset| reset <= self.acknowledged)
        {
            self.resetting = None;
            // Whatever was shown of the time before.
            self.events.push_back(FrontEvent::Intx(self.intx));
        }
        self.flights.land(self.acknowledged);
    }
}

/// Planted: a DMA write that was taken before, to be done once more.
fn write_again(
    dma: &mut Dma,
    sequence: u64,
    item: ReverseItem,
) -> Result<Option<FrontEvent>, Violation> {
    if let ReverseItem::DmaWrite { .. } = item {
        dma.receive(&item)?;
    }
    let ReverseItem::DmaWrite {
        generation,
        address,
        data,
    } = item
    else {
        return Ok(None);
    };
    Ok(Some(FrontEvent::DmaWrite(DmaWrite {
        sequence,
        generation,
        address,
        data,
    })))
}

fn unexpected(body: &'static str, when: &'static str) -> Violation {
    Violation::Unexpected { body, when }
}

/// Matches a completion to the oldest access that waits: the host executes in order, so it answers in order. Gives what it cost, too.
fn complete(
    outstanding: &mut VecDeque<Outstanding>,
    sequence: u64,
    status: Status,
    data: Bytes,
) -> Result<(FrontEvent, u64), Violation> {
    let wrong = |problem| Violation::Completion { sequence, problem };
    let waiting = outstanding
        .front()
        .filter(|waiting| waiting.sequence == sequence)
        .ok_or_else(|| wrong("not the oldest access that waits"))?;
    let expected = match status {
        Status::Ok => waiting.answer_bytes,
        Status::DeviceError => 0,
    };
    if data.len() != expected {
        return Err(wrong("length of data"));
    }
    let cost = waiting.cost;
    outstanding.pop_front();
    let event = FrontEvent::Completed {
        sequence,
        outcome: match status {
            Status::Ok => Ok(data),
            Status::DeviceError => Err(Failure::Device),
        },
    };
    Ok((event, cost))
}
