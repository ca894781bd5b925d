//! A front agent with its guest: attaches a device, drives a session's front half, dials again when its path is lost.

mod attach;
mod bus;
mod careless;
mod guest;
mod path;
mod session;
mod set_back;

use std::sync::OnceLock;

use potemkin_broker::ids::{Incarnation, PeerName};

use crate::{
    actor::{ActorId, Role},
    clock::Micros,
    ctx::Ctx,
    message::Payload,
    net::ConnId,
    oracle::Ending,
    plan::{Policy, Rival},
    rng::Rng,
};
use attach::Attach;
pub(crate) use bus::{MEMORY_BYTES, check_descriptor};
use guest::Guest;
use session::Session;
use set_back::SetBack;

/// An agent's certified identity: a newer process has that of the older.
pub(crate) fn name_of(rival: Rival, agent: ActorId) -> PeerName {
    static NAMES: OnceLock<[PeerName; 2]> = OnceLock::new();
    let names =
        NAMES.get_or_init(|| ["spiffe://sim/agent/a".into(), "spiffe://sim/agent/b".into()]);
    let other = rival == Rival::Other && agent != ActorId::new(Role::Agent(0));
    names[usize::from(other)].clone()
}

#[derive(Debug)]
pub(crate) struct Agent {
    id: ActorId,
    rng: Rng,
    incarnation: Incarnation,
    attach: Attach,
    session: Option<Session>,
    /// One that is contained, and whose streams are still heard.
    former: Option<Session>,
    set_back: SetBack,
    /// It has asked for a claim; kept by whoever starts the process.
    has_claimed: bool,
    guest: Guest,
    pub(crate) policy: Policy,
    /// A newer process of this agent has started.
    pub(crate) is_replaced: bool,
}

impl Agent {
    pub(crate) fn new(ctx: &Ctx, number: usize, mut rng: Rng) -> Self {
        Self {
            id: ActorId::new(Role::Agent(number)),
            incarnation: Incarnation(0),
            attach: Attach::Stopped,
            session: None,
            former: None,
            set_back: SetBack::No,
            has_claimed: false,
            guest: Guest::new(ctx.plan.guest, rng.fork()),
            policy: ctx.plan.guest.policy,
            is_replaced: false,
            rng,
        }
    }

    /// The process starts: another one than before.
    pub(crate) fn start(&mut self, ctx: &mut Ctx) {
        self.incarnation = Incarnation((u128::from(self.rng.next()) << 64) | 2);
        self.attach = Attach::Idle { at: 0, tries: 0 };
        self.guest.restart();
        self.step(ctx);
    }

    /// The process is gone, and its guest.
    pub(crate) fn killed(&mut self, ctx: &mut Ctx) {
        if let Some(session) = self.session.take() {
            ctx.oracle.ended(session.log, Ending::Killed(ctx.now));
        }
        self.former = None;
        self.set_back = SetBack::No;
        self.attach = Attach::Stopped;
    }

    pub(crate) fn arrive(&mut self, ctx: &mut Ctx, conn: ConnId, payload: Payload) {
        match payload {
            Payload::Frame { bytes, garbled } => self.frame(ctx, conn, bytes, garbled),
            Payload::Control(message) => self.reply(ctx, conn, *message),
            Payload::Fin => self.lost(ctx, conn),
        }
        self.step(ctx);
    }

    pub(crate) fn woken(&mut self, ctx: &mut Ctx) {
        self.step(ctx);
    }

    fn lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        self.request_lost(ctx, conn);
        if let Some(session) = self
            .session
            .as_mut()
            .filter(|session| session.conn == Some(conn))
        {
            session.conn = None;
            session.front.handle_lost("the stream ended");
        }
    }

    /// Does what is due, and says when it wants to be woken.
    fn step(&mut self, ctx: &mut Ctx) {
        let now = ctx.local(self.id);
        self.drive(ctx, now);
        self.manage_attach(ctx, now);
        if let Some(at) = self.next_wake() {
            ctx.wake_at(self.id, at.max(now + 1));
        }
    }

    fn next_wake(&self) -> Option<Micros> {
        let guest = Some(&self.guest).filter(|_| !self.holds());
        let session = self.session.as_ref();
        let session = session.and_then(|session| session.next_wake(guest));
        self.attach.next_wake().into_iter().chain(session).min()
    }

    /// Nothing more will happen here by itself, in a calm world.
    pub(crate) fn is_at_rest(&self) -> bool {
        match &self.session {
            Some(session) => session.is_at_rest(&self.guest),
            None => self.attach.is_over(),
        }
    }

    /// At rest: what the guest has seen is what the device did.
    pub(crate) fn check_rest(&self, ctx: &mut Ctx) {
        if let Some(session) = &self.session {
            ctx.oracle.check_whole(session.log);
            ctx.oracle.check_arrived(session.log, session.intx);
        }
    }

    /// For a finding: where it stands.
    pub(crate) fn describe(&self) -> String {
        let front = self.session.as_ref().map(|session| {
            (
                session.front.state(),
                session.front.acknowledged(),
                session.front.last_sequence(),
            )
        });
        format!(
            "{:?}: {:?}, session {front:?}, guest {}",
            self.id.role(),
            self.attach,
            self.guest.describe()
        )
    }
}
