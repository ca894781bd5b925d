//! A machine that is set back to an earlier moment, and its session with it: its streams live on (their other ends are beyond the
//! machine), and it goes on anew under numbers that it has used.

use potemkin_session::front::{Front, FrontState};

use super::{Agent, session::Session};
use crate::{clock::Micros, ctx::Ctx};

/// How far it is.
#[derive(Debug)]
pub(super) enum SetBack {
    No,
    /// As soon as nothing is under way.
    Wanted,
    /// The session as it was, before so many writes.
    Ahead {
        was: Box<Front>,
        writes: u64,
    },
    /// It is set back, and has made other writes.
    Anew,
    /// And something behind them.
    Done,
}

impl SetBack {
    /// It has come back, or rather its session has.
    pub(super) fn is_back(&self) -> bool {
        matches!(self, Self::Anew | Self::Done)
    }
}

impl Agent {
    /// The machine will be set back. False: it has no session, or was before.
    pub(crate) fn set_back(&mut self, ctx: &Ctx) -> bool {
        let fits = matches!(self.set_back, SetBack::No) && self.session.is_some() && !ctx.calm;
        if fits {
            self.set_back = SetBack::Wanted;
        }
        fits
    }

    /// The guest's program stands still.
    pub(super) fn holds(&self) -> bool {
        match self.set_back {
            SetBack::No => false,
            // What was begun is ended.
            SetBack::Wanted => self.guest.is_idle(),
            _ => true,
        }
    }

    /// The next step, if nothing is under way. True: something was made.
    pub(super) fn go_back(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) -> bool {
        let front = &session.front;
        let quiet = front.state() == FrontState::Live
            && !front.is_resetting()
            && front.acknowledged() == front.last_sequence();
        match std::mem::replace(&mut self.set_back, SetBack::No) {
            SetBack::Wanted if quiet => {
                let was = Box::new(session.front.clone());
                let writes = self.rng.within(1, 4);
                self.guest.write_some(ctx, session, now, writes);
                self.set_back = SetBack::Ahead { was, writes };
                true
            }
            SetBack::Ahead { was, writes } if quiet => {
                session.front = *was;
                session.ages.clear();
                ctx.oracle.set_back(session.log);
                ctx.trace(self.id, || "is set back".to_owned());
                self.guest.write_some(ctx, session, now, writes);
                self.set_back = SetBack::Anew;
                true
            }
            // They are on their way, as one batch.
            SetBack::Anew => {
                self.guest.write_some(ctx, session, now, 1);
                self.set_back = SetBack::Done;
                true
            }
            other => {
                self.set_back = other;
                false
            }
        }
    }
}
