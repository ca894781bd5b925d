//! The relay: two legs for each dial, and frames that pass between them if their headers are of the dial.

use bytes::Bytes;
use potemkin_broker::{
    core::{Dial, DialRefusal, LegId, Route},
    ids::{PeerName, SessionId},
    relay::header::{Header, read_header, split_header},
};
use potemkin_proto::{
    check::{self, Check},
    v1::{CloseCode, Frame, Grant},
};
use potemkin_session::{
    host::Opening,
    ids::{AttachNumber, Epoch, Path, SessionId as PathSession},
};

use prost::Message as _;

use super::Broker;
use crate::{
    actor::{ActorId, Role},
    clock::{Micros, SECOND},
    ctx::Ctx,
    net::{Carries, ConnId},
};

/// How long a host may take to accept.
const ACCEPT: Micros = 5 * SECOND;
/// `Frame.close`, which follows the header.
const CLOSE_TAG: u8 = 0x2a;

/// A dial, from the agent's stream to the host's.
#[derive(Debug)]
pub(super) struct Leg {
    id: u64,
    dial: Header,
    agent: ConnId,
    host: ConnId,
    /// Until the host has accepted.
    accept_by: Option<Micros>,
}

impl Leg {
    pub(super) fn accept_by(&self) -> Option<Micros> {
        self.accept_by
    }

    fn path(&self) -> Path {
        path(self.dial)
    }
}

fn path(dial: Header) -> Path {
    Path {
        session: PathSession::from_bytes(dial.session.to_be_bytes()),
        epoch: Epoch(dial.epoch),
        attach_number: AttachNumber(dial.attach_number),
    }
}

fn close_frame(dial: Header, code: CloseCode, message: String) -> Bytes {
    Opening::refuse(path(dial), code, message)
}

/// An agent's first frame, read as the real relay reads it; or why it is refused.
fn opening(bytes: &Bytes) -> Result<Frame, CloseCode> {
    read_header(bytes).map_err(|_| CloseCode::PathBroken)?;
    let frame = Frame::decode(bytes.clone()).map_err(|_| CloseCode::PathBroken)?;
    if frame.open.is_none() {
        return Err(CloseCode::PathBroken);
    }
    if frame.check.is_some() && check::verify(bytes) != Check::Good {
        return Err(CloseCode::PathBroken);
    }
    Ok(frame)
}

/// The frame for the host: with the grant, and with a check if the agent's had one.
fn granted(mut frame: Frame, route: &Route, agent: &PeerName) -> Bytes {
    let checked = frame.check.take().is_some();
    if let Some(open) = &mut frame.open {
        open.grant = Some(Grant {
            device_id: route.device.as_str().to_owned(),
            agent: agent.as_ref().to_owned(),
        });
    }
    let mut bytes = frame.encode_to_vec();
    if checked {
        check::append(&mut bytes);
    }
    bytes.into()
}

impl Broker {
    pub(super) fn frame(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: Bytes) {
        match self
            .legs
            .iter()
            .position(|leg| leg.agent == conn || leg.host == conn)
        {
            Some(leg) => self.pass(ctx, leg, conn, bytes),
            None => self.dialled(ctx, conn, bytes),
        }
    }

    /// The first frame of an agent's stream.
    fn dialled(&mut self, ctx: &mut Ctx, conn: ConnId, bytes: Bytes) {
        let opening = match opening(&bytes) {
            Ok(opening) => opening,
            Err(code) => {
                ctx.send_frame(
                    self.id,
                    conn,
                    close_frame(
                        read_header(&bytes).unwrap_or_default(),
                        code,
                        "open".to_owned(),
                    ),
                );
                return ctx.close(self.id, conn);
            }
        };
        let Ok(dial) = read_header(&bytes) else {
            return;
        };
        self.last_leg += 1;
        let id = self.last_leg;
        let (route, agent) = match self.route(ctx, conn, dial, id) {
            Ok(found) => found,
            Err(refusal) => {
                ctx.trace(self.id, || format!("dial refused: {}", refusal.message));
                ctx.send_frame(
                    self.id,
                    conn,
                    close_frame(dial, refusal.code, refusal.message),
                );
                return ctx.close(self.id, conn);
            }
        };
        let host = ctx.connect(self.id, ActorId::new(Role::Host(0)), Carries::Frames);
        ctx.trace(self.id, || format!("dial {:?}", path(dial)));
        ctx.send_frame(self.id, host, granted(opening, &route, &agent));
        let accept_by = Some(ctx.local(self.id) + ACCEPT);
        self.legs.push(Leg {
            id,
            dial,
            agent: conn,
            host,
            accept_by,
        });
    }

    fn route(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        dial: Header,
        leg: u64,
    ) -> Result<(Route, PeerName), DialRefusal> {
        let agent = crate::agent::name_of(ctx.plan.rival, ctx.net.actor(conn, 0));
        let dial = Dial {
            session: SessionId(dial.session),
            epoch: dial.epoch,
            attach_number: dial.attach_number,
        };
        let gone = || DialRefusal {
            code: CloseCode::Unreachable,
            message: "the broker is gone".to_owned(),
        };
        let core = self.core.as_mut().ok_or_else(gone)?;
        let route = core.open_leg(&agent, dial, LegId(leg))?;
        self.check_routed(ctx, dial);
        Ok((route, agent))
    }

    /// Passes a frame on, if it belongs to this path. A close frame is the last one.
    fn pass(&mut self, ctx: &mut Ctx, index: usize, from: ConnId, bytes: Bytes) {
        let leg = &mut self.legs[index];
        let to = if from == leg.agent {
            leg.host
        } else {
            leg.agent
        };
        if from == leg.host && leg.accept_by.take().is_some() {
            let (session, id) = (SessionId(leg.dial.session), LegId(leg.id));
            if let Some(core) = &mut self.core {
                core.leg_up(session, id, ("sim", "sim"));
            }
        }
        let leg = &self.legs[index];
        let Some((_, body)) = split_header(&bytes)
            .ok()
            .filter(|(header, _)| *header == leg.dial)
        else {
            let id = leg.id;
            // The way may be at fault, and not the end that is said to have sent it.
            let codes = (CloseCode::PathBroken, CloseCode::Unreachable);
            let (to_agent, to_host) = if from == leg.agent {
                codes
            } else {
                (codes.1, codes.0)
            };
            let message = "a frame that is none, or of another path".to_owned();
            return self.close_leg(ctx, id, to_agent, to_host, message);
        };
        let closes = body.first() == Some(&CLOSE_TAG);
        ctx.send_frame(self.id, to, bytes);
        if closes {
            let id = leg.id;
            self.drop_leg(ctx, id);
        }
    }

    /// One of a leg's streams is gone: the other end hears of it.
    pub(super) fn leg_lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        if let Some(leg) = self
            .legs
            .iter()
            .find(|leg| leg.agent == conn || leg.host == conn)
        {
            let id = leg.id;
            let message = "the other leg was lost".to_owned();
            self.close_leg(
                ctx,
                id,
                CloseCode::Unreachable,
                CloseCode::Unreachable,
                message,
            );
        }
    }

    /// Tells both ends why, and ends their streams.
    pub(super) fn close_leg(
        &mut self,
        ctx: &mut Ctx,
        id: u64,
        to_agent: CloseCode,
        to_host: CloseCode,
        message: String,
    ) {
        let Some(leg) = self.legs.iter().find(|leg| leg.id == id) else {
            return;
        };
        ctx.trace(self.id, || format!("closes {:?}: {message}", leg.path()));
        let (agent, host, dial) = (leg.agent, leg.host, leg.dial);
        ctx.send_frame(self.id, agent, close_frame(dial, to_agent, message.clone()));
        ctx.send_frame(self.id, host, close_frame(dial, to_host, message));
        self.drop_leg(ctx, id);
    }

    fn drop_leg(&mut self, ctx: &mut Ctx, id: u64) {
        let Some(index) = self.legs.iter().position(|leg| leg.id == id) else {
            return;
        };
        let leg = self.legs.swap_remove(index);
        ctx.close(self.id, leg.agent);
        ctx.close(self.id, leg.host);
        let now = self.time(ctx);
        if let Some(core) = &mut self.core {
            core.leg_closed(now, SessionId(leg.dial.session), LegId(id));
        }
    }

    /// Hosts that do not accept in time are not waited for.
    pub(super) fn check_accepts(&mut self, ctx: &mut Ctx) {
        let now = ctx.local(self.id);
        let late = |leg: &Leg| leg.accept_by.is_some_and(|by| by <= now);
        while let Some(id) = self.legs.iter().find(|leg| late(leg)).map(|leg| leg.id) {
            let message = "the host did not accept the session in time".to_owned();
            self.close_leg(
                ctx,
                id,
                CloseCode::Unreachable,
                CloseCode::Unreachable,
                message,
            );
        }
    }
}
