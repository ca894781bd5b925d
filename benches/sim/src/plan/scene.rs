//! What is too rare, too costly or too disturbing for all seeds: a fraction of them is about one such thing each.

use super::{Plan, Rival};
use crate::{clock::MILLI, fault::Fault, net::FrameFaults, rng::Rng};

/// What a seed is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Drivers do not leave their older streams: they hand in what still comes there, and what comes for a session that is over.
    Careless,
    /// The device raises more interrupts than may be under way.
    Storm,
    /// The guest writes more than there is credit for, and the device is slow.
    Flood,
    /// The device works on by itself, and changes the level of INTx, while paths come and go.
    Restless,
    /// The agent's machine is set back to an earlier moment.
    SetBack,
    /// The host waits for a path less long than the agent tries to get one.
    ShortGrace,
    /// Fences and dials come again, and late; the host's disk is slow.
    Echoes,
    /// Agents claim the device before they attach, and another one wants it.
    Claims,
    /// Another host offers the device as soon as the first one is away.
    TwoHosts,
    /// The device is slow, and paths that are lost do not come back in time.
    Severed,
}

const SCENES: [Scene; 18] = [
    Scene::Restless,
    Scene::Restless,
    Scene::Careless,
    Scene::Careless,
    Scene::Careless,
    Scene::Storm,
    Scene::Flood,
    Scene::Restless,
    Scene::Restless,
    Scene::SetBack,
    Scene::ShortGrace,
    Scene::Echoes,
    Scene::Echoes,
    Scene::Claims,
    Scene::TwoHosts,
    Scene::TwoHosts,
    Scene::Severed,
    Scene::Severed,
];

impl Plan {
    pub(super) fn draw_scene(&mut self, rng: &mut Rng) {
        if !rng.chance(400) {
            return;
        }
        let scene = rng.pick(&SCENES);
        self.scene = Some(scene);
        match scene {
            Scene::Careless => {
                let faults = [Fault::HalfOpen, Fault::PauseAgent, Fault::SlowReader];
                self.inflict(rng, &faults, 2);
            }
            Scene::Storm => {
                self.device.storms = true;
                self.guest.doorbell = 400;
            }
            Scene::Flood => {
                self.guest.floods = true;
                self.guest.burst_max = 1024;
                self.be_slow(1000, self.deadline / 64);
            }
            Scene::Restless => {
                // Nothing else is wrong: what was raised arrives soon.
                self.be_well();
                self.device.later = 800;
                self.device.more = 5;
                self.device.levels = true;
                self.guest.doorbell = 500;
                self.guest.revoke = 100;
                // Long enough between two steps for what is missing to be missed.
                self.guest.pause = 60 * MILLI + 8 * self.latency;
                self.chaos = self.chaos.max(40 * self.guest.pause);
                self.inflict(rng, &[Fault::Disconnect], 16);
                self.inflict(rng, &[Fault::DialAgain], 4);
            }
            Scene::SetBack => {
                // Only who is alone with it is sure of what must follow.
                self.be_well();
                self.device.later = 0;
                self.inflict(rng, &[Fault::SetBack], 2);
            }
            Scene::ShortGrace => {
                self.grace = rng.skewed(20 * MILLI);
                self.inflict(rng, &[Fault::Disconnect, Fault::PauseAgent], 3);
            }
            Scene::Echoes => {
                self.disk_latency = rng.within(self.deadline / 4, self.deadline);
                let faults = [Fault::FenceAgain, Fault::DialAgain];
                self.inflict(rng, &faults, 4);
                self.inflict(rng, &[Fault::KillAgent, Fault::DoubleOwner], 2);
                self.rival = rng.pick(&[Rival::Other, Rival::Newer]);
            }
            Scene::Claims => {
                self.rival = Rival::Other;
                self.guest.policy = super::Policy::Reset;
                let faults = [Fault::KillBroker, Fault::KillHost, Fault::DoubleOwner];
                self.inflict(rng, &faults, 1);
            }
            Scene::TwoHosts => {
                let faults = [Fault::PauseHost, Fault::KillHost, Fault::Partition];
                self.inflict(rng, &faults, 1);
            }
            Scene::Severed => {
                // The agent's clock is right, and it is never stopped: it keeps each deadline.
                self.be_well();
                self.be_slow(400, self.deadline / 16);
                self.device.steps = 1;
                self.guest.depth = 16;
                self.guest.policy = super::Policy::Reset;
                self.inflict(rng, &[Fault::PauseHost], 6);
            }
        }
    }

    /// No other fault than those of the scene.
    fn be_well(&mut self) {
        self.frame_faults = FrameFaults::default();
        self.faults.clear();
        self.be_slow(0, 0);
    }

    fn be_slow(&mut self, slow: u64, pause_max: u64) {
        self.device.slow = slow;
        self.device.pause_max = pause_max;
    }

    /// Each of these faults, so many times.
    fn inflict(&mut self, rng: &mut Rng, faults: &[Fault], times: u64) {
        for _ in 0..times {
            for fault in faults {
                let at = self.chaos / 10 + rng.below(self.chaos * 9 / 10);
                self.faults.push((at, *fault));
            }
        }
    }
}
