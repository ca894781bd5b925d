//! Sessions: opened, resumed, suspended, ended.

use bytes::Bytes;
use potemkin_broker::ids::{PeerName, SessionId as BrokerSessionId};
use potemkin_proto::v1::CloseCode;
use potemkin_session::{
    gate::AdmitError,
    host::{Host, Opening},
    ids::Incarnation,
};

use super::{
    HostActor,
    served::{Live, Served},
};
use crate::{
    actor::ActorId,
    broker::device_named,
    clock::{MILLI, Micros},
    ctx::Ctx,
    message::{Control, Session},
    net::ConnId,
    oracle::{Clause, Over, is_bare_close},
    plan::Scene,
};

/// The session has done with a stream; a careless driver still hears it.
fn leave(ctx: &mut Ctx, host: ActorId, live: &mut Live, conn: ConnId) {
    if ctx.plan.scene == Some(Scene::Careless) {
        live.older.push(conn);
    } else {
        ctx.close(host, conn);
    }
}

impl HostActor {
    /// A frame of a session's path, or of one that begins with it.
    pub(super) fn frame(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: Bytes, garbled: bool) {
        let uses = |live: &Option<Live>| live.as_ref().is_some_and(|live| live.conn == Some(conn));
        match self.served.iter().position(|served| uses(&served.live)) {
            Some(device) => self.take(ctx, device, bytes, garbled),
            None if self.hear_older(ctx, conn, &bytes, garbled) => {}
            None => self.open(ctx, conn, bytes, garbled),
        }
    }

    /// A frame of an older path, to the session that has a newer one. True: it was one. What the way has garbled no end can tell the
    /// path of.
    fn hear_older(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: &Bytes, garbled: bool) -> bool {
        let mut all = self
            .served
            .iter_mut()
            .filter_map(|served| served.live.as_mut());
        let Some(live) = all.find(|live| live.older.contains(&conn)) else {
            return false;
        };
        let state = |live: &Live| (live.core.is_connected(), live.core.is_closed());
        let before = state(live);
        let ignored = garbled || live.core.handle_frame(bytes.clone()).is_ok();
        if !ignored || state(live) != before {
            ctx.oracle.fail(Clause::OlderPathIgnored, || {
                "the host obeyed a frame of an older path".to_owned()
            });
        }
        true
    }

    fn take(&mut self, ctx: &mut Ctx, device: usize, bytes: Bytes, garbled: bool) {
        let (beat, now) = (self.beat(ctx), ctx.now);
        let deadline = ctx.plan.deadline;
        let served = &mut self.served[device];
        let Some(live) = &mut served.live else { return };
        let idle = std::mem::replace(&mut served.drained, false);
        live.core.set_beat(beat);
        let result = live.core.handle_frame(bytes.clone());
        let log = live.log;
        if garbled && result.is_ok() && live.core.is_connected() && !is_bare_close(bytes) {
            ctx.oracle.fail(Clause::GarbledHasNoEffect, || {
                "the host took a garbled frame".to_owned()
            });
        }
        if let Err(violation) = &result {
            ctx.trace(self.id, || format!("violation: {violation}"));
        }
        let applied = ctx.oracle.applied;
        self.after(ctx, device);
        if idle && ctx.oracle.applied > applied {
            // Three quarters of the deadline, the beat's grain, and what two clocks differ by.
            let limit = deadline / 4 * 3 + 2 * MILLI + deadline / 500;
            ctx.oracle.check_late(log, now, limit);
        }
    }

    /// Looks whether the session, or its path, is over.
    fn after(&mut self, ctx: &mut Ctx, device: usize) {
        self.work(ctx, device);
        let Some(live) = &mut self.served[device].live else {
            return;
        };
        if live.core.is_closed() {
            let accuses = live.core.closed_with() == Some(CloseCode::ProtocolViolation);
            if accuses && !ctx.oracle.is_set_back(live.log) {
                ctx.oracle.fail(Clause::HonestEnds, || {
                    "the host accuses the agent".to_owned()
                });
            }
            return self.end(ctx, device, Over::Closed);
        }
        if !live.core.is_connected() {
            if let Some(conn) = live.conn.take() {
                leave(ctx, self.id, live, conn);
            }
            let until = ctx.local(self.id) + ctx.plan.grace;
            live.grace_until.get_or_insert(until);
        }
    }

    /// The first frame of a stream.
    fn open(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: Bytes, _garbled: bool) {
        let opening = match Opening::decode(bytes) {
            Ok(opening) => opening,
            Err(violation) => {
                ctx.trace(self.id, || format!("no opening: {violation}"));
                return ctx.close(self.id, conn);
            }
        };
        let grant = opening.open.grant.as_ref();
        let device = grant.and_then(|grant| device_named(&grant.device_id));
        let Some(device) = device.filter(|device| *device < self.served.len()) else {
            return self.refuse(
                ctx,
                conn,
                &opening,
                CloseCode::PathBroken,
                "no grant of a device",
            );
        };
        if let Err(error) = self.served[device].gate.admit(opening.path) {
            let message = error.to_string();
            if matches!(
                error,
                AdmitError::OtherSession | AdmitError::UnknownEpoch { .. }
            ) {
                let path = opening.path;
                ctx.oracle.shut_out(device, path.epoch.0, path.session);
            }
            return self.refuse(ctx, conn, &opening, CloseCode::Superseded, &message);
        }
        if let Some(log) = ctx.oracle.find(opening.path.session) {
            ctx.oracle.dialled(log, opening.path.attach_number.0);
        }
        if self.served[device].live.is_some() {
            self.resume(ctx, device, conn, &opening);
        } else {
            self.accept(ctx, device, conn, &opening);
        }
        self.after(ctx, device);
    }

    fn refuse(
        &self,
        ctx: &mut Ctx,
        conn: ConnId,
        opening: &Opening,
        code: CloseCode,
        message: &str,
    ) {
        ctx.trace(self.id, || format!("refused: {message}"));
        let frame = Opening::refuse(opening.path, code, format!("host: {message}"));
        ctx.send_frame(self.id, conn, frame);
        ctx.close(self.id, conn);
    }

    fn accept(&mut self, ctx: &mut Ctx, device: usize, conn: ConnId, opening: &Opening) {
        let incarnation = Incarnation::from_bytes(self.incarnation.0.to_be_bytes());
        if opening.open.host_incarnation != incarnation.to_bytes() {
            return self.refuse(
                ctx,
                conn,
                opening,
                CloseCode::UnknownSession,
                "another run of this host",
            );
        }
        let Some(log) = ctx.oracle.find(opening.path.session) else {
            return;
        };
        ctx.oracle.begins_at_host(log);
        let agent: PeerName = opening
            .open
            .grant
            .as_ref()
            .map(|grant| grant.agent.as_str())
            .unwrap_or_default()
            .into();
        let core = match Host::accept(opening, incarnation, self.beat(ctx)) {
            Ok(core) => core,
            Err(violation) => {
                ctx.oracle.fail(Clause::HonestEnds, || {
                    format!("the host refuses a new session: {violation}")
                });
                return ctx.close(self.id, conn);
            }
        };
        ctx.trace(self.id, || format!("session starts: {:?}", opening.path));
        self.served[device].live = Some(Live {
            core,
            log,
            agent: agent.clone(),
            conn: Some(conn),
            older: Vec::new(),
            grace_until: None,
        });
        let started = Session {
            id: BrokerSessionId(u128::from_be_bytes(opening.path.session.to_bytes())),
            device,
            epoch: opening.path.epoch.0,
            agent,
        };
        self.tell(ctx, &Control::SessionStarted(started));
    }

    /// The older path is closed before the newer is answered.
    fn resume(&mut self, ctx: &mut Ctx, device: usize, conn: ConnId, opening: &Opening) {
        let beat = self.beat(ctx);
        let Some(live) = &mut self.served[device].live else {
            return;
        };
        if let Some(older) = live.conn.take() {
            live.core.suspend();
            let message = format!(
                "host: attach number {} took over",
                opening.path.attach_number.0
            );
            let frame = Opening::refuse(live.core.path(), CloseCode::Superseded, message);
            ctx.send_frame(self.id, older, frame);
            leave(ctx, self.id, live, older);
        }
        live.conn = Some(conn);
        live.grace_until = None;
        if let Err(violation) = live.core.resume(opening, beat) {
            ctx.trace(self.id, || format!("cannot resume: {violation}"));
        } else {
            ctx.trace(self.id, || format!("resumed: {:?}", opening.path));
        }
    }

    /// A stream is gone.
    pub(super) fn lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        self.registration_lost(ctx, conn);
        for device in 0..self.served.len() {
            let Some(live) = self.served[device]
                .live
                .as_mut()
                .filter(|live| live.conn == Some(conn))
            else {
                continue;
            };
            live.core.suspend();
            live.conn = None;
            live.grace_until = Some(ctx.local(self.id) + ctx.plan.grace);
            if !live.core.is_resumable() {
                self.end(ctx, device, Over::Lost);
            }
        }
    }

    pub(super) fn check_grace(&mut self, ctx: &mut Ctx, device: usize, now: Micros) {
        let live = self.served[device].live.as_ref();
        if live
            .and_then(|live| live.grace_until)
            .is_some_and(|until| until <= now)
        {
            ctx.trace(self.id, || "the grace is over".to_owned());
            self.end(ctx, device, Over::Lost);
        }
    }

    /// The session is over: the device is reset, and brokers are told.
    fn end(&mut self, ctx: &mut Ctx, device: usize, why: Over) {
        let Some(session) = self.served[device].session() else {
            return;
        };
        let closed = self.served[device]
            .live
            .as_ref()
            .and_then(|live| live.core.closed_with());
        let code = closed.unwrap_or(CloseCode::Unreachable);
        self.served[device].gate.ended(session);
        self.evict(
            ctx,
            device,
            why,
            code,
            "host: the session is over".to_owned(),
        );
        self.reset(ctx, device);
        let session = BrokerSessionId(u128::from_be_bytes(session.to_bytes()));
        self.tell(ctx, &Control::SessionEnded { session, code });
    }

    /// Whoever uses the device leaves it.
    pub(super) fn evict(
        &mut self,
        ctx: &mut Ctx,
        device: usize,
        why: Over,
        code: CloseCode,
        message: String,
    ) {
        let Some(mut live) = self.served[device].live.take() else {
            return;
        };
        ctx.trace(self.id, || format!("session ends: {message}"));
        ctx.oracle.over_at_host(live.log, why);
        live.core.close(code, message);
        Served::work_after_end(&mut live, &mut ctx.oracle);
        for older in std::mem::take(&mut live.older) {
            ctx.close(self.id, older);
        }
        if let Some(conn) = live.conn {
            while let Some(frame) = live.core.poll_transmit() {
                ctx.send_frame(self.id, conn, frame);
            }
            ctx.close(self.id, conn);
        }
    }

    pub(super) fn reset(&mut self, ctx: &mut Ctx, device: usize) {
        self.served[device].device.reset();
        self.served[device].drained = true;
        self.served[device].busy_until = 0;
        ctx.oracle.device_reset(device);
    }
}
