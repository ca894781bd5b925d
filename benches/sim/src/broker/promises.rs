//! What a broker's core promises to agents and hosts, checked where it is kept: dials, claims, leases.

use std::net::SocketAddr;

use potemkin_broker::{
    core::{ConnId as CoreConn, Dial, Hello, Refusal, Reply},
    ids::{Incarnation, PeerName},
};
use potemkin_session::VERSION;

use super::{Broker, LEASE, control::offer, core_driver::device_of};
use crate::{ctx::Ctx, fault::Fault, message::Control, net::ConnId, oracle::Clause, plan::Scene};

/// How far a host's clock may be off within a lease, as the core was told.
const DRIFT: u64 = 1_000_000;
/// Above the numbers of all streams.
const SECOND_HOST: u64 = 1 << 40;

impl Broker {
    /// Of a session's dials the newest is obeyed.
    pub(super) fn check_routed(&mut self, ctx: &mut Ctx, dial: Dial) {
        let newest = self.routed.insert(dial.session, dial.attach_number);
        if let Some(newest) = newest.filter(|newest| dial.attach_number <= *newest) {
            ctx.oracle.fail(Clause::NewestPath, || {
                format!("a broker took dial {} after {newest}", dial.attach_number)
            });
        }
    }

    /// A device goes to nobody but who has claimed it.
    pub(super) fn check_claim(
        &mut self,
        ctx: &mut Ctx,
        conn: Option<ConnId>,
        outcome: &Result<Reply, Refusal>,
    ) {
        let Some(conn) = conn else { return };
        let agent = crate::agent::name_of(ctx.plan.rival, ctx.net.actor(conn, 0));
        let device = match outcome {
            Ok(Reply::Claimed { device, .. }) => {
                let device = device_of(device);
                self.claims.entry(device).or_insert_with(|| agent.clone());
                device
            }
            Ok(Reply::Attached { device, .. }) => device_of(device),
            _ => return,
        };
        if let Some(owner) = self.claims.get(&device).filter(|owner| **owner != agent) {
            ctx.oracle.fail(Clause::ClaimHolds, || {
                format!("device {device} goes to {agent}, and {owner} has claimed it")
            });
        }
    }

    /// A registration is answered.
    pub(super) fn accepted(&mut self, ctx: &mut Ctx, conn: u64, taken: bool) {
        let now = self.time(ctx);
        if conn < SECOND_HOST {
            self.heard = taken.then_some(now);
            return self.to_host(ctx, conn, Control::Accepted { taken });
        }
        let lease = std::time::Duration::from_micros(LEASE + DRIFT);
        let heard = self.heard.take_if(|_| taken);
        if heard.is_some_and(|heard| now < heard + lease) {
            ctx.oracle.fail(Clause::LeaseHolds, || {
                "another host got the device of one that was away, within its lease".to_owned()
            });
        }
        if let Some(core) = &mut self.core {
            core.host_gone(now, CoreConn(conn));
        }
    }

    /// A host that stays away loses the device, but not before its time.
    pub(super) fn offer_again(&mut self, ctx: &mut Ctx) {
        if self.offers_at.is_some_and(|at| at <= ctx.local(self.id)) {
            self.offers_at = None;
            if self.streams.is_empty() {
                self.second_host(ctx);
            }
        }
    }

    /// The first host is away: another one offers its device, and goes away again.
    pub(super) fn second_host(&mut self, ctx: &mut Ctx) {
        if ctx.plan.scene != Some(Scene::TwoHosts) || ctx.calm || !self.grants() {
            return;
        }
        let now = self.time(ctx);
        self.last_leg += 1;
        let conn = CoreConn(SECOND_HOST + self.last_leg);
        let hello = Hello {
            version: VERSION,
            incarnation: Incarnation(2),
            data_address: SocketAddr::from(([127, 0, 0, 1], 2)),
            offers: vec![offer(0, 0)],
            rejected: Vec::new(),
            sessions: Vec::new(),
        };
        let name: PeerName = "spiffe://sim/host/two".into();
        if let Some(core) = &mut self.core
            && core.register(now, conn, &name, hello).is_ok()
        {
            self.offers_at = Some(ctx.local(self.id) + LEASE / 2);
            ctx.net.faults.count(Fault::SecondHost);
            ctx.disturbed = true;
        }
    }
}
