//! What comes from the host: checked, numbered, and made events.

use std::collections::VecDeque;

use bytes::Bytes;
use potemkin_proto::v1::{FrameHeader, SessionAccept, SessionClose};

use super::{DmaRead, DmaWrite, Failure, Front, FrontEvent, FrontState, Outstanding};
use crate::{
    VERSION,
    access::{ReverseItem, Status},
    batch::read_reverse,
    frame::{Body, Frame, check, check_counts, check_path},
    ids::Incarnation,
    violation::Violation,
};

impl Front {
    pub(super) fn take_frame(&mut self, bytes: Bytes) -> Result<(), Violation> {
        let frame = Frame::decode(bytes)?;
        check_path(&frame.header, self.config.path)?;
        match (self.state, frame.body) {
            // Late news of a session that is over here is no news.
            (FrontState::Contained | FrontState::Closed, _) => Ok(()),
            (_, Body::Close(close)) => {
                self.take_close(&close);
                Ok(())
            }
            (FrontState::Opening, Body::Accept(accept)) => self.take_accept(&accept),
            (FrontState::Opening, _) => Err(unexpected("frame", "before accept")),
            (FrontState::Live, Body::Empty) => {
                check_counts(&frame.header, &FrameHeader::default())?;
                self.take_header(&frame.header)
            }
            (FrontState::Live, Body::Batch(batch)) => {
                check(
                    "first_sequence",
                    frame.header.first_sequence,
                    self.next_reverse,
                )?;
                let counts = self.take_batch(batch)?;
                if !self.flights.is_empty() {
                    self.dma.lend();
                }
                check_counts(&frame.header, &counts)?;
                // An acknowledgement takes effect after the body that it came with.
                self.take_header(&frame.header)
            }
            (FrontState::Live, Body::Accept(_)) => Err(unexpected("accept", "on a live session")),
            (FrontState::Live, Body::Open(_)) => Err(unexpected("open", "in reverse")),
        }
    }

    fn take_close(&mut self, close: &SessionClose) {
        let code = close.code().as_str_name().trim_start_matches("CLOSE_CODE_");
        self.contain(format!(
            "closed by the other side: {code}: {}",
            close.message
        ));
    }

    fn take_accept(&mut self, accept: &SessionAccept) -> Result<(), Violation> {
        if accept.version != VERSION {
            return Err(Violation::Version {
                min: accept.version,
                max: accept.version,
                ours: VERSION,
            });
        }
        check("next_forward", accept.next_forward, 1)?;
        if Incarnation::from_slice(&accept.host_incarnation) != Some(self.config.host_incarnation) {
            return Err(unexpected("accept", "from another incarnation of the host"));
        }
        self.posted.raise(accept.posted_limit);
        self.non_posted.raise(accept.non_posted_limit);
        self.open_deadline = None;
        self.state = FrontState::Live;
        self.events.push_back(FrontEvent::Opened);
        self.unblock();
        Ok(())
    }

    fn take_batch(&mut self, batch: Bytes) -> Result<FrameHeader, Violation> {
        let Self {
            outstanding,
            events,
            next_reverse,
            dma,
            resetting,
            intx,
            ..
        } = self;
        read_reverse(batch, |item| {
            dma.receive(&item)?;
            events.push_back(match item {
                ReverseItem::Completion {
                    sequence,
                    status,
                    data,
                } => complete(outstanding, sequence, status, data)?,
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
                    if resetting.is_some() {
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
        if header.acknowledged > self.acknowledged {
            self.acknowledged = header.acknowledged;
            self.land();
        }
        self.posted.raise(header.posted_limit);
        self.non_posted.raise(header.non_posted_limit);
        self.unblock();
        Ok(())
    }

    /// Forgets the flights that have landed in full. One that has landed in part keeps its deadline: a host that acknowledges one
    /// item at a time must not be able to hold a vCPU for longer.
    fn land(&mut self) {
        if self
            .resetting
            .is_some_and(|reset| reset <= self.acknowledged)
        {
            self.resetting = None;
            // Whatever was shown of the time before.
            self.events.push_back(FrontEvent::Intx(self.intx));
        }
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.last_sequence <= self.acknowledged)
        {
            self.flights.pop_front();
        }
    }
}

fn unexpected(body: &'static str, when: &'static str) -> Violation {
    Violation::Unexpected { body, when }
}

/// Matches a completion to the oldest access that waits: the host executes in order, so it answers in order.
fn complete(
    outstanding: &mut VecDeque<Outstanding>,
    sequence: u64,
    status: Status,
    data: Bytes,
) -> Result<FrontEvent, Violation> {
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
    outstanding.pop_front();
    Ok(FrontEvent::Completed {
        sequence,
        outcome: match status {
            Status::Ok => Ok(data),
            Status::DeviceError => Err(Failure::Device),
        },
    })
}
