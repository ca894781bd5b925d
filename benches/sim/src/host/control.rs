//! Registrations: hello, heartbeats, fences.

use potemkin_broker::ids::SessionId as BrokerSessionId;
use potemkin_proto::v1::CloseCode;
use potemkin_session::{
    gate::{Change, FenceOrder},
    ids::{Epoch, SessionId},
};

use super::HostActor;
use crate::{
    actor::{ActorId, Role},
    clock::{MILLI, Micros, SECOND},
    ctx::{Ctx, Event},
    message::{Control, Session},
    net::{Carries, ConnId},
    oracle::Over,
};

/// Between two heartbeats: a third of the lease.
const HEARTBEAT: Micros = super::super::broker::LEASE / 3;
/// Between two tries to register.
const AGAIN: Micros = 200 * MILLI;
/// How long a broker may take to accept.
const ACCEPT: Micros = 5 * SECOND;

/// With one broker.
#[derive(Debug)]
pub(super) struct Registration {
    broker: ActorId,
    conn: Option<ConnId>,
    pub(super) accepted: bool,
    /// When it heartbeats, tries again, or gives up waiting.
    next: Micros,
}

impl Registration {
    pub(super) fn new(broker: usize) -> Self {
        Self {
            broker: ActorId::new(Role::Broker(broker)),
            conn: None,
            accepted: false,
            next: 0,
        }
    }

    pub(super) fn next_wake(&self) -> Micros {
        self.next
    }
}

impl HostActor {
    pub(super) fn keep_registered(&mut self, ctx: &mut Ctx, now: Micros) {
        for index in 0..self.registrations.len() {
            let registration = &self.registrations[index];
            if now < registration.next {
                continue;
            }
            match registration.conn {
                Some(conn) if registration.accepted => {
                    ctx.send_control(self.id, conn, Control::Heartbeat);
                    self.registrations[index].next = now + HEARTBEAT;
                }
                Some(conn) => {
                    ctx.close(self.id, conn);
                    self.registrations[index].conn = None;
                    self.registrations[index].next = now + AGAIN;
                }
                None => self.register(ctx, index, now),
            }
        }
    }

    fn register(&mut self, ctx: &mut Ctx, index: usize, now: Micros) {
        let conn = ctx.connect(self.id, self.registrations[index].broker, Carries::Control);
        let hello = Control::Hello {
            incarnation: self.incarnation,
            epochs: self
                .served
                .iter()
                .map(|served| served.gate.highest().0)
                .collect(),
            sessions: self.living(),
        };
        ctx.send_control(self.id, conn, hello);
        let registration = &mut self.registrations[index];
        registration.conn = Some(conn);
        registration.accepted = false;
        registration.next = now + ACCEPT;
    }

    fn living(&self) -> Vec<Session> {
        let served = self.served.iter().enumerate();
        served
            .filter_map(|(device, served)| {
                let live = served.live.as_ref()?;
                let path = live.core.path();
                Some(Session {
                    id: BrokerSessionId(u128::from_be_bytes(path.session.to_bytes())),
                    device,
                    epoch: path.epoch.0,
                    agent: live.agent.clone(),
                })
            })
            .collect()
    }

    pub(super) fn control(&mut self, ctx: &mut Ctx, conn: ConnId, message: Control) {
        let now = ctx.local(self.id);
        let Some(registration) = self.registrations.iter_mut().find(|r| r.conn == Some(conn))
        else {
            return;
        };
        match message {
            Control::Accepted { taken: true } => {
                registration.accepted = true;
                registration.next = now + HEARTBEAT;
            }
            // Another host has the device: this one asks again.
            Control::Accepted { taken: false } => {
                registration.conn = None;
                registration.next = now + SECOND;
                ctx.close(self.id, conn);
            }
            Control::Fence {
                device,
                epoch,
                session,
            } => {
                let order = FenceOrder {
                    epoch: Epoch(epoch),
                    session: session.map(|id| SessionId::from_bytes(id.0.to_be_bytes())),
                };
                self.fences.push((device, order));
                self.fence(ctx, conn, device, order);
            }
            _ => {}
        }
    }

    /// A fence comes again that was sent before: the newest often, else any. False: there was none.
    pub(crate) fn fence_again(&mut self, ctx: &mut Ctx) -> bool {
        let Some(conn) = self.registrations.first().and_then(|first| first.conn) else {
            return false;
        };
        let Some(newest) = self.fences.last() else {
            return false;
        };
        let (device, order) = if self.rng.chance(500) {
            *newest
        } else {
            self.rng.pick(&self.fences)
        };
        self.fence(ctx, conn, device, order);
        self.step(ctx);
        true
    }

    /// First half: whoever uses the device leaves it. The second comes when the epoch is on disk.
    fn fence(&mut self, ctx: &mut Ctx, conn: ConnId, device: usize, order: FenceOrder) {
        match self.served[device].gate.shut(order) {
            Ok(Change::ShutOut) => {
                let ends = self.served[device].session();
                ctx.oracle
                    .obeyed(device, order.epoch.0, order.session, ends);
                let message = format!("host: the device was fenced for epoch {}", order.epoch.0);
                self.evict(ctx, device, Over::Fenced, CloseCode::Superseded, message);
                self.reset(ctx, device);
            }
            Ok(Change::None) => {}
            Err(error) => {
                return self.fence_done(ctx, conn, device, order.epoch.0, error.to_string());
            }
        }
        ctx.trace(self.id, || format!("fence of device {device}: {order:?}"));
        let event = Event::OnDisk {
            host: self.id,
            run: self.run,
            device,
            order,
            conn,
        };
        let at = ctx.now + self.rng.below(ctx.plan.disk_latency);
        ctx.queue.push(at, event);
    }

    pub(crate) fn on_disk(
        &mut self,
        ctx: &mut Ctx,
        device: usize,
        order: FenceOrder,
        conn: ConnId,
    ) {
        let epoch = &mut self.disk.epochs[device];
        *epoch = order.epoch.0.max(*epoch);
        self.served[device].gate.open(order);
        ctx.oracle.fenced(device, order.epoch.0);
        ctx.oracle.opened(device, order.epoch.0, order.session);
        self.fence_done(ctx, conn, device, order.epoch.0, String::new());
        self.step(ctx);
    }

    fn fence_done(&self, ctx: &mut Ctx, conn: ConnId, device: usize, epoch: u64, error: String) {
        ctx.send_control(
            self.id,
            conn,
            Control::FenceDone {
                device,
                epoch,
                error,
            },
        );
    }

    /// Tells every broker.
    pub(super) fn tell(&self, ctx: &mut Ctx, message: &Control) {
        for registration in self.registrations.iter().filter(|r| r.accepted) {
            if let Some(conn) = registration.conn {
                ctx.send_control(self.id, conn, message.clone());
            }
        }
    }

    /// A registration's stream is gone.
    pub(super) fn registration_lost(&mut self, ctx: &Ctx, conn: ConnId) {
        let now = ctx.local(self.id);
        if let Some(registration) = self.registrations.iter_mut().find(|r| r.conn == Some(conn)) {
            registration.conn = None;
            registration.accepted = false;
            registration.next = now + AGAIN;
        }
    }
}
