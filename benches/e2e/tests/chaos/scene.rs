//! The processes, the network and the guest; and how each fault is played.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use potemkin_e2e::{Duo, DuoOptions, End, Link, Ways, Who, dice::Dice, load::Load};

use potemkin_transport::TransportKind::{self, Grpc, Quic};

use crate::{ROLE, fault::Fault, tally::Tally};

/// Turns of the guest before and after a fault: the session lives.
const TURNS: u64 = 40;
/// How often a link goes down that flaps.
const FLAPS: u32 = 10;
/// What the agent's leg and the hosts' run on, one after the other.
const LEGS: [(TransportKind, TransportKind); 4] =
    [(Quic, Quic), (Grpc, Grpc), (Quic, Grpc), (Grpc, Quic)];

pub(crate) struct Scene {
    duo: Duo,
    options: DuoOptions,
    load: Option<Load>,
    tally: Tally,
}

impl Scene {
    /// The `number`-th of a run; what it comes to is added to the tally.
    pub(crate) fn new(number: u64, deadline: Duration, tally: Tally) -> Self {
        let (agent_leg, host_leg) = LEGS[usize::try_from(number % 4).unwrap()];
        println!("chaos: agent over {agent_leg}, host over {host_leg}");
        let options = DuoOptions {
            agent_leg,
            host_leg,
            deadline,
            log_filter: env::var("POTEMKIN_CHAOS_LOG").unwrap_or_else(|_| "info".to_owned()),
            ..DuoOptions::default()
        };
        let duo = Duo::start(ROLE, &options, Some(Ways::new().unwrap())).unwrap();
        let mut scene = Self {
            duo,
            options,
            load: None,
            tally,
        };
        scene.attach();
        scene
    }

    pub(crate) fn play(&mut self, fault: Fault, dice: &mut Dice) {
        self.tally.fault(fault);
        self.load().await_turns(TURNS);
        match fault {
            Fault::KillBroker => self.kill_broker(self.duo.in_use()),
            Fault::KillIdleBroker => self.kill_broker(1 - self.duo.in_use()),
            Fault::KillBothInTurn => self.kill_both_in_turn(),
            Fault::KillBoth => return self.kill_both_at_once(),
            Fault::TerminateBroker => self.terminate_broker(),
            Fault::StopBroker => self.stop_broker(self.beyond_time_outs()),
            Fault::PauseBroker => self.stop_broker(self.below_deadline(dice)),
            Fault::PauseHost => self.pause_host(dice),
            Fault::Blip => self.blip(&[self.link_in_use(dice)], dice),
            Fault::Flap => self.flap(dice),
            Fault::BlipAll => self.blip(&all_ways(dice), dice),
            Fault::CutOneWay => self.cut_one_way(dice),
            Fault::CutBothWays => self.cut_both_ways(dice),
            Fault::SlowDown => self.slow_down(dice),
            Fault::KillHost => return self.kill_host(),
            Fault::StopHost => return self.stop_host(),
            Fault::CutAll => return self.cut_all(dice),
        }
        self.load().await_turns(TURNS);
        self.duo.settle(1).unwrap();
    }

    /// The last session ends too.
    pub(crate) fn end(mut self) -> Tally {
        self.finish_session();
        std::mem::take(&mut self.tally)
    }

    fn kill_broker(&mut self, broker: usize) {
        let in_use = self.duo.in_use() == broker;
        self.duo.brokers[broker].process.kill().unwrap();
        let killed = Instant::now();
        let answer = self.load().await_answer(killed);
        if in_use {
            let took = answer.answered - killed;
            self.tally.time("broker killed to next access", took);
        }
        self.load().await_turns(TURNS);
        self.duo.restart_broker(broker).unwrap();
    }

    fn kill_both_in_turn(&mut self) {
        self.kill_broker(0);
        self.kill_broker(1);
    }

    fn kill_both_at_once(&mut self) {
        for broker in &mut self.duo.brokers {
            broker.process.kill().unwrap();
        }
        for broker in [0, 1] {
            self.duo.restart(Who::Broker(broker)).unwrap();
        }
        let lives = self.load().lives_for(TURNS);
        self.tally.kill_of_both(lives);
        if lives {
            self.duo.settle(1).unwrap();
        } else {
            self.begin_anew();
        }
    }

    fn terminate_broker(&mut self) {
        let broker = self.duo.in_use();
        let _before = self.load().take_slowest();
        self.duo.brokers[broker].terminate().unwrap();
        self.load().await_turns(TURNS);
        let slowest = self.load().take_slowest();
        self.tally
            .time("slowest access while a broker stops", slowest);
        self.duo.restart_broker(broker).unwrap();
    }

    fn stop_broker(&mut self, long: Duration) {
        let broker = self.duo.in_use();
        self.duo.brokers[broker].process.pause().unwrap();
        thread::sleep(long);
        self.duo.brokers[broker].process.resume().unwrap();
    }

    fn pause_host(&mut self, dice: &mut Dice) {
        let long = self.below_deadline(dice);
        self.duo.host.process.pause().unwrap();
        thread::sleep(long);
        self.duo.host.process.resume().unwrap();
    }

    fn blip(&mut self, links: &[Link], dice: &mut Dice) {
        let long = self.below_deadline(dice);
        let ways = self.duo.ways();
        links.iter().for_each(|link| ways.take_down(*link).unwrap());
        thread::sleep(long);
        links.iter().for_each(|link| ways.take_up(*link).unwrap());
        let up = Instant::now();
        let answer = self.load().await_answered(up);
        if answer.begun < up && links.len() > 1 {
            let took = answer.answered - up;
            self.tally.time("links up to next access", took);
        }
    }

    fn flap(&mut self, dice: &mut Dice) {
        let link = self.link_in_use(dice);
        let ways = self.duo.ways();
        for _ in 0..FLAPS {
            ways.take_down(link).unwrap();
            thread::sleep(share(self.options.deadline, dice.between(1, 15)));
            ways.take_up(link).unwrap();
            thread::sleep(share(self.options.deadline, dice.between(1, 15)));
        }
    }

    fn cut_one_way(&mut self, dice: &mut Dice) {
        let link = self.link_in_use(dice);
        let long = self.any_length(dice);
        let ways = self.duo.ways();
        if *dice.one(&[true, false]) {
            ways.cut_towards_broker(link).unwrap();
            thread::sleep(long);
            ways.mend_towards_broker(link).unwrap();
        } else {
            ways.cut_from_broker(link).unwrap();
            thread::sleep(long);
            ways.mend_from_broker(link).unwrap();
        }
    }

    fn cut_both_ways(&mut self, dice: &mut Dice) {
        let link = self.link_in_use(dice);
        self.cut(&[link]);
        thread::sleep(self.any_length(dice));
        self.mend(&[link]);
    }

    fn slow_down(&mut self, dice: &mut Dice) {
        let link = self.link_in_use(dice);
        let kilobits = u32::try_from(dice.between(512, 4_096)).unwrap();
        self.duo.ways().slow_down(link, kilobits).unwrap();
        thread::sleep(self.options.deadline * 2);
        self.duo.ways().speed_up(link).unwrap();
    }

    fn kill_host(&mut self) {
        let killed = Instant::now();
        self.duo.host.process.kill().unwrap();
        self.await_containment("host killed to all-ones", killed);
        self.duo.restart(Who::Host).unwrap();
        self.begin_anew();
    }

    fn stop_host(&mut self) {
        let stopped = Instant::now();
        self.duo.host.process.pause().unwrap();
        self.await_containment("host stopped to all-ones", stopped);
        self.duo.host.process.resume().unwrap();
        self.begin_anew();
    }

    fn cut_all(&mut self, dice: &mut Dice) {
        let links = all_ways(dice);
        let cut = Instant::now();
        self.cut(&links);
        self.await_containment("all ways cut to all-ones", cut);
        self.mend(&links);
        self.begin_anew();
    }

    fn cut(&self, links: &[Link]) {
        for link in links {
            self.duo.ways().cut_towards_broker(*link).unwrap();
            self.duo.ways().cut_from_broker(*link).unwrap();
        }
    }

    fn mend(&self, links: &[Link]) {
        for link in links {
            self.duo.ways().mend_towards_broker(*link).unwrap();
            self.duo.ways().mend_from_broker(*link).unwrap();
        }
    }

    fn await_containment(&mut self, what: &'static str, since: Instant) {
        let contained = self.load().await_containment();
        self.tally.time(what, contained.answered - since);
    }

    /// The guest of a contained session is watched until the pool is whole again; then there is a new session.
    fn begin_anew(&mut self) {
        self.duo.await_hosts().unwrap();
        self.finish_session();
        self.attach();
    }

    fn finish_session(&mut self) {
        let load = self.load.take().unwrap();
        let resumes = self.duo.status().counters.resumes;
        self.tally.session(load.stop(), resumes);
        self.duo.detach();
    }

    fn attach(&mut self) {
        let socket = self.duo.attach();
        self.load = Some(Load::start(&socket));
        self.duo.settle(1).unwrap();
        self.load().await_turns(TURNS);
    }

    fn load(&self) -> &Load {
        self.load.as_ref().unwrap()
    }

    fn link_in_use(&self, dice: &mut Dice) -> Link {
        Link::new(*dice.one(&[End::Agent, End::Host]), self.duo.in_use())
    }

    /// Short enough for another path to be found, or the same again.
    fn below_deadline(&self, dice: &mut Dice) -> Duration {
        share(self.options.deadline, dice.between(5, 45))
    }

    fn beyond_time_outs(&self) -> Duration {
        self.options.lease.max(self.options.idle_timeout) * 2
    }

    fn any_length(&self, dice: &mut Dice) -> Duration {
        match *dice.one(&[true, false]) {
            true => self.below_deadline(dice),
            false => self.beyond_time_outs(),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() && env::var_os("POTEMKIN_CHAOS_KEEP").is_some() {
            self.duo.keep();
            println!("chaos: logs are in {}", self.duo.dir().display());
        }
    }
}

/// Those of one end, or all four: nothing passes.
fn all_ways(dice: &mut Dice) -> Vec<Link> {
    let of = |end| [0, 1].map(|broker| Link::new(end, broker)).to_vec();
    match dice.between(0, 2) {
        0 => of(End::Agent),
        1 => of(End::Host),
        _ => Link::ALL.to_vec(),
    }
}

fn share(of: Duration, percent: usize) -> Duration {
    of * u32::try_from(percent).unwrap() / 100
}
