//! A session's front half, driven: frames, events, time.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use potemkin_broker::ids::Incarnation;
use potemkin_session::{
    access::DmaError,
    front::{DmaRead, DmaWrite, Failure, Front, FrontConfig, FrontEvent, FrontState},
    ids::{self, Path},
};

use super::{Agent, bus::Bus, guest::Guest};
use crate::{
    actor::{ActorId, Role},
    clock::{MILLI, Micros, Origin},
    ctx::Ctx,
    net::{Carries, ConnId},
    oracle::{Clause, Ending, LogId, Oracle, is_bare_close},
    plan::Scene,
    rng::hash,
};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) front: Front,
    pub(super) log: LogId,
    pub(super) path: Path,
    pub(super) conn: Option<ConnId>,
    /// Streams of older paths that a careless driver still hears.
    pub(super) older: Vec<ConnId>,
    /// The first frames of its newest dials.
    pub(super) opens: VecDeque<Bytes>,
    pub(super) bus: Bus,
    /// As the guest sees it.
    pub(super) intx: bool,
    /// Since when each run of posted writes waits, with the last one's number.
    pub(super) ages: VecDeque<(u64, Micros)>,
    /// Dials since the session had a path last.
    pub(super) dials: u32,
    /// None before then.
    pub(super) dial_at: Micros,
    pub(super) lost_since: Option<Micros>,
    /// Which broker is dialled next.
    pub(super) broker: usize,
    pub(super) origin: Origin,
    /// Once opened.
    pub(super) was_live: bool,
    /// Since when it has this path.
    pub(super) live_since: Micros,
}

impl Session {
    /// Opens a new session's first path.
    pub(super) fn begin(
        ctx: &mut Ctx,
        agent: ActorId,
        log: LogId,
        path: Path,
        host: Incarnation,
    ) -> Self {
        let config = FrontConfig {
            path,
            host_incarnation: ids::Incarnation::from_bytes(host.0.to_be_bytes()),
            deadline: Duration::from_micros(ctx.plan.deadline),
        };
        let now = ctx.local(agent);
        Self {
            front: Front::new(config, ctx.origin.instant(now)),
            log,
            path,
            conn: Some(ctx.connect(agent, ActorId::new(Role::Broker(0)), Carries::Frames)),
            older: Vec::new(),
            opens: VecDeque::new(),
            bus: Bus::new(),
            intx: false,
            ages: VecDeque::new(),
            dials: 0,
            dial_at: 0,
            lost_since: None,
            broker: 0,
            origin: ctx.origin,
            was_live: false,
            live_since: 0,
        }
    }

    /// `guest`: if it runs.
    pub(super) fn next_wake(&self, guest: Option<&Guest>) -> Option<Micros> {
        let timeout = self.front.poll_timeout().map(|at| self.origin.micros(at));
        let dial = self.front.wants_path().then_some(self.dial_at);
        timeout
            .into_iter()
            .chain(dial)
            .chain(guest.and_then(Guest::next_wake))
            .min()
    }

    pub(super) fn is_at_rest(&self, guest: &Guest) -> bool {
        self.front.state() == FrontState::Live
            && guest.is_done()
            && self.front.acknowledged() == self.front.last_sequence()
    }

    fn dma_write(&mut self, oracle: &mut Oracle, write: &DmaWrite) {
        let DmaWrite {
            generation,
            address,
            data,
            ..
        } = write;
        oracle.dma_arrived(self.log, *generation, *address, data);
        let outcome = self.bus.pass(*generation, *address, data.len());
        if outcome.is_ok() {
            oracle.accepted(*generation, self.bus.floor);
        }
        self.front.dma_written(write, outcome);
    }

    fn dma_read(&mut self, now: Micros, read: &DmaRead) {
        let outcome = self.bus.pass(read.generation, read.address, read.length);
        let outcome: Result<Bytes, DmaError> = outcome.map(|()| self.bus.descriptor(read.length));
        self.front
            .answer_dma_read(self.origin.instant(now), read, outcome);
    }
}

impl Agent {
    /// A frame of the session's path.
    pub(super) fn frame(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: Bytes, garbled: bool) {
        // Of a stream that was left nothing is heard.
        let Some(session) = self
            .session
            .as_mut()
            .filter(|session| session.conn == Some(conn))
        else {
            return self.careless(ctx, conn, &bytes, garbled);
        };
        let opening = session.front.state() == FrontState::Opening;
        let listens = matches!(
            session.front.state(),
            FrontState::Live | FrontState::Opening | FrontState::Resuming
        );
        let result = session.front.handle_frame(bytes.clone());
        if garbled && result.is_ok() && listens && !is_bare_close(bytes) {
            ctx.oracle.fail(Clause::GarbledHasNoEffect, || {
                "the agent took a garbled frame".to_owned()
            });
        }
        if let Err(violation) = &result {
            ctx.trace(self.id, || format!("violation: {violation}"));
            // On its first path a session does not know yet that it can be resumed.
            if !opening && !violation.is_of_path() && !ctx.oracle.is_set_back(session.log) {
                ctx.oracle.fail(Clause::HonestEnds, || {
                    format!("the agent accuses the host: {violation}")
                });
            }
        }
    }

    /// Carries out what came, lets the guest go on, sends, dials: until nothing is left to do now.
    pub(super) fn drive(&mut self, ctx: &mut Ctx, now: Micros) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        let instant = ctx.origin.instant(now);
        let mut over = None;
        loop {
            let mut moved = false;
            if session.front.poll_timeout().is_some_and(|at| at <= instant) {
                session.front.handle_timeout(instant);
            }
            while let Some(event) = session.front.poll_event() {
                moved = true;
                over = over.or(self.carry_out(ctx, &mut session, now, event));
            }
            let front = &mut session.front;
            ctx.oracle
                .acknowledged(session.log, front.acknowledged(), front.last_sequence());
            if over.is_none() {
                moved |= match self.holds() {
                    true => self.go_back(ctx, &mut session, now),
                    false => self.guest.run(ctx, &mut session, now),
                };
                self.keep_path(ctx, &mut session, now);
            }
            moved |= self.transmit(ctx, &mut session, now);
            // Given up in this round: what that gives is still to be carried out.
            let gives_up = over.is_none() && !session.front.is_live();
            if !moved && !gives_up {
                break;
            }
        }
        match over {
            None => {
                self.check_waits(ctx, &mut session, now);
                self.session = Some(session);
            }
            Some(reason) => self.contained(ctx, session, &reason),
        }
    }

    /// Gives the reason once the session is contained.
    fn carry_out(
        &mut self,
        ctx: &mut Ctx,
        session: &mut Session,
        now: Micros,
        event: FrontEvent,
    ) -> Option<String> {
        match event {
            FrontEvent::Completed { sequence, outcome } => {
                let data = match outcome {
                    Ok(data) => Some(hash(&data)),
                    Err(Failure::Device) => None,
                    Err(_) => {
                        self.guest.failed(sequence);
                        return None;
                    }
                };
                match self.guest.answered(sequence) {
                    Some((index, since)) => {
                        ctx.oracle.shown(session.log, index, data);
                        if ctx.plan.scene == Some(Scene::Severed) {
                            ctx.oracle.check_wait(since, now, ctx.plan.deadline + MILLI);
                        }
                    }
                    None => ctx.oracle.fail(Clause::TrueResult, || {
                        format!("item {sequence} completes, for which nobody waits")
                    }),
                }
            }
            FrontEvent::DmaWrite(write) => session.dma_write(&mut ctx.oracle, &write),
            FrontEvent::DmaRead(read) => {
                ctx.oracle
                    .dma_read_came(session.log, read.generation, read.address);
                session.dma_read(now, &read);
            }
            FrontEvent::Interrupt { generation, vector } => {
                ctx.oracle.interrupted(session.log, generation, vector);
                if session.bus.may_interrupt(generation) {
                    ctx.oracle.accepted(generation, session.bus.floor);
                    self.guest.interrupted();
                }
            }
            FrontEvent::Intx(level) => {
                ctx.oracle.intx_shown(session.front.is_resetting());
                session.intx = level;
            }
            FrontEvent::Unblocked => {}
            FrontEvent::Opened | FrontEvent::Resumed => {
                ctx.trace(self.id, || format!("{event:?}"));
                if session.was_live {
                    ctx.resumes += 1;
                }
                session.was_live = true;
                session.live_since = ctx.now;
                session.dials = 0;
                session.lost_since = None;
            }
            FrontEvent::Interrupted(reason) => {
                ctx.trace(self.id, || format!("interrupted: {reason}"))
            }
            FrontEvent::Contained(reason) => return Some(reason),
        }
        None
    }

    fn transmit(&mut self, ctx: &mut Ctx, session: &mut Session, now: Micros) -> bool {
        let mut moved = false;
        let instant = ctx.origin.instant(now);
        while let Some(frame) = session.front.poll_transmit(instant) {
            moved = true;
            if let Some(conn) = session.conn {
                if session.front.state() == FrontState::Resuming {
                    session.note_open(&frame);
                }
                ctx.send_frame(self.id, conn, frame);
            }
        }
        if session.front.state() == FrontState::Interrupted
            && let Some(conn) = session.conn.take()
        {
            self.leave(ctx, session, conn);
        }
        moved
    }

    fn contained(&mut self, ctx: &mut Ctx, mut session: Session, reason: &str) {
        ctx.trace(self.id, || format!("contained: {reason}"));
        ctx.containments += 1;
        if reason.contains("PROTOCOL_VIOLATION") && !ctx.oracle.is_set_back(session.log) {
            ctx.oracle.fail(Clause::HonestEnds, || reason.to_owned());
        }
        let told = reason.starts_with("closed by the other side");
        let disturbed = !ctx.plan.gentle && (ctx.disturbed || ctx.net.faults.total() > 0);
        // Whose device another process takes has no say.
        if !reason.contains("newer process") {
            ctx.oracle
                .check_reason(session.log, reason, told, disturbed);
        }
        if let Some(conn) = session.conn {
            self.leave(ctx, &mut session, conn);
        }
        ctx.oracle.ended(session.log, Ending::Contained(ctx.now));
        self.guest.contained();
        self.after_containment(ctx, &session);
        self.former = Some(session).filter(|_| ctx.plan.scene == Some(Scene::Careless));
    }

    fn check_waits(&self, ctx: &mut Ctx, session: &mut Session, now: Micros) {
        let soon = 100 * MILLI + 16 * ctx.plan.latency;
        let front = &session.front;
        if ctx.plan.scene == Some(Scene::Restless)
            && front.state() == FrontState::Live
            && !front.is_resetting()
            && let Some(before) = ctx.now.checked_sub(soon)
            && session.live_since < before
        {
            ctx.oracle.check_signals(session.log, session.intx, before);
        }
        let limit = ctx.plan.deadline + MILLI;
        if let Some(since) = self.guest.waits_since() {
            ctx.oracle.check_wait(since, now, limit);
        }
        let acknowledged = session.front.acknowledged();
        while session
            .ages
            .front()
            .is_some_and(|(last, _)| *last <= acknowledged)
        {
            session.ages.pop_front();
        }
        if let Some((_, since)) = session.ages.front() {
            ctx.oracle.check_wait(*since, now, limit);
        }
    }
}
