//! Brokers: the real core, and a relay. The first one grants, the others relay what hosts tell them of.

mod control;
mod core_driver;
mod promises;
mod relay;
mod store;

use std::{collections::BTreeMap, time::Duration};

use potemkin_broker::{
    core::Core,
    ids::{PeerName, SessionId},
};

use crate::{
    actor::{ActorId, Role},
    clock::{Micros, SECOND},
    ctx::Ctx,
    message::Payload,
    net::{Carries, ConnId},
    rng::Rng,
};
pub(crate) use core_driver::device_named;
use relay::Leg;
use store::Store;

/// A host without a heartbeat for this long has lost its lease.
pub(crate) const LEASE: Micros = 3 * SECOND;

/// A registration stream.
#[derive(Debug, Clone, Copy)]
struct Stream {
    conn: ConnId,
}

#[derive(Debug)]
pub(crate) struct Broker {
    id: ActorId,
    /// Counts the process's starts.
    pub(crate) run: u32,
    rng: Rng,
    /// While the process lives.
    core: Option<Core>,
    store: Store,
    streams: Vec<Stream>,
    legs: Vec<Leg>,
    /// Requests that wait, by their streams.
    requests: BTreeMap<u64, ConnId>,
    last_leg: u64,
    /// When the host was heard last whose the device is; `None`: nobody's, as far as is known.
    heard: Option<Duration>,
    /// Another host offers the device then, if the first one is still away.
    offers_at: Option<Micros>,
    /// Of each session the newest dial that was routed.
    routed: BTreeMap<SessionId, u32>,
    /// Who holds a claim to which device: survives the process, as the claims do.
    claims: BTreeMap<usize, PeerName>,
}

impl Broker {
    pub(crate) fn new(number: usize, rng: Rng) -> Self {
        Self {
            id: ActorId::new(Role::Broker(number)),
            run: 0,
            rng,
            core: None,
            store: Store::default(),
            streams: Vec::new(),
            legs: Vec::new(),
            requests: BTreeMap::new(),
            last_leg: 0,
            heard: None,
            offers_at: None,
            routed: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    fn grants(&self) -> bool {
        self.id == ActorId::new(Role::Broker(0))
    }

    /// The process starts, on what its store has.
    pub(crate) fn start(&mut self, ctx: &mut Ctx) {
        self.run += 1;
        self.core = Some(core_driver::start(&self.store, self.grants()));
        self.step(ctx);
    }

    /// The process is gone.
    pub(crate) fn killed(&mut self) {
        self.core = None;
        self.streams.clear();
        self.legs.clear();
        self.requests.clear();
        self.routed.clear();
        self.heard = None;
        self.offers_at = None;
        self.store.forget_waiting();
    }

    pub(crate) fn arrive(&mut self, ctx: &mut Ctx, conn: ConnId, payload: Payload) {
        match payload {
            Payload::Frame { bytes, .. } => self.frame(ctx, conn, bytes),
            Payload::Control(message) => self.control(ctx, conn, *message),
            Payload::Fin => self.lost(ctx, conn),
        }
        self.step(ctx);
    }

    fn lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        match ctx.net.carries(conn) {
            Carries::Frames => self.leg_lost(ctx, conn),
            Carries::Control => self.stream_lost(ctx, conn),
        }
    }

    pub(crate) fn woken(&mut self, ctx: &mut Ctx) {
        self.step(ctx);
    }

    /// Does what the core asks for, and says when it wants to be woken.
    fn step(&mut self, ctx: &mut Ctx) {
        let now = self.time(ctx);
        self.check_accepts(ctx);
        if let Some(core) = &mut self.core {
            core.handle_timeout(now);
        }
        self.offer_again(ctx);
        self.settle(ctx);
        let core = self.core.as_ref().and_then(Core::poll_timeout);
        let core = core.map(|at| u64::try_from(at.as_micros()).unwrap_or(u64::MAX));
        let legs = self.legs.iter().filter_map(Leg::accept_by).min();
        let local = ctx.local(self.id);
        let offers = self.offers_at;
        if let Some(at) = core.into_iter().chain(legs).chain(offers).min() {
            ctx.wake_at(self.id, at.max(local + 1));
        }
    }

    fn time(&self, ctx: &Ctx) -> Duration {
        Duration::from_micros(ctx.local(self.id))
    }
}
