//! The guest: a program of bursts, reads, doorbells, resets, and pauses.

use std::collections::VecDeque;

use potemkin_pci::{BarIndex, Space, Width};
use potemkin_session::{
    access::{Extent, Location, Posting},
    front::{Refused, Revocation},
};

use super::{bus::WINDOWS, session::Session};
use crate::{
    clock::{MILLI, Micros},
    ctx::Ctx,
    device::register,
    oracle::{Kind, shape, value_of},
    plan::GuestPlan,
    rng::Rng,
};

/// An access that is to be made.
#[derive(Debug, Clone, Copy)]
struct Draft {
    at: Location,
    extent: Extent,
    kind: Kind,
    value: u64,
    push: bool,
}

/// One that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    sequence: u64,
    index: usize,
    since: Micros,
}

/// What the accesses of a step are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Burst,
    Reads,
    NonPosted,
    Block,
    Doorbell,
    Level,
    Last,
}

#[derive(Debug)]
pub(super) struct Guest {
    plan: GuestPlan,
    rng: Rng,
    made: u64,
    step: Step,
    /// Accesses left of the step.
    left: u64,
    /// One that was refused for want of credit.
    retry: Option<Draft>,
    blocked_since: Option<Micros>,
    waiting: VecDeque<Waiting>,
    /// Waits for an interrupt, at most until then.
    interrupt_by: Option<Micros>,
    next_at: Micros,
    /// Steps since all is calm.
    epilogues: u32,
    /// The last access of all has been made.
    done: bool,
    data: Vec<u8>,
}

const BAR: Space = Space::Bar(BarIndex::B0);

impl Guest {
    pub(super) fn new(plan: GuestPlan, rng: Rng) -> Self {
        Self {
            plan,
            rng,
            made: 0,
            step: Step::Burst,
            left: 0,
            retry: None,
            blocked_since: None,
            waiting: VecDeque::new(),
            interrupt_by: None,
            next_at: 0,
            epilogues: 0,
            done: false,
            data: Vec::new(),
        }
    }

    /// Another guest, in another process.
    pub(super) fn restart(&mut self) {
        self.contained();
        self.next_at = 0;
    }

    /// A session begins.
    pub(super) fn begin(&mut self) {
        self.contained();
    }

    /// Nothing of the session that was is waited for.
    pub(super) fn contained(&mut self) {
        self.left = 0;
        self.retry = None;
        self.blocked_since = None;
        self.waiting.clear();
        self.interrupt_by = None;
        self.epilogues = 0;
        self.done = false;
    }

    /// Its index, and since when it waited.
    pub(super) fn answered(&mut self, sequence: u64) -> Option<(usize, Micros)> {
        let first = self
            .waiting
            .front()
            .filter(|waiting| waiting.sequence == sequence)?;
        let first = (first.index, first.since);
        self.waiting.pop_front();
        Some(first)
    }

    pub(super) fn failed(&mut self, sequence: u64) {
        self.waiting.retain(|waiting| waiting.sequence != sequence);
    }

    pub(super) fn interrupted(&mut self) {
        self.interrupt_by = None;
    }

    pub(super) fn waits_since(&self) -> Option<Micros> {
        let answer = self.waiting.front().map(|waiting| waiting.since);
        answer.into_iter().chain(self.blocked_since).min()
    }

    pub(super) fn is_done(&self) -> bool {
        self.done && self.waiting.is_empty() && self.left == 0 && self.retry.is_none()
    }

    pub(super) fn next_wake(&self) -> Option<Micros> {
        if self.done || !self.waiting.is_empty() {
            return None;
        }
        match (self.blocked_since, self.interrupt_by) {
            (Some(since), _) => Some(since + self.plan.deadline),
            (None, Some(by)) => Some(by),
            (None, None) => Some(self.next_at),
        }
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{:?} {} left, {} wait, blocked {:?}, done {}",
            self.step,
            self.left,
            self.waiting.len(),
            self.blocked_since,
            self.done
        )
    }

    /// Nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.left == 0 && self.retry.is_none()
    }

    /// Some posted writes, whatever its program is at.
    pub(super) fn write_some(
        &mut self,
        ctx: &mut Ctx,
        session: &mut Session,
        now: Micros,
        count: u64,
    ) {
        self.step = Step::Burst;
        for _ in 0..count {
            let draft = self.draft();
            if let Ok(sequence) = self.submit(ctx, session, now, draft) {
                self.taken(ctx, session, now, draft, sequence);
            }
        }
        session.front.push();
    }

    /// Makes accesses until it has to wait. True: something was made.
    pub(super) fn run(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) -> bool {
        let mut made = false;
        loop {
            if self.left > 0 || self.retry.is_some() {
                if !self.access(ctx, session, now) {
                    return made;
                }
                made = true;
                continue;
            }
            if !self.waiting.is_empty() || self.done {
                return made;
            }
            if self.interrupt_by.is_some_and(|by| now < by) && !ctx.calm {
                return made;
            }
            self.interrupt_by = None;
            if ctx.calm {
                self.next_at = now + ctx.until_epilogue();
            }
            if now < self.next_at {
                return made;
            }
            if !self.next_step(ctx, session, now) {
                return made;
            }
        }
    }

    /// Chooses what comes next. False: nothing, for now.
    fn next_step(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) -> bool {
        if ctx.calm {
            self.epilogue(ctx, session, now);
            return true;
        }
        if self.made >= self.plan.quota {
            self.next_at = now + ctx.plan.chaos;
            return false;
        }
        self.next_at = now + self.rng.below(2 * self.plan.pause + 1);
        let drawn = self.rng.below(1000);
        if drawn < self.plan.revoke {
            self.revoke(ctx, session, now);
            return true;
        }
        let depth = self.plan.depth;
        (self.step, self.left) = if drawn < self.plan.revoke + self.plan.doorbell {
            (Step::Doorbell, 1)
        } else {
            match self.rng.below(10) {
                0..8 if self.plan.floods => (Step::Block, self.rng.skewed(self.plan.burst_max)),
                0..5 => (Step::Burst, self.rng.skewed(self.plan.burst_max)),
                5..8 => (Step::Reads, self.rng.within(1, depth)),
                8 => (Step::NonPosted, self.rng.within(1, depth)),
                _ => (Step::Block, 1),
            }
        };
        true
    }

    /// When all is calm once more a bit of everything: what a fault has left behind shows.
    fn epilogue(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) {
        self.epilogues += 1;
        (self.step, self.left) = match self.epilogues {
            1 => {
                if self.rng.chance(500) {
                    self.reset(ctx, session, now);
                }
                (Step::Burst, 8)
            }
            2 => (Step::Level, 1),
            3 => (Step::NonPosted, 2),
            4 => (Step::Doorbell, 1),
            _ => {
                self.done = true;
                (Step::Last, 1)
            }
        };
    }

    fn reset(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) {
        session.bus.floor = session.front.reset(ctx.origin.instant(now));
        session.bus.master = true;
        session.intx = false;
        ctx.oracle.issue_mark(session.log, true, session.bus.floor);
    }

    /// Resets, bus mastering, windows.
    fn revoke(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) {
        let instant = ctx.origin.instant(now);
        match self.rng.below(6) {
            0 => self.reset(ctx, session, now),
            1 => {
                session.bus.floor = session.front.revoke(instant, Revocation::BusMasterOff);
                session.bus.master = false;
                ctx.oracle.issue_mark(session.log, false, session.bus.floor);
            }
            2 => {
                let window = usize::try_from(self.rng.below(WINDOWS as u64)).unwrap_or(0);
                let generation = session.front.revoke(instant, Revocation::Unmapped);
                // Other memory is there at once, or none.
                session.bus.windows[window] = self.rng.chance(500).then_some(generation);
            }
            _ => {
                session.bus.master = true;
                for window in &mut session.bus.windows {
                    window.get_or_insert(0);
                }
            }
        }
    }

    fn draft(&mut self) -> Draft {
        let drawn = self.rng.next();
        let width = Width::ALL[usize::try_from(drawn & 3).unwrap_or(0)];
        let scratch = register::SCRATCH + (drawn >> 8 & 0xff) * 8;
        let (offset, width, extent, kind) = match self.step {
            Step::Burst if drawn >> 16 & 0xf == 0 => {
                (register::FIFO, Width::B8, Extent::Single, Kind::Posted)
            }
            Step::Burst => (scratch, width, Extent::Single, Kind::Posted),
            Step::Reads => self.read(drawn, scratch, width),
            Step::NonPosted => (scratch, width, Extent::Single, Kind::NonPosted),
            Step::Block if self.plan.floods => {
                (register::FIFO, Width::B4, Extent::Fixed(1024), Kind::Posted)
            }
            Step::Block => self.block(drawn),
            Step::Doorbell => match drawn >> 16 & 7 {
                0..4 => (register::DOORBELL, Width::B8, Extent::Single, Kind::Posted),
                4 => (
                    register::DOORBELL,
                    Width::B8,
                    Extent::Single,
                    Kind::NonPosted,
                ),
                5 | 6 => (
                    register::DESCRIPTOR,
                    Width::B4,
                    Extent::Single,
                    Kind::Posted,
                ),
                _ => (register::LEVEL, Width::B1, Extent::Single, Kind::Posted),
            },
            Step::Level => (register::LEVEL, Width::B1, Extent::Single, Kind::Posted),
            Step::Last => (register::STATUS, Width::B8, Extent::Single, Kind::Read),
        };
        let value = self.rng.next() & mask(width);
        let value = match offset {
            // Where its descriptor is: mostly in memory.
            register::DESCRIPTOR => value % (super::MEMORY_BYTES + 4096),
            _ => value,
        };
        Draft {
            at: Location {
                space: BAR,
                offset,
                width,
            },
            extent,
            kind,
            value,
            push: self.step == Step::Doorbell,
        }
    }

    fn read(&mut self, drawn: u64, scratch: u64, width: Width) -> (u64, Width, Extent, Kind) {
        let few = u16::try_from(2 + (drawn >> 24 & 7)).unwrap_or(2);
        let (offset, width, extent) = match drawn >> 16 & 0xf {
            0..6 => (register::STATUS, Width::B8, Extent::Single),
            6..9 => (register::FIFO, Width::B8, Extent::Single),
            9 => (register::FIFO, Width::B4, Extent::Fixed(few)),
            10 => (register::CAUSE, Width::B4, Extent::Single),
            11 => (register::BROKEN, width, Extent::Single),
            12 => (register::SCRATCH, Width::B8, Extent::Consecutive(few)),
            _ => (scratch, width, Extent::Single),
        };
        (offset, width, extent, Kind::Read)
    }

    fn block(&mut self, drawn: u64) -> (u64, Width, Extent, Kind) {
        let count = u16::try_from(self.rng.skewed(512)).unwrap_or(1);
        let kind = if drawn >> 16 & 3 == 0 {
            Kind::NonPosted
        } else {
            Kind::Posted
        };
        if drawn >> 18 & 1 == 0 {
            (register::FIFO, Width::B4, Extent::Fixed(count), kind)
        } else {
            (
                register::SCRATCH,
                Width::B8,
                Extent::Consecutive(count.min(256)),
                kind,
            )
        }
    }

    /// False: it has to wait, or the session takes nothing any more.
    fn access(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) -> bool {
        let draft = match self.retry.take() {
            Some(draft) => draft,
            None => {
                self.left -= 1;
                self.draft()
            }
        };
        match self.submit(ctx, session, now, draft) {
            Ok(sequence) => {
                self.taken(ctx, session, now, draft, sequence);
                true
            }
            Err(Refused::NoCredit) => {
                let since = *self.blocked_since.get_or_insert(now);
                if now >= since + ctx.plan.deadline {
                    session.front.handle_starved();
                }
                self.retry = Some(draft);
                false
            }
            // All-ones, without a trip.
            Err(Refused::Resetting) => {
                self.blocked_since = None;
                if draft.kind == Kind::Read && self.step == Step::Last {
                    self.retry = Some(draft);
                    return false;
                }
                true
            }
            Err(Refused::NotLive | Refused::Size) => {
                self.left = 0;
                false
            }
        }
    }

    fn submit(
        &mut self,
        ctx: &Ctx,
        session: &mut Session,
        now: Micros,
        draft: Draft,
    ) -> Result<u64, Refused> {
        let Draft {
            at,
            extent,
            kind,
            value,
            ..
        } = draft;
        let instant = ctx.origin.instant(now);
        let posting = match kind {
            Kind::Read => return session.front.read(instant, at, extent),
            Kind::Posted => Posting::Posted,
            Kind::NonPosted => Posting::NonPosted,
        };
        self.data.clear();
        self.data.extend_from_slice(&value.to_le_bytes());
        let bytes = at.width.bytes() * extent.count();
        while self.data.len() < bytes {
            let word = crate::rng::mix(value ^ self.data.len() as u64);
            self.data.extend_from_slice(&word.to_le_bytes());
        }
        self.data.truncate(bytes);
        session
            .front
            .write(instant, at, extent, posting, &self.data)
    }

    fn taken(
        &mut self,
        ctx: &mut Ctx,
        session: &mut Session,
        now: Micros,
        draft: Draft,
        sequence: u64,
    ) {
        self.made += 1;
        let since = self.blocked_since.take();
        if let Some(since) = since {
            let until = since + ctx.plan.deadline;
            session.front.answer_by(ctx.origin.instant(until));
        }
        let value = match draft.kind {
            Kind::Read => 0,
            _ => value_of(draft.extent, &self.data),
        };
        let index = ctx.oracle.issue(
            session.log,
            shape(draft.at, draft.extent, draft.kind),
            value,
            sequence,
        );
        let since = since.unwrap_or(now);
        match draft.kind {
            Kind::Posted => match session.ages.back_mut() {
                Some((last, at)) if *at == since => *last = sequence,
                _ => session.ages.push_back((sequence, since)),
            },
            _ => self.waiting.push_back(Waiting {
                sequence,
                index,
                since,
            }),
        }
        if draft.push {
            session.front.push();
            if self.rng.chance(500) {
                self.interrupt_by = Some(now + ctx.plan.deadline / 2 + MILLI);
            }
        }
    }
}

fn mask(width: Width) -> u64 {
    u64::MAX >> (64 - 8 * width.bytes())
}
