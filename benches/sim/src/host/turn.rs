//! The device works: what its session has received, and what goes on by itself.

use potemkin_session::{
    access::{Access, Operation, Payload, Status},
    host::{Host, Work},
};

use super::{
    HostActor,
    served::{Live, Served},
};
use crate::{
    ctx::Ctx,
    device::{Device, Effect},
    oracle::{LogId, Oracle, read_back},
    rng::hash,
};

/// Callbacks of a turn.
const TURN_MAX: usize = 256;
/// DMA under way past which the device waits with its jobs.
pub(super) const BACKLOG_MAX: usize = 1 << 20;

impl HostActor {
    /// Lets the device of a session do what there is to do, and sends what that gives.
    pub(super) fn work(&mut self, ctx: &mut Ctx, device: usize) {
        let now = ctx.local(self.id);
        let beat = self.beat(ctx);
        let Some(served) = self.served.get_mut(device) else {
            return;
        };
        loop {
            let more = served.turn(ctx, now);
            let Some(live) = &mut served.live else { return };
            live.core.set_beat(beat);
            let Some(conn) = live.conn else { break };
            while let Some(frame) = live.core.poll_transmit() {
                ctx.send_frame(self.id, conn, frame);
            }
            if !more {
                break;
            }
        }
    }
}

impl Served {
    /// A driver that goes on after the end: nothing is left to do for the guest.
    pub(super) fn work_after_end(live: &mut Live, oracle: &mut Oracle) {
        while let Some(work) = live.core.next_work() {
            let Work::Access(access) = work else {
                live.core.complete(Status::Ok, &[]);
                continue;
            };
            let (shape, value) = read_back(&access);
            oracle.apply(live.log, shape, value);
            live.core.complete(Status::DeviceError, &[]);
        }
    }

    /// A bounded number of callbacks. True: there may be more.
    fn turn(&mut self, ctx: &mut Ctx, now: u64) -> bool {
        if now < self.busy_until {
            return false;
        }
        let (Some(live), device) = (&mut self.live, &mut self.device) else {
            return false;
        };
        let Live { core, log, .. } = live;
        if core.dma_backlog() < BACKLOG_MAX {
            device.run_jobs(now);
            pass_on(device, core, *log, &mut ctx.oracle);
        }
        for n in 0..TURN_MAX {
            // In a calm world the device is quick.
            if !ctx.calm
                && let Some(pause) = device.hesitation(n)
            {
                ctx.net.faults.count(crate::fault::Fault::SlowDevice);
                self.busy_until = now + pause;
                return false;
            }
            let Some(work) = core.next_work() else {
                self.drained = true;
                return false;
            };
            execute(device, core, *log, &mut ctx.oracle, now, work);
        }
        true
    }
}

/// What the device starts in the callback goes to the core before the answer does.
fn execute(
    device: &mut Device,
    core: &mut Host,
    log: LogId,
    oracle: &mut Oracle,
    now: u64,
    work: Work,
) {
    match work {
        Work::Access(access) => return access_device(device, core, log, oracle, now, &access),
        Work::Reset => {
            core.set_intx(false);
            oracle.intx_set(log, false);
            device.reset();
            oracle.told(log, true, core.generations().floor);
        }
        Work::BusMasterOff => {
            device.forget_work();
            oracle.told(log, false, core.generations().floor);
        }
        Work::DmaRead { tag, outcome } => {
            if let Ok(bytes) = &outcome {
                let (nonce, right) = crate::agent::check_descriptor(bytes);
                oracle.dma_read(log, nonce, right);
            }
            if !device.fetched(tag, &outcome) {
                oracle.dma_read(log, 0, false);
            }
        }
        Work::DmaWriteFailed(_) => {}
    }
    pass_on(device, core, log, oracle);
    core.complete(Status::Ok, &[]);
}

fn access_device(
    device: &mut Device,
    core: &mut Host,
    log: LogId,
    oracle: &mut Oracle,
    now: u64,
    access: &Access,
) {
    let (shape, value) = read_back(access);
    let index = oracle.apply(log, shape, value);
    let status = match &access.operation {
        Operation::Read => device.read(access.at.offset, access.at.width.bytes(), access.bytes()),
        Operation::Write(_, Payload::Value(_) | Payload::Block(_)) => {
            device.write(access.at.offset, value, now, core.generations().newest);
            Status::Ok
        }
    };
    if !device.effects.is_empty() {
        pass_on(device, core, log, oracle);
        oracle.note_effect(log, index);
    }
    if !access.is_posted() {
        let data = match (&access.operation, status) {
            (_, Status::DeviceError) => None,
            (Operation::Read, _) => Some(hash(&device.answer)),
            _ => Some(hash(&[])),
        };
        oracle.answer(log, index, data);
    }
    core.complete(status, &device.answer);
}

fn pass_on(device: &mut Device, core: &mut Host, log: LogId, oracle: &mut Oracle) {
    for effect in device.effects.drain(..) {
        match effect {
            Effect::Write {
                generation,
                address,
                data,
            } => {
                oracle.dma_begun(log, generation, address, &data);
                core.dma_write(generation, address, data);
            }
            Effect::Read {
                generation,
                address,
                length,
                tag,
            } => {
                oracle.dma_asked(log, generation, address);
                core.dma_read(generation, address, length, tag);
            }
            Effect::Interrupt { generation, vector } => {
                oracle.raised(log, generation, vector);
                core.raise(generation, vector);
            }
            Effect::Level(level) => {
                oracle.intx_set(log, level);
                core.set_intx(level);
            }
        }
    }
}
