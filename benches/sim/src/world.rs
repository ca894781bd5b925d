//! Everything together: who is alive, what happens next, and when a run is over.

use crate::{
    actor::{ACTORS_MAX, ActorId, Role},
    agent::Agent,
    broker::Broker,
    clock::{MILLI, Micros, SECOND},
    ctx::{Ctx, Event},
    fault::Fault,
    host::HostActor,
    message::{Control, Payload},
    net::{Arrival, ConnId, KEEP_ALIVE, Net},
    oracle::{Clause, Oracle},
    plan::{Plan, Rival},
    rng::Rng,
    trace::Trace,
};

/// A run has not more events than this.
const EVENTS_MAX: u64 = 2_000_000;
/// How often a calm world is looked at.
const LOOK: Micros = 20 * MILLI;

/// A process.
#[derive(Debug, Default)]
struct Process {
    alive: bool,
    /// Stopped; what arrives waits.
    stopped: bool,
    inbox: Vec<Arrival>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ctx: Ctx,
    processes: [Process; ACTORS_MAX],
    brokers: Vec<Broker>,
    hosts: Vec<HostActor>,
    agents: Vec<Agent>,
    rng: Rng,
    pub(crate) events: u64,
    /// Since when all are at rest.
    rest_since: Option<Micros>,
    end: Micros,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        // As long as the slowest may take: a path given up, an attach, a lease.
        let settle =
            2 * plan.abandon + 4 * plan.deadline + plan.grace + 2 * KEEP_ALIVE + 20 * SECOND;
        let end = plan.chaos + settle;
        let net = Net::new(
            rng.fork(),
            plan.latency,
            plan.frame_faults,
            plan.deadline / 2,
        );
        let mut trace = Trace::new(verbose);
        trace.line(0, || format!("{plan:?}"));
        let mut oracle = Oracle::new(1);
        oracle.storms = plan.device.storms;
        let ctx = Ctx::new(plan, net, oracle, trace, rng.fork());
        let mut world = Self {
            brokers: (0..ctx.plan.brokers)
                .map(|n| Broker::new(n, rng.fork()))
                .collect(),
            hosts: vec![HostActor::new(0, 1, rng.fork())],
            agents: (0..2).map(|n| Agent::new(&ctx, n, rng.fork())).collect(),
            processes: Default::default(),
            rng,
            ctx,
            events: 0,
            rest_since: None,
            end,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for (at, fault) in std::mem::take(&mut self.ctx.plan.faults) {
            self.ctx.queue.push(at, Event::Fault(fault));
        }
        for n in 0..self.brokers.len() {
            self.start(ActorId::new(Role::Broker(n)));
        }
        self.start(ActorId::new(Role::Host(0)));
        self.start(ActorId::new(Role::Agent(0)));
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) {
        let mut look_at = self.ctx.plan.chaos;
        while !self.ctx.oracle.has_failed() {
            let Some((at, event)) = self.ctx.queue.pop() else {
                self.ctx
                    .oracle
                    .fail(Clause::Ends, || "nothing happens any more".to_owned());
                return;
            };
            self.ctx.now = at;
            self.ctx.oracle.now = at;
            self.events += 1;
            if at >= look_at {
                look_at = at + LOOK;
                if self.look() {
                    return;
                }
            }
            self.happen(event);
            if self.events > EVENTS_MAX {
                self.ctx
                    .oracle
                    .fail(Clause::Ends, || format!("more than {EVENTS_MAX} events"));
            }
        }
    }

    /// True: the run is over.
    fn look(&mut self) -> bool {
        if !self.ctx.calm {
            self.calm_down();
        }
        let now = self.ctx.now;
        let agents = self.agents.iter().enumerate();
        let mut living = agents.filter(|(n, _)| self.process(ActorId::new(Role::Agent(*n))).alive);
        if !living.all(|(_, agent)| agent.is_at_rest()) {
            self.rest_since = None;
            if now > self.end {
                let agents: Vec<_> = self.agents.iter().map(Agent::describe).collect();
                self.ctx.oracle.fail(Clause::Settles, || agents.join("; "));
                return true;
            }
            return false;
        }
        let since = *self.rest_since.get_or_insert(now);
        // What the device still does by itself arrives meanwhile.
        if now < since + 100 * MILLI + 8 * self.ctx.plan.latency {
            return false;
        }
        for agent in &self.agents {
            agent.check_rest(&mut self.ctx);
        }
        true
    }

    /// No faults from here on, and everybody is well.
    fn calm_down(&mut self) {
        self.ctx.calm = true;
        self.ctx.net.heal();
        for (conn, _) in self.ctx.net.late(self.ctx.now) {
            self.silent(conn);
        }
        let now = self.ctx.now;
        self.ctx.trace.line(now, || "calm".to_owned());
        if let Some(broker) = self.brokers.first_mut() {
            broker.store_heals();
        }
        for index in 0..ACTORS_MAX {
            let actor = ActorId(u8::try_from(index).unwrap_or(0));
            self.resume(actor);
            if self.process(actor).alive {
                self.wake(actor);
            }
        }
    }

    fn process(&self, actor: ActorId) -> &Process {
        &self.processes[actor.index()]
    }

    fn happen(&mut self, event: Event) {
        self.mix(&event);
        match event {
            Event::Arrive(arrival) => self.arrive(arrival),
            Event::Wake(actor) => {
                if self.ctx.is_awaited(actor)
                    && self.process(actor).alive
                    && !self.process(actor).stopped
                {
                    self.wake(actor);
                }
            }
            Event::Stored {
                broker,
                run,
                rows,
                good,
            } => {
                if let Role::Broker(n) = broker.role() {
                    let asked = self.process(broker).alive && self.brokers[n].run == run;
                    self.brokers[n].stored(&mut self.ctx, &rows, good, asked);
                }
            }
            Event::OnDisk {
                host,
                run,
                device,
                order,
                conn,
            } => {
                if let Role::Host(n) = host.role()
                    && self.process(host).alive
                    && self.hosts[n].run == run
                {
                    self.hosts[n].on_disk(&mut self.ctx, device, order, conn);
                }
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Restart(actor) => self.start(actor),
            Event::Resume(actor) => self.resume(actor),
            Event::Silent(conn) => self.silent(conn),
        }
    }

    fn mix(&mut self, event: &Event) {
        let (kind, detail) = match event {
            Event::Arrive(arrival) => {
                let len = match &arrival.payload {
                    Payload::Frame { bytes, .. } => bytes.len() as u64,
                    Payload::Control(_) => 1,
                    Payload::Fin => 0,
                };
                (
                    1,
                    (u64::from(arrival.conn.0) << 32) ^ (len << 1) ^ arrival.end as u64,
                )
            }
            Event::Wake(actor) => (2, u64::from(actor.0)),
            Event::Stored { .. } => (3, 0),
            Event::OnDisk { .. } => (4, 0),
            Event::Fault(fault) => (5, *fault as u64),
            Event::Restart(actor) => (6, u64::from(actor.0)),
            Event::Resume(actor) => (7, u64::from(actor.0)),
            Event::Silent(conn) => (8, u64::from(conn.0)),
        };
        let word = self.ctx.now ^ (kind << 60) ^ detail.rotate_left(20);
        self.ctx.trace.mix(word);
        self.ctx.trace.mix(self.ctx.oracle.applied);
    }

    fn arrive(&mut self, arrival: Arrival) {
        let Arrival { conn, end, .. } = arrival;
        if !self.ctx.net.is_open(conn, end) {
            return;
        }
        let actor = self.ctx.net.actor(conn, end);
        // A registration begins with a handshake: that of a process that is gone does not come late.
        let hello = matches!(&arrival.payload, Payload::Control(message) if matches!(**message, Control::Hello { .. }));
        let process = &mut self.processes[actor.index()];
        if !process.alive || (hello && !self.ctx.net.is_open(conn, 1 - end)) {
            // Nobody listens there.
            self.ctx.close(actor, conn);
            return;
        }
        if process.stopped {
            process.inbox.push(arrival);
            return;
        }
        if matches!(arrival.payload, Payload::Fin) {
            self.ctx.net.shut(conn, end);
        }
        let ctx = &mut self.ctx;
        match actor.role() {
            Role::Broker(n) => self.brokers[n].arrive(ctx, conn, arrival.payload),
            Role::Host(n) => self.hosts[n].arrive(ctx, conn, arrival.payload),
            Role::Agent(n) => self.agents[n].arrive(ctx, conn, arrival.payload),
        }
    }

    fn wake(&mut self, actor: ActorId) {
        let ctx = &mut self.ctx;
        match actor.role() {
            Role::Broker(n) => self.brokers[n].woken(ctx),
            Role::Host(n) => self.hosts[n].woken(ctx),
            Role::Agent(n) => self.agents[n].woken(ctx),
        }
    }

    fn start(&mut self, actor: ActorId) {
        // A process in whose place a newer one has come is not started again: then it would be the newer one.
        if matches!(actor.role(), Role::Agent(n) if self.agents[n].is_replaced) {
            return;
        }
        let process = &mut self.processes[actor.index()];
        if std::mem::replace(&mut process.alive, true) {
            return;
        }
        process.stopped = false;
        process.inbox.clear();
        self.ctx.forget_wake(actor);
        self.ctx.trace(actor, || "starts".to_owned());
        let ctx = &mut self.ctx;
        match actor.role() {
            Role::Broker(n) => self.brokers[n].start(ctx),
            Role::Host(n) => self.hosts[n].start(ctx),
            Role::Agent(n) => self.agents[n].start(ctx),
        }
    }

    fn kill(&mut self, actor: ActorId) {
        let process = &mut self.processes[actor.index()];
        if !std::mem::replace(&mut process.alive, false) {
            return;
        }
        process.stopped = false;
        process.inbox.clear();
        self.ctx.trace(actor, || "is killed".to_owned());
        // The kernel says so to the peers, unless the whole machine is gone.
        let told = self.rng.chance(700);
        for (conn, end) in self.ctx.net.of(actor) {
            if told {
                self.ctx.close(actor, conn);
            } else {
                self.ctx.net.shut(conn, end);
                self.ctx
                    .queue
                    .push(self.ctx.now + KEEP_ALIVE, Event::Silent(conn));
            }
        }
        match actor.role() {
            Role::Broker(n) => self.brokers[n].killed(),
            Role::Host(n) => self.hosts[n].killed(&mut self.ctx),
            Role::Agent(n) => self.agents[n].killed(&mut self.ctx),
        }
        let away = self.rng.below(2 * self.ctx.plan.deadline);
        self.ctx
            .queue
            .push(self.ctx.now + away, Event::Restart(actor));
    }

    fn stop(&mut self, actor: ActorId) {
        if !self.process(actor).alive || self.process(actor).stopped {
            return;
        }
        self.ctx.trace(actor, || "is stopped".to_owned());
        self.processes[actor.index()].stopped = true;
        // Past the deadline often, past the keep-alive and the lease sometimes.
        let longest = self.rng.pick(&[
            self.ctx.plan.deadline,
            2 * self.ctx.plan.deadline,
            8 * SECOND,
        ]);
        let at = self.ctx.now + self.rng.below(longest);
        self.ctx.queue.push(at, Event::Resume(actor));
        // Nothing is answered meanwhile: transports notice.
        if at > self.ctx.now + KEEP_ALIVE {
            for (conn, _) in self.ctx.net.of(actor) {
                self.ctx
                    .queue
                    .push(self.ctx.now + KEEP_ALIVE, Event::Silent(conn));
            }
        }
    }

    fn resume(&mut self, actor: ActorId) {
        let process = &mut self.processes[actor.index()];
        if !std::mem::replace(&mut process.stopped, false) {
            return;
        }
        let inbox = std::mem::take(&mut process.inbox);
        self.ctx
            .trace(actor, || format!("goes on, {} wait", inbox.len()));
        // What is due or what has come: which is looked at first is anyone's guess.
        if self.rng.chance(500) {
            self.wake(actor);
        }
        for arrival in inbox {
            self.arrive(arrival);
        }
        self.wake(actor);
    }

    /// A stream's transport gives up: each end that listens hears of it.
    fn silent(&mut self, conn: ConnId) {
        for end in [0, 1] {
            let payload = Payload::Fin;
            self.arrive(Arrival {
                at: self.ctx.now,
                conn,
                end,
                payload,
            });
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.ctx.calm {
            return;
        }
        self.ctx.disturbed = true;
        if !self.inflict(fault) {
            return;
        }
        let now = self.ctx.now;
        self.ctx
            .trace
            .line(now, || format!("fault: {}", fault.name()));
        self.ctx.net.faults.count(fault);
    }

    /// False: there was nothing to hit.
    fn inflict(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Disconnect | Fault::HalfOpen | Fault::SlowReader => self.hit_stream(fault),
            Fault::Partition | Fault::OneWayPartition => self.part(fault == Fault::OneWayPartition),
            Fault::KillAgent => self.hit(Role::Agent(0), Self::kill),
            Fault::KillBroker => {
                let broker = self.broker();
                self.hit(broker, Self::kill)
            }
            Fault::KillHost => self.hit(Role::Host(0), Self::kill),
            Fault::PauseAgent => self.hit(Role::Agent(0), Self::stop),
            Fault::PauseBroker => {
                let broker = self.broker();
                self.hit(broker, Self::stop)
            }
            Fault::PauseHost => self.hit(Role::Host(0), Self::stop),
            Fault::ClockJump => self.jump(),
            Fault::DoubleOwner => self.rival(),
            Fault::StoreLate => {
                let late = self.rng.skewed(10_000);
                self.brokers[0].store_late(late);
                true
            }
            Fault::StoreFails => {
                let times = self.rng.within(1, 3);
                self.brokers[0].store_fails(times);
                true
            }
            Fault::SetBack => self.agents[0].set_back(&self.ctx),
            Fault::FenceAgain => {
                let host = &mut self.hosts[0];
                let process = &self.processes[ActorId::new(Role::Host(0)).index()];
                process.alive && !process.stopped && host.fence_again(&mut self.ctx)
            }
            Fault::DialAgain => self.agents[0].dial_again(&mut self.ctx),
            Fault::Drop
            | Fault::Duplicate
            | Fault::Reorder
            | Fault::Delay
            | Fault::Truncate
            | Fault::Corrupt => {
                // It is counted when the frame comes.
                self.ctx.net.next_frame = Some(fault);
                false
            }
            // It comes when a device hesitates, or when a host is away.
            Fault::SlowDevice | Fault::SecondHost => false,
        }
    }

    fn broker(&mut self) -> Role {
        let n = self.rng.below(self.brokers.len() as u64);
        Role::Broker(usize::try_from(n).unwrap_or(0))
    }

    fn hit(&mut self, role: Role, how: impl FnOnce(&mut Self, ActorId)) -> bool {
        let actor = ActorId::new(role);
        let process = self.process(actor);
        if !process.alive || process.stopped {
            return false;
        }
        how(self, actor);
        true
    }

    fn hit_stream(&mut self, fault: Fault) -> bool {
        let streams = self.ctx.net.data();
        if streams.is_empty() {
            return false;
        }
        let (conn, _) = self.rng.pick(&streams);
        let end = usize::from(self.rng.chance(500));
        match fault {
            Fault::Disconnect => self.silent(conn),
            Fault::HalfOpen => {
                self.ctx.net.kill_direction(conn, end);
                self.ctx
                    .queue
                    .push(self.ctx.now + KEEP_ALIVE, Event::Silent(conn));
            }
            _ => {
                let per_kib = self.rng.skewed(self.ctx.plan.deadline);
                self.ctx.net.slow_down(conn, per_kib);
            }
        }
        true
    }

    /// Two machines hear nothing of each other for a while.
    fn part(&mut self, one_way: bool) -> bool {
        let broker = ActorId::new(self.broker());
        let other = ActorId::new(self.rng.pick(&[Role::Host(0), Role::Agent(0)]));
        let (from, to) = if self.rng.chance(500) {
            (broker, other)
        } else {
            (other, broker)
        };
        let longest = self.rng.pick(&[
            self.ctx.plan.deadline / 4,
            2 * self.ctx.plan.deadline,
            6 * SECOND,
        ]);
        let until = self.ctx.now + self.rng.below(longest);
        self.ctx.net.block(from, to, until);
        if !one_way {
            self.ctx.net.block(to, from, until);
        }
        if until > self.ctx.now + KEEP_ALIVE {
            for (conn, _) in self.ctx.net.between(from, to) {
                self.ctx
                    .queue
                    .push(self.ctx.now + KEEP_ALIVE, Event::Silent(conn));
            }
        }
        true
    }

    fn jump(&mut self) -> bool {
        let actor = ActorId::new(
            self.rng
                .pick(&[Role::Host(0), Role::Agent(0), Role::Broker(0)]),
        );
        let longest = self.rng.pick(&[
            self.ctx.plan.deadline / 2,
            2 * self.ctx.plan.deadline,
            6 * SECOND,
        ]);
        let by = self.rng.below(longest);
        self.ctx.clocks[actor.index()].jump(by);
        if self.process(actor).alive && !self.process(actor).stopped {
            self.wake(actor);
        }
        true
    }

    fn rival(&mut self) -> bool {
        let actor = ActorId::new(Role::Agent(1));
        if self.process(actor).alive {
            return false;
        }
        if self.ctx.plan.rival == Rival::Newer {
            // The older one does not fight back: two that did would take the device from each other for ever.
            self.agents[0].policy = crate::plan::Policy::Remove;
            self.agents[0].is_replaced = true;
        }
        self.start(actor);
        true
    }
}
