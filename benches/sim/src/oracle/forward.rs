//! Accesses: issued, applied, answered, shown, acknowledged.

use potemkin_session::credit::POSTED_WINDOW;

use super::{
    Clause, LogId, Oracle,
    log::Answer,
    op::{Kind, Op},
};
use crate::{clock::Micros, rng::mix};

/// What stands for an answer that is an error.
const DEVICE_ERROR: u64 = u64::MAX - 1;
/// Answers that may wait: the credits of non-posted accesses.
const ANSWERS_MAX: usize = 1_024;
/// Items that may be issued and not acknowledged: all credits, and some events.
const UNACKNOWLEDGED_MAX: u64 = 16_384 + 1_024 + 1_024;

/// What a posted write costs in credits, by its shape.
fn posted_cost(shape: u64) -> u64 {
    let is_posted = shape & 0xf == Kind::Posted as u64;
    let bytes = (shape >> 16 & 0xffff) << (shape >> 4 & 0xf);
    if is_posted { 1 + bytes / 64 } else { 0 }
}

impl Oracle {
    /// The guest made an access, which the session took. Gives its index.
    pub(crate) fn issue(&mut self, id: LogId, shape: u64, value: u64, sequence: u64) -> usize {
        self.issued += 1;
        let log = &mut self.logs[id.0];
        log.posted_issued += posted_cost(shape);
        let waiting = log.posted_issued - log.posted_applied.min(log.posted_issued);
        if waiting > POSTED_WINDOW {
            self.fail(Clause::Bounded, || {
                format!("posted writes that cost {waiting} credits are not applied")
            });
        }
        let issued = &mut self.logs[id.0].issued;
        issued.push(Op {
            shape,
            value,
            sequence,
        });
        issued.len() - 1
    }

    /// The guest reset the function or turned bus mastering off: what follows is behind that.
    pub(crate) fn issue_mark(&mut self, id: LogId, reset: bool, floor: u64) {
        let issued = &mut self.logs[id.0].issued;
        let shape = if reset { Op::MARK_RESET } else { Op::MARK };
        match issued.last_mut() {
            // Several between two accesses may be told as one.
            Some(last) if last.is_mark() => {
                last.shape |= shape;
                last.value = floor;
            }
            _ => issued.push(Op {
                shape,
                value: floor,
                sequence: 0,
            }),
        }
    }

    /// The device heard of a reset, or of bus mastering turned off.
    pub(crate) fn told(&mut self, id: LogId, reset: bool, floor: u64) {
        let log = &mut self.logs[id.0];
        log.told_floor = floor;
        log.reset_since |= reset;
        log.floor = floor;
    }

    /// An access reached the device. Gives its index.
    pub(crate) fn apply(&mut self, id: LogId, shape: u64, value: u64) -> usize {
        self.check_owner(id);
        self.applied += 1;
        self.take_mark(id);
        let log = &mut self.logs[id.0];
        let index = log.applied;
        log.applied += 1;
        log.posted_applied += posted_cost(shape);
        if log.set_back {
            return self.wrong_after_set_back(index);
        }
        match log.issued.get(index).copied() {
            Some(op) if (op.shape, op.value) == (shape, value) => {}
            Some(op) => self.wrong_access(id, index, op, (shape, value)),
            None => self.fail(Clause::OnceInOrder, || {
                format!("access {index} was applied and never issued: shape {shape:#x}, value {value:#x}")
            }),
        }
        index
    }

    /// The host has what the agent does not know of: it must not go on with the agent's new accesses.
    fn wrong_after_set_back(&mut self, index: usize) -> usize {
        self.fail(Clause::SetBackEnds, || {
            format!("access {index} was applied after the agent was set back: what it did before that was swallowed")
        });
        index
    }

    /// Another one of the session, or none at all?
    fn wrong_access(&mut self, id: LogId, index: usize, op: Op, (shape, value): (u64, u64)) {
        let issued = &self.logs[id.0].issued;
        let at = issued
            .iter()
            .position(|op| (op.shape, op.value) == (shape, value));
        let clause = if at.is_some() {
            Clause::OnceInOrder
        } else {
            Clause::SameContents
        };
        self.fail(clause, || {
            format!(
                "access {index} (shape {:#x}, value {:#x}) was to be applied, and what was is shape {shape:#x}, value {value:#x}, issued as {at:?}",
                op.shape, op.value
            )
        });
    }

    /// Resets between the last access and the next have been told by now.
    fn take_mark(&mut self, id: LogId) {
        let log = &mut self.logs[id.0];
        let mark = log.issued.get(log.applied).copied().filter(Op::is_mark);
        let told = std::mem::take(&mut log.told_floor);
        let reset = std::mem::take(&mut log.reset_since);
        let right = match mark {
            None => told == 0 && !reset,
            Some(mark) => told >= mark.value && reset == (mark.shape == Op::MARK_RESET),
        };
        if mark.is_some() {
            log.applied += 1;
        }
        if !right {
            let index = log.applied;
            self.fail(Clause::ResetInOrder, || {
                format!("before access {index}: issued {mark:?}, told floor {told}, reset {reset}")
            });
        }
    }

    /// The device answered the access that it was given. `None`: with an error.
    pub(crate) fn answer(&mut self, id: LogId, index: usize, data: Option<u64>) {
        let log = &mut self.logs[id.0];
        log.answers.push_back(Answer {
            index,
            result: data.map_or(DEVICE_ERROR, mix),
            written: log.begun,
        });
        let waiting = log.answers.len();
        if waiting > ANSWERS_MAX {
            self.fail(Clause::Bounded, || {
                format!("{waiting} answers wait to be taken")
            });
        }
    }

    /// An access made DMA: its acknowledgement comes behind that.
    pub(crate) fn note_effect(&mut self, id: LogId, index: usize) {
        let log = &mut self.logs[id.0];
        if let Some(op) = log.issued.get(index) {
            log.effects.push_back((op.sequence, log.begun));
        }
    }

    /// The guest sees a result. `None`: a device error.
    pub(crate) fn shown(&mut self, id: LogId, index: usize, data: Option<u64>) {
        let log = &mut self.logs[id.0];
        if log.ending.is_some() {
            return self.fail(Clause::SilentAfterContainment, || {
                format!("the result of access {index} was shown after the session was contained")
            });
        }
        let result = data.map_or(DEVICE_ERROR, mix);
        let answer = log.answers.pop_front();
        let arrived = log.arrived_up_to(answer.map_or(0, |answer| answer.written));
        match answer {
            Some(answer) if answer.index == index && answer.result == result => {
                if arrived < answer.written {
                    self.fail(Clause::DmaBeforeAnswer, || {
                        format!("access {index} was answered after {} DMA writes, {arrived} have arrived", answer.written)
                    });
                }
            }
            other => self.fail(Clause::TrueResult, || {
                format!("access {index} shows {result:#x}, the device's next answer is {other:x?}")
            }),
        }
    }

    /// The agent's session counts items up to `acknowledged` as done, and has taken items up to `taken`.
    pub(crate) fn acknowledged(&mut self, id: LogId, acknowledged: u64, taken: u64) {
        let log = &mut self.logs[id.0];
        if log.set_back {
            return;
        }
        let next = log.issued[log.applied.min(log.issued.len())..]
            .iter()
            .find(|op| !op.is_mark());
        let next = next.map(|op| op.sequence);
        let mut missing = None;
        while let Some((sequence, written)) = log.effects.front().copied()
            && sequence <= acknowledged
        {
            log.effects.pop_front();
            let arrived = log.arrived_up_to(written);
            missing = missing.or((arrived < written).then_some((sequence, written, arrived)));
        }
        if let Some(next) = next.filter(|next| *next <= acknowledged) {
            self.fail(Clause::AppliedBeforeAcknowledged, || {
                format!("acknowledged up to {acknowledged}, and {next} is not applied")
            });
        }
        if let Some((sequence, written, arrived)) = missing {
            self.fail(Clause::DmaBeforeAnswer, || {
                format!("item {sequence} is acknowledged, of {written} DMA writes before that {arrived} have arrived")
            });
        }
        if taken - acknowledged > UNACKNOWLEDGED_MAX {
            self.fail(Clause::Bounded, || {
                format!(
                    "{} items wait for their acknowledgement",
                    taken - acknowledged
                )
            });
        }
    }

    /// At rest: all that was issued was applied, and all results were shown.
    pub(crate) fn check_whole(&mut self, id: LogId) {
        if self.logs[id.0].issued.last().is_some_and(Op::is_mark)
            && self.logs[id.0].applied + 1 == self.logs[id.0].issued.len()
        {
            self.take_mark(id);
        }
        let log = &self.logs[id.0];
        let (issued, applied, waiting) = (log.issued.len(), log.applied, log.answers.len());
        if issued != applied || waiting != 0 {
            self.fail(Clause::Settles, || {
                format!("at rest {issued} accesses are issued, {applied} applied, {waiting} answers not shown")
            });
        }
    }

    /// An access waits since then.
    pub(crate) fn check_wait(&mut self, since: Micros, now: Micros, deadline: Micros) {
        if now > since + deadline {
            self.fail(Clause::Deadline, || {
                format!(
                    "an access waits for {} us, the deadline is {deadline} us",
                    now - since
                )
            });
        }
    }
}
