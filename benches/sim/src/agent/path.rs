//! Dialling again: through any broker, at once when something waits, then with back-off and jitter.

use super::{Agent, session::Session};
use crate::{
    actor::{ActorId, Role},
    clock::{MILLI, Micros},
    ctx::Ctx,
    net::Carries,
};

/// The first pause between two dials.
const BACK_OFF: Micros = 5 * MILLI;

impl Agent {
    pub(super) fn keep_path(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) {
        if !session.front.wants_path() {
            return;
        }
        if self.set_back.is_back() {
            // Its next dial has the number of one that was.
            return session.front.abandon("the machine was set back");
        }
        let since = *session.lost_since.get_or_insert(now);
        if now > since + ctx.plan.abandon {
            return session.front.abandon("no path to the host could be had");
        }
        if now >= session.dial_at {
            self.dial(ctx, session, now);
        }
    }

    fn dial(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) {
        if let Some(older) = session.conn.take() {
            self.leave(ctx, session, older);
        }
        session.broker = (session.broker + 1) % ctx.plan.brokers;
        let broker = ActorId::new(Role::Broker(session.broker));
        session.conn = Some(ctx.connect(self.id, broker, Carries::Frames));
        session.front.dial(ctx.origin.instant(now));
        let wait = (BACK_OFF << session.dials.min(8)).min(ctx.plan.deadline);
        session.dials += 1;
        session.dial_at = now + wait / 2 + self.rng.below(wait);
        ctx.trace(self.id, || format!("dials {broker:?}"));
    }
}
