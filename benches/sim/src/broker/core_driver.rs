//! Drives the real core of the granting broker: what it asks for is done.

use std::{sync::OnceLock, time::Duration};

use potemkin_broker::{
    core::{Action, Core, Limits, Reply, Times},
    ids::DeviceId,
    policy::{ClaimRule, OfferRule, Policy},
    store::DeviceRow,
};
use potemkin_proto::v1::CloseCode;
use potemkin_session::ids::{AttachNumber, Epoch, Path, SessionId};

use super::{Broker, store::Store};
use crate::{
    clock::MILLI,
    ctx::{Ctx, Event},
    message::Control,
    net::ConnId,
};

/// The simulated devices' ids, as the core knows them.
pub(super) fn device_id(device: usize) -> DeviceId {
    static IDS: OnceLock<Vec<DeviceId>> = OnceLock::new();
    let all = IDS.get_or_init(|| {
        let names = ["sim-0", "sim-1"];
        names
            .iter()
            .filter_map(|name| DeviceId::parse(name).ok())
            .collect()
    });
    all[device].clone()
}

/// The device of this id.
pub(crate) fn device_named(id: &str) -> Option<usize> {
    let number = id.strip_prefix("sim-")?;
    number.parse().ok()
}

pub(super) fn device_of(id: &DeviceId) -> usize {
    device_named(id.as_str()).unwrap_or_default()
}

/// A core as at the broker's start.
pub(super) fn start(store: &Store, grants: bool) -> Core {
    let seconds = Duration::from_secs;
    let times = Times {
        lease: Duration::from_micros(super::LEASE),
        drift: seconds(1),
        forget: seconds(60),
        grace: seconds(5),
        fence: seconds(2),
    };
    let limits = Limits {
        hosts: 4,
        devices: 8,
        sessions: 16,
        sessions_per_agent: 8,
        claims_per_agent: 8,
        requests_per_peer: 16,
    };
    let all = || vec!["*".to_owned()];
    let policy = Policy {
        offer: vec![OfferRule {
            host: "spiffe://sim/host/*".into(),
            devices: all(),
        }],
        claim: vec![ClaimRule {
            agent: "spiffe://sim/agent/*".into(),
            devices: all(),
            classes: all(),
        }],
    };
    if grants {
        Core::new(policy, times, limits, store.load())
    } else {
        Core::relaying(policy, times, limits)
    }
}

impl Broker {
    /// Does what the core asks for, until it asks for nothing more.
    pub(super) fn settle(&mut self, ctx: &mut Ctx) {
        while let Some(action) = self.core.as_mut().and_then(Core::poll_action) {
            self.act(ctx, action);
        }
        let Some(rows) = self.core.as_mut().and_then(Core::next_commit) else {
            return;
        };
        let latency = ctx.plan.store_latency;
        let at = ctx.now + self.rng.below(latency) + std::mem::take(&mut self.store.late);
        let good = self.store.failures == 0;
        self.store.failures = self.store.failures.saturating_sub(1);
        let (broker, run) = (self.id, self.run);
        ctx.queue.push(
            at,
            Event::Stored {
                broker,
                run,
                rows,
                good,
            },
        );
    }

    /// The store has done a commit, or has failed; `asked` by this run of the process.
    pub(crate) fn stored(&mut self, ctx: &mut Ctx, rows: &[DeviceRow], good: bool, asked: bool) {
        let done = good && self.store.commit(rows);
        let now = self.time(ctx);
        if let Some(core) = self.core.as_mut().filter(|_| asked) {
            core.committed(now, rows, done);
            self.step(ctx);
        }
    }

    /// The store answers late, once.
    pub(crate) fn store_late(&mut self, late: u64) {
        self.store.late = late * MILLI;
    }

    /// The store fails some times.
    pub(crate) fn store_fails(&mut self, times: u64) {
        self.store.failures = times;
    }

    /// Nothing is wrong with the store from here on.
    pub(crate) fn store_heals(&mut self) {
        self.store.late = 0;
        self.store.failures = 0;
    }

    fn act(&mut self, ctx: &mut Ctx, action: Action) {
        match action {
            Action::Accept { conn, rejected, .. } => {
                self.accepted(ctx, conn.0, rejected.is_empty())
            }
            Action::Fence {
                conn,
                device,
                epoch,
                session,
            } => {
                let durable = self.store.epoch(&device);
                let device = device_of(&device);
                let named = session.map(|id| id.0);
                ctx.oracle.fence_sent(device, epoch, named, durable);
                self.to_host(
                    ctx,
                    conn.0,
                    Control::Fence {
                        device,
                        epoch,
                        session,
                    },
                );
            }
            Action::CloseHost { conn, .. } => {
                if let Some(conn) = self.stream(conn.0) {
                    ctx.close(self.id, conn);
                    self.streams.retain(|stream| stream.conn != conn);
                }
            }
            Action::CloseLeg { leg, code, message } => {
                self.close_leg(ctx, leg.0, code, to_host(code), message)
            }
            Action::Reply { request, outcome } => {
                if let Ok(Reply::Attached { device, epoch, .. }) = &outcome {
                    ctx.oracle
                        .granted(device_of(device), *epoch, ctx.is_long_calm());
                }
                let waiting = self.requests.remove(&request.0);
                self.check_claim(ctx, waiting, &outcome);
                let Some(conn) = waiting else {
                    return;
                };
                let message = match outcome {
                    Ok(reply) => answer(reply),
                    Err(refusal) => Control::Refused {
                        why: refusal.to_string(),
                    },
                };
                ctx.trace(self.id, || format!("replies {message:?}"));
                ctx.send_control(self.id, conn, message);
            }
            Action::SessionGone { session, .. } => {
                self.routed.remove(&session);
            }
            _ => {}
        }
    }

    /// Of the core's name for a registration stream.
    fn stream(&self, conn: u64) -> Option<ConnId> {
        let stream = self
            .streams
            .iter()
            .find(|stream| u64::from(stream.conn.0) == conn)?;
        Some(stream.conn)
    }

    pub(super) fn to_host(&self, ctx: &mut Ctx, conn: u64, message: Control) {
        if let Some(conn) = self.stream(conn) {
            ctx.send_control(self.id, conn, message);
        }
    }
}

fn answer(reply: Reply) -> Control {
    match reply {
        Reply::Attached {
            device,
            session,
            epoch,
            incarnation,
            ..
        } => Control::Attached {
            path: Path {
                session: SessionId::from_bytes(session.0.to_be_bytes()),
                epoch: Epoch(epoch),
                attach_number: AttachNumber(1),
            },
            host: incarnation,
            device: device_of(&device),
        },
        Reply::Claimed { .. } | Reply::Ended => Control::Done,
    }
}

/// What a leg's host is told: that a path is lost, unless the session is over.
fn to_host(code: CloseCode) -> CloseCode {
    match code {
        CloseCode::Superseded | CloseCode::GoingAway => CloseCode::Unreachable,
        _ => code,
    }
}
