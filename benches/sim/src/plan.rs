//! What a seed stands for: sizes, times, and which faults come when.

mod scene;

pub(crate) use scene::Scene;

use crate::{
    clock::{MILLI, Micros, SECOND},
    fault::Fault,
    net::FrameFaults,
    rng::Rng,
};

/// Who else wants the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    /// Nobody.
    None,
    /// Another agent.
    Other,
    /// A newer process of the same agent.
    Newer,
}

/// What an agent does once its session is contained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nothing more.
    Remove,
    /// It attaches anew.
    Reset,
}

/// How the device behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DevicePlan {
    /// Of a thousand turns, so many are slow.
    pub(crate) slow: u64,
    /// A turn is slow after so many accesses at the earliest.
    pub(crate) steps: usize,
    /// How long a slow turn is at most.
    pub(crate) pause_max: Micros,
    /// Of a thousand jobs, so many go on after the access.
    pub(crate) later: u64,
    /// Longest DMA write.
    pub(crate) dma_max: u64,
    /// So many others follow each job that goes on.
    pub(crate) more: u32,
    /// Jobs change the level of INTx.
    pub(crate) levels: bool,
    /// Now and then a job raises more interrupts than may be under way.
    pub(crate) storms: bool,
}

/// What the guest does, in weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuestPlan {
    /// How long an access may take.
    pub(crate) deadline: Micros,
    /// Accesses that each agent makes.
    pub(crate) quota: u64,
    /// Longest burst of posted writes.
    pub(crate) burst_max: u64,
    /// Mean pause between two steps.
    pub(crate) pause: Micros,
    /// Most accesses that wait at once.
    pub(crate) depth: u64,
    /// Of a thousand steps, so many concern resets, bus mastering and windows.
    pub(crate) revoke: u64,
    /// Of a thousand steps, so many make the device work.
    pub(crate) doorbell: u64,
    /// It writes long blocks mostly.
    pub(crate) floods: bool,
    pub(crate) policy: Policy,
}

/// Everything that a seed decides beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) deadline: Micros,
    pub(crate) latency: Micros,
    /// Faults come until then.
    pub(crate) chaos: Micros,
    pub(crate) brokers: usize,
    pub(crate) rival: Rival,
    pub(crate) drift: bool,
    /// One fault of one path at a time, and time to get over it: no session may be lost.
    pub(crate) gentle: bool,
    /// What it is about, if it is about something rare.
    pub(crate) scene: Option<Scene>,
    /// How long a host keeps a session without a path.
    pub(crate) grace: Micros,
    /// How long an agent tries to get a path.
    pub(crate) abandon: Micros,
    pub(crate) frame_faults: FrameFaults,
    pub(crate) faults: Vec<(Micros, Fault)>,
    pub(crate) device: DevicePlan,
    pub(crate) guest: GuestPlan,
    pub(crate) store_latency: Micros,
    pub(crate) disk_latency: Micros,
}

/// Faults that come at a time; the others hit frames.
const TIMED: [Fault; 15] = [
    Fault::Disconnect,
    Fault::OneWayPartition,
    Fault::Partition,
    Fault::HalfOpen,
    Fault::SlowReader,
    Fault::KillAgent,
    Fault::KillBroker,
    Fault::KillHost,
    Fault::PauseAgent,
    Fault::PauseBroker,
    Fault::PauseHost,
    Fault::ClockJump,
    Fault::DoubleOwner,
    Fault::StoreLate,
    Fault::StoreFails,
];

/// Faults of one path.
const GENTLE: [Fault; 8] = [
    Fault::Disconnect,
    Fault::HalfOpen,
    Fault::Drop,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Delay,
    Fault::Truncate,
    Fault::Corrupt,
];

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let deadline = MILLI * rng.pick(&[50, 100, 250, 1000, 1000, 4000]);
        // From nothing to all at once: in a mild run a fault meets with a session that is well.
        let wildness = rng.within(0, 4);
        let chaos = deadline * rng.within(4, 16);
        let quota = rng.pick(&[1000, 2000, 3000, 6000]);
        let latency = rng.within(20, deadline / 40);
        let mut plan = Self {
            deadline,
            latency,
            chaos,
            brokers: 1 + usize::from(rng.chance(700)),
            rival: Rival::None,
            drift: rng.chance(500),
            gentle: false,
            scene: None,
            grace: (10 * SECOND).max(3 * deadline),
            abandon: (3 * SECOND).max(2 * deadline),
            frame_faults: FrameFaults::default(),
            faults: Vec::new(),
            device: device(rng),
            guest: guest(rng, quota, chaos, deadline),
            store_latency: rng.skewed(5 * MILLI),
            disk_latency: rng.skewed(5 * MILLI),
        };
        if rng.chance(200) {
            plan.be_gentle(rng);
        } else {
            plan.draw_faults(rng, wildness);
            plan.draw_scene(rng);
        }
        plan
    }

    fn be_gentle(&mut self, rng: &mut Rng) {
        self.gentle = true;
        self.deadline = SECOND * rng.pick(&[1, 4]);
        self.guest.deadline = self.deadline;
        self.latency = rng.within(20, self.deadline / 400);
        self.grace = 10 * SECOND;
        self.abandon = 8 * SECOND;
        let faults = rng.within(1, 6);
        self.chaos = SECOND + 3 * self.deadline * faults;
        self.guest.pause = self.chaos / (self.guest.quota / (self.guest.burst_max / 6 + 1) + 10);
        for n in 0..faults {
            let at = SECOND + 3 * self.deadline * n + rng.below(self.deadline);
            self.faults.push((at, rng.pick(&GENTLE)));
        }
    }

    fn draw_faults(&mut self, rng: &mut Rng, wildness: u64) {
        let most = [0, 100, 300, 1000, 3000][usize::try_from(wildness).unwrap_or(0)];
        let mut odds = || {
            if most > 0 && rng.chance(400) {
                rng.skewed(most)
            } else {
                0
            }
        };
        self.frame_faults = FrameFaults {
            drop: odds(),
            duplicate: odds(),
            reorder: odds(),
            delay: odds(),
            truncate: odds(),
            corrupt: odds(),
        };
        for _ in 0..2 * wildness {
            let fault = rng.pick(&TIMED);
            for _ in 0..rng.within(1, 2) {
                let at = self.chaos / 10 + rng.below(self.chaos * 9 / 10);
                self.faults.push((at, fault));
            }
        }
        if self
            .faults
            .iter()
            .any(|(_, fault)| *fault == Fault::DoubleOwner)
        {
            self.rival = rng.pick(&[Rival::Other, Rival::Newer]);
        }
        if wildness > 0 && rng.chance(200) {
            self.device.slow = rng.skewed(200);
            self.device.pause_max = rng.skewed(self.deadline / 3);
        }
    }
}

fn device(rng: &mut Rng) -> DevicePlan {
    DevicePlan {
        slow: 0,
        steps: 16,
        pause_max: 0,
        later: rng.pick(&[0, 200, 800]),
        dma_max: rng.pick(&[64, 512, 4096, 4096, 70_000]),
        more: 0,
        levels: false,
        storms: false,
    }
}

fn guest(rng: &mut Rng, quota: u64, chaos: Micros, deadline: Micros) -> GuestPlan {
    let burst_max = rng.pick(&[16, 64, 256, 1024]);
    // Bursts come with skewed lengths: this many steps make the quota, about.
    let steps = quota / (burst_max / 6 + 1) + 10;
    GuestPlan {
        deadline,
        quota,
        burst_max,
        pause: chaos / steps,
        depth: rng.pick(&[1, 1, 4, 16]),
        revoke: rng.pick(&[0, 10, 100]),
        doorbell: rng.pick(&[50, 200, 400]),
        floods: false,
        policy: rng.pick(&[Policy::Remove, Policy::Reset, Policy::Reset]),
    }
}
