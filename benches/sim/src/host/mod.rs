//! A device host: registered with every broker, serves sessions, obeys fences.

mod control;
mod served;
mod sessions;
mod turn;

use crate::{
    actor::{ActorId, Role},
    clock::{MILLI, Micros},
    ctx::Ctx,
    device::Device,
    message::Payload,
    net::ConnId,
    oracle::Over,
    rng::Rng,
};
use control::Registration;
use potemkin_broker::ids::Incarnation;
use potemkin_session::gate::FenceOrder;
use served::Served;

/// What survives the process.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    /// The highest epoch of each device.
    pub(crate) epochs: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct HostActor {
    id: ActorId,
    /// Counts the process's starts.
    pub(crate) run: u32,
    rng: Rng,
    incarnation: Incarnation,
    pub(crate) disk: Disk,
    served: Vec<Served>,
    registrations: Vec<Registration>,
    /// The fences of the granting broker, oldest first.
    fences: Vec<(usize, FenceOrder)>,
}

impl HostActor {
    pub(crate) fn new(number: usize, devices: usize, rng: Rng) -> Self {
        Self {
            id: ActorId::new(Role::Host(number)),
            run: 0,
            rng,
            incarnation: Incarnation(0),
            disk: Disk {
                epochs: vec![0; devices],
            },
            served: Vec::new(),
            registrations: Vec::new(),
            fences: Vec::new(),
        }
    }

    /// The process starts, on what its disk has.
    pub(crate) fn start(&mut self, ctx: &mut Ctx) {
        self.run += 1;
        self.incarnation = Incarnation((u128::from(self.rng.next()) << 64) | 1);
        self.served.clear();
        for (device, epoch) in self.disk.epochs.clone().into_iter().enumerate() {
            ctx.oracle.started(device, epoch);
            ctx.oracle.device_reset(device);
            let model = Device::new(ctx.plan.device, self.rng.fork());
            self.served.push(Served::new(epoch, model));
        }
        let brokers = ctx.plan.brokers;
        self.registrations = (0..brokers).map(Registration::new).collect();
        self.step(ctx);
    }

    /// The process is gone.
    pub(crate) fn killed(&mut self, ctx: &mut Ctx) {
        for live in self.served.iter().filter_map(|served| served.live.as_ref()) {
            ctx.oracle.over_at_host(live.log, Over::Lost);
        }
        self.served.clear();
        self.registrations.clear();
    }

    pub(crate) fn arrive(&mut self, ctx: &mut Ctx, conn: ConnId, payload: Payload) {
        match payload {
            Payload::Frame { bytes, garbled } => self.frame(ctx, conn, bytes, garbled),
            Payload::Control(message) => self.control(ctx, conn, *message),
            Payload::Fin => self.lost(ctx, conn),
        }
        self.step(ctx);
    }

    pub(crate) fn woken(&mut self, ctx: &mut Ctx) {
        self.step(ctx);
    }

    /// Does what is due, and says when it wants to be woken.
    pub(crate) fn step(&mut self, ctx: &mut Ctx) {
        let now = ctx.local(self.id);
        self.keep_registered(ctx, now);
        for device in 0..self.served.len() {
            self.work(ctx, device);
            self.check_grace(ctx, device, now);
        }
        if let Some(at) = self.next_wake() {
            ctx.wake_at(self.id, at.max(now + 1));
        }
    }

    fn next_wake(&self) -> Option<Micros> {
        let registrations = self.registrations.iter().map(Registration::next_wake);
        let served = self.served.iter().filter_map(|served| {
            let live = served.live.as_ref()?;
            // Without room the device waits for some: news of it wake the host.
            let room = live.core.dma_backlog() < turn::BACKLOG_MAX;
            let jobs = served.device.next_job().filter(|_| room);
            let busy = Some(served.busy_until).filter(|_| !served.drained);
            jobs.into_iter().chain(live.grace_until).chain(busy).min()
        });
        registrations.chain(served).min()
    }

    /// Milliseconds by this host's clock; from 1, because 0 says that there is none.
    fn beat(&self, ctx: &Ctx) -> u64 {
        ctx.local(self.id) / MILLI + 1
    }
}
