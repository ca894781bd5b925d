//! A driver that does not leave its older streams, and one whose dials come again.

use bytes::Bytes;
use potemkin_proto::check::{self, Check};
use potemkin_session::front::{Front, FrontState};

use super::{Agent, session::Session};
use crate::{
    actor::{ActorId, Role},
    ctx::Ctx,
    net::{Carries, ConnId},
    oracle::Clause,
    plan::Scene,
};

/// Dials that are remembered.
const OPENS_MAX: usize = 4;

impl Session {
    /// The first frame of a dial that is not the session's first.
    pub(super) fn note_open(&mut self, frame: &Bytes) {
        if self.opens.len() == OPENS_MAX {
            self.opens.pop_front();
        }
        self.opens.push_back(frame.clone());
    }
}

impl Agent {
    /// The session has done with a stream; a careless driver still hears it.
    pub(super) fn leave(&self, ctx: &mut Ctx, session: &mut Session, conn: ConnId) {
        if ctx.plan.scene == Some(Scene::Careless) {
            session.older.push(conn);
        } else {
            ctx.close(self.id, conn);
        }
    }

    /// Nothing is heard any more of the session before.
    pub(super) fn forget_former(&mut self, ctx: &mut Ctx) {
        for conn in self
            .former
            .take()
            .into_iter()
            .flat_map(|former| former.older)
        {
            ctx.close(self.id, conn);
        }
    }

    /// A frame of a stream that was left. What the way has garbled no end can tell the path of.
    pub(super) fn careless(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: &Bytes, garbled: bool) {
        // What cannot be read does not say of which path it is: no driver may hand that in. A relay may have passed it on, garbled before.
        if garbled || check::verify(bytes) != Check::Good {
            return;
        }
        if let Some(session) = self.session.as_mut().filter(|s| s.older.contains(&conn)) {
            let before = state(&session.front);
            let taken = session.front.handle_frame(bytes.clone()).is_ok();
            if !taken || state(&session.front) != before {
                ctx.oracle.fail(Clause::OlderPathIgnored, || {
                    "the agent obeyed a frame of an older path".to_owned()
                });
            }
        }
        if let Some(former) = self.former.as_mut().filter(|s| s.older.contains(&conn)) {
            let taken = former.front.handle_frame(bytes.clone()).is_ok();
            let contained = former.front.state() == FrontState::Contained;
            if !taken || !contained || former.front.poll_event().is_some() {
                ctx.oracle.fail(Clause::SilentAfterContainment, || {
                    "the agent obeyed a frame that came after its session was contained".to_owned()
                });
            }
        }
    }

    /// A dial comes again, through any broker: the newest often, else an older one. False: there was none.
    pub(crate) fn dial_again(&mut self, ctx: &mut Ctx) -> bool {
        let live = |session: &&Session| session.front.state() == FrontState::Live;
        let Some(session) = self.session.as_ref().filter(live) else {
            return false;
        };
        let Some(newest) = session.opens.back() else {
            return false;
        };
        let open = if self.rng.chance(500) {
            newest.clone()
        } else {
            let n = self.rng.below(session.opens.len() as u64);
            session.opens[usize::try_from(n).unwrap_or(0)].clone()
        };
        let broker = self.rng.below(ctx.plan.brokers as u64);
        let broker = Role::Broker(usize::try_from(broker).unwrap_or(0));
        let conn = ctx.connect(self.id, ActorId::new(broker), Carries::Frames);
        ctx.send_frame(self.id, conn, open);
        true
    }
}

fn state(front: &Front) -> (FrontState, u64) {
    (front.state(), front.acknowledged())
}
