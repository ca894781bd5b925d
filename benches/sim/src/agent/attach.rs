//! Getting a device: asked for at the granting broker, given back once its session is contained, asked for again.

use potemkin_broker::ids::SessionId;

use super::{Agent, name_of, session::Session, set_back::SetBack};
use crate::{
    actor::{ActorId, Role},
    clock::{MILLI, Micros, SECOND},
    ctx::Ctx,
    message::Control,
    net::{Carries, ConnId},
    plan::{Policy, Rival, Scene},
};

/// How long a broker may take to answer.
const ANSWER: Micros = 8 * SECOND;
/// Tries, of which each takes longer to come.
const TRIES_MAX: u32 = 60;

/// Where it stands.
#[derive(Debug)]
pub(super) enum Attach {
    /// Asks at this time.
    Idle { at: Micros, tries: u32 },
    /// Has asked.
    Asking {
        conn: ConnId,
        by: Micros,
        tries: u32,
    },
    /// Gives a session back.
    Detaching { conn: ConnId, by: Micros },
    /// Has a session.
    Done,
    /// Wants none.
    Stopped,
}

impl Attach {
    pub(super) fn next_wake(&self) -> Option<Micros> {
        match self {
            Self::Idle { at, .. } => Some(*at),
            Self::Asking { by, .. } | Self::Detaching { by, .. } => Some(*by),
            Self::Done | Self::Stopped => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Stopped)
    }
}

impl Agent {
    pub(super) fn manage_attach(&mut self, ctx: &mut Ctx, now: Micros) {
        match self.attach {
            Attach::Idle { at, tries } if at <= now => self.ask(ctx, now, tries),
            Attach::Asking { conn, by, tries } if by <= now => {
                ctx.close(self.id, conn);
                self.ask_again(ctx, now, tries);
            }
            Attach::Detaching { conn, by } if by <= now => {
                ctx.close(self.id, conn);
                self.ask_again(ctx, now, 0);
            }
            _ => {}
        }
    }

    fn ask(&mut self, ctx: &mut Ctx, now: Micros, tries: u32) {
        let conn = ctx.connect(self.id, ActorId::new(Role::Broker(0)), Carries::Control);
        let agent = name_of(ctx.plan.rival, self.id);
        let claims = ctx.plan.scene == Some(Scene::Claims) && !self.has_claimed;
        let message = if claims {
            Control::Claim { agent, device: 0 }
        } else {
            Control::Attach {
                agent,
                incarnation: self.incarnation,
                device: 0,
            }
        };
        self.has_claimed |= claims;
        ctx.send_control(self.id, conn, message);
        let by = now + ANSWER;
        self.attach = Attach::Asking { conn, by, tries };
    }

    fn ask_again(&mut self, ctx: &Ctx, now: Micros, tries: u32) {
        // In a calm world a device that another one has stays with it.
        let taken = ctx.calm && ctx.plan.rival != Rival::None && tries > 5;
        self.attach = if taken || self.is_replaced || tries >= TRIES_MAX {
            Attach::Stopped
        } else {
            let wait = (20 * MILLI) << tries.min(5);
            let at = now + wait / 2 + self.rng.below(wait);
            let tries = tries + 1;
            Attach::Idle { at, tries }
        };
    }

    pub(super) fn request_lost(&mut self, ctx: &Ctx, conn: ConnId) {
        let now = ctx.local(self.id);
        match self.attach {
            Attach::Asking {
                conn: asked, tries, ..
            } if asked == conn => self.ask_again(ctx, now, tries),
            Attach::Detaching { conn: asked, .. } if asked == conn => self.ask_again(ctx, now, 0),
            _ => {}
        }
    }

    /// The broker has answered.
    pub(super) fn reply(&mut self, ctx: &mut Ctx, conn: ConnId, message: Control) {
        let now = ctx.local(self.id);
        match (&self.attach, message) {
            (Attach::Asking { conn: asked, .. }, Control::Attached { path, host, device })
                if *asked == conn =>
            {
                ctx.close(self.id, conn);
                let log = ctx.oracle.begin(device, path.session, path.epoch.0);
                ctx.trace(self.id, || format!("has {path:?}"));
                self.guest.begin();
                self.forget_former(ctx);
                self.set_back = SetBack::No;
                self.session = Some(Session::begin(ctx, self.id, log, path, host));
                self.attach = Attach::Done;
            }
            (
                Attach::Asking {
                    conn: asked, tries, ..
                },
                Control::Done | Control::Refused { .. },
            ) if *asked == conn => {
                let tries = *tries;
                ctx.close(self.id, conn);
                self.ask_again(ctx, now, tries);
            }
            (Attach::Detaching { conn: asked, .. }, Control::Done | Control::Refused { .. })
                if *asked == conn =>
            {
                ctx.close(self.id, conn);
                self.ask_again(ctx, now, 0);
            }
            _ => {}
        }
    }

    /// A session is contained: what comes next is the policy's.
    pub(super) fn after_containment(&mut self, ctx: &mut Ctx, session: &Session) {
        if self.policy == Policy::Remove {
            self.attach = Attach::Stopped;
            return;
        }
        let conn = ctx.connect(self.id, ActorId::new(Role::Broker(0)), Carries::Control);
        let message = Control::Detach {
            agent: name_of(ctx.plan.rival, self.id),
            session: SessionId(u128::from_be_bytes(session.path.session.to_bytes())),
        };
        ctx.send_control(self.id, conn, message);
        let by = ctx.local(self.id) + ANSWER;
        self.attach = Attach::Detaching { conn, by };
    }
}
