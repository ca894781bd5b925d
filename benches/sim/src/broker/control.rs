//! The control plane's messages, from hosts and agents.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use potemkin_broker::{
    core::{
        Attacher, ConnId as CoreConn, Core, FreshIds, Hello, LiveSession, Offer, RequestId,
        Requester, Target,
    },
    ids::{ClaimId, Incarnation, PeerName, SessionId},
};
use potemkin_proto::v1::DeviceDescriptor;
use potemkin_session::VERSION;

use super::{Broker, Stream, core_driver::device_id};
use crate::{
    ctx::Ctx,
    message::{Control, Session},
    net::ConnId,
};

/// The host's identity.
fn host_name() -> PeerName {
    static NAME: OnceLock<PeerName> = OnceLock::new();
    NAME.get_or_init(|| "spiffe://sim/host/one".into()).clone()
}

impl Broker {
    pub(super) fn control(&mut self, ctx: &mut Ctx, conn: ConnId, message: Control) {
        ctx.trace(self.id, || format!("hears {message:?}"));
        let now = self.time(ctx);
        let core_conn = CoreConn(conn.0.into());
        match message {
            Control::Hello {
                incarnation,
                epochs,
                sessions,
            } => {
                self.hello(ctx, conn, incarnation, &epochs, sessions);
            }
            Control::Heartbeat => {
                self.heard = self.heard.map(|_| now);
                if let Some(core) = &mut self.core {
                    core.heartbeat(now, core_conn);
                }
            }
            Control::FenceDone {
                device,
                epoch,
                error,
            } => {
                if let Some(core) = &mut self.core {
                    core.fence_done(now, core_conn, &device_id(device), epoch, &error);
                }
            }
            Control::SessionStarted(session) => {
                let live = self.live(session);
                if let Some(core) = &mut self.core {
                    core.session_started(now, core_conn, &live);
                }
            }
            Control::SessionEnded { session, code } => {
                if let Some(core) = &mut self.core {
                    core.ended_by_host(now, &host_name(), session, code, "the host's words");
                }
            }
            Control::Claim { agent, device } => {
                let fresh = ClaimId(self.fresh());
                let target = Target::Device(device_id(device));
                if let Some((request, core)) = self.request(conn) {
                    core.claim(now, request, &agent, &target, fresh);
                }
            }
            Control::Attach {
                agent,
                incarnation,
                device,
            } => self.attach(ctx, conn, &agent, incarnation, device),
            Control::Detach { agent, session } => {
                if let Some((request, core)) = self.request(conn) {
                    core.detach(now, request, Requester::Agent(&agent), session);
                }
            }
            _ => {}
        }
    }

    fn hello(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        incarnation: Incarnation,
        epochs: &[u64],
        sessions: Vec<Session>,
    ) {
        let now = self.time(ctx);
        self.streams.push(Stream { conn });
        let hello = Hello {
            version: VERSION,
            incarnation,
            data_address: SocketAddr::from(([127, 0, 0, 1], 1)),
            offers: epochs
                .iter()
                .enumerate()
                .map(|(device, epoch)| offer(device, *epoch))
                .collect(),
            rejected: Vec::new(),
            sessions: sessions
                .into_iter()
                .map(|session| self.live(session))
                .collect(),
        };
        let Some(core) = &mut self.core else { return };
        if core
            .register(now, CoreConn(conn.0.into()), &host_name(), hello)
            .is_err()
        {
            ctx.close(self.id, conn);
        }
    }

    fn live(&mut self, session: Session) -> LiveSession {
        LiveSession {
            session: session.id,
            device: device_id(session.device),
            epoch: session.epoch,
            agent: session.agent,
            claim: ClaimId(self.fresh()),
        }
    }

    fn attach(
        &mut self,
        ctx: &Ctx,
        conn: ConnId,
        agent: &PeerName,
        incarnation: Incarnation,
        device: usize,
    ) {
        let now = self.time(ctx);
        let fresh = FreshIds {
            claim: ClaimId(self.fresh()),
            session: SessionId(self.fresh()),
        };
        let Some((request, core)) = self.request(conn) else {
            return;
        };
        let attacher = Attacher {
            agent,
            incarnation: Some(incarnation),
        };
        core.attach(
            now,
            request,
            attacher,
            &Target::Device(device_id(device)),
            fresh,
        );
    }

    fn fresh(&mut self) -> u128 {
        (u128::from(self.rng.next()) << 64) | u128::from(self.rng.next())
    }

    /// A request gets the number of its stream: there is one on each.
    fn request(&mut self, conn: ConnId) -> Option<(RequestId, &mut Core)> {
        let core = self.core.as_mut()?;
        self.requests.insert(conn.0.into(), conn);
        Some((RequestId(conn.0.into()), core))
    }

    /// A registration's stream, or a request's, is gone.
    pub(super) fn stream_lost(&mut self, ctx: &mut Ctx, conn: ConnId) {
        let now = self.time(ctx);
        self.requests.retain(|_, waiting| *waiting != conn);
        let before = self.streams.len();
        self.streams.retain(|stream| stream.conn != conn);
        if before == self.streams.len() {
            return;
        }
        if let Some(core) = &mut self.core {
            core.host_gone(now, CoreConn(conn.0.into()));
        }
        self.second_host(ctx);
    }
}

pub(super) fn offer(device: usize, highest_epoch: u64) -> Offer {
    static DESCRIPTOR: OnceLock<Arc<DeviceDescriptor>> = OnceLock::new();
    static CLASS: OnceLock<Arc<str>> = OnceLock::new();
    Offer {
        device: device_id(device),
        class: CLASS.get_or_init(|| "sim".into()).clone(),
        labels: BTreeMap::new(),
        descriptor: DESCRIPTOR.get_or_init(Arc::default).clone(),
        vendor_id: 0x1234,
        device_code: 0x11e8,
        highest_epoch,
    }
}
