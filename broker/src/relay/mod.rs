//! The relay: one task per session owns both its legs and forwards frames as they are.
//!
//! Of a frame only the header is read ([`header`]); the first frame of each direction is decoded, since the broker puts its
//! grant into the one and learns from the other that the host took the session.

mod close;
mod dial;
pub mod header;
mod hosts;
mod pump;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use potemkin_transport::{FrameStream, Identity, Role, SessionHandler, TransportKind};
use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::core::{Dial, DialRefusal, LegId, Route};
use crate::ids::{PeerName, SessionId};
use crate::metrics::transport_label;

pub(crate) use hosts::HostPool;

use close::{close, spoken_in};
use dial::Opening;
use pump::{Ended, Leg, Pump};

/// Durations and bounds of the relay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelayLimits {
    /// How long an agent may take for its first frame.
    pub(crate) open: Duration,
    /// How long a host may take to accept a session, once it is reached.
    pub(crate) accept: Duration,
    /// Dials of one agent that have no route yet.
    pub(crate) dials_per_agent: usize,
    /// Bytes that may wait for one leg before the other is not read any more.
    pub(crate) queued_bytes: usize,
}

/// Takes the sessions that agents dial.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) broker: Arc<Broker>,
    pub(crate) hosts: HostPool,
    pub(crate) limits: RelayLimits,
}

impl SessionHandler for Relay {
    async fn session(
        &self,
        peer: Identity,
        kind: TransportKind,
        remote: SocketAddr,
        mut stream: FrameStream,
    ) {
        let agent: PeerName = peer.as_str().into();
        let opened = match self.open(&peer, &agent, &mut stream).await {
            Ok(opened) => opened,
            Err(refused) => {
                self.broker.metrics.rejected_dial(refused.reason.code);
                let message = &refused.reason.message;
                tracing::info!(%agent, %remote, message, "dial refused");
                return close(&mut stream, refused.dial, &refused.reason).await;
            }
        };
        let dial = opened.opening.dial;
        tracing::info!(%agent, %remote, transport = %kind, session = %dial.session, "session dialled");
        let ended = self.carry(&agent, kind, stream, opened).await;
        tracing::info!(%agent, session = %dial.session, why = %ended, "session's path ended");
    }
}

/// A dial that the core has let in.
struct Opened {
    opening: Opening,
    route: Route,
    leg: OpenLeg,
    end: oneshot::Receiver<DialRefusal>,
}

/// A dial that was not let in. The close frame says whose it is, as far as that was read.
#[derive(Debug)]
struct Refused {
    dial: Option<Dial>,
    reason: DialRefusal,
}

impl Relay {
    /// Reads the first frame, and asks the core.
    async fn open(
        &self,
        peer: &Identity,
        agent: &PeerName,
        stream: &mut FrameStream,
    ) -> Result<Opened, Refused> {
        if peer.role() != Role::Agent {
            let message = format!("sessions are for the role agent, and {peer} has another");
            return Err(Refused::denied(message));
        }
        let limit = self.limits.dials_per_agent;
        let _dialling = self
            .broker
            .start_dial(agent, limit)
            .ok_or_else(|| Refused::exhausted(agent, limit))?;
        let opening = dial::first_frame(stream, self.limits.open).await?;
        let dial = opening.dial;
        let (route, leg, end) = self
            .broker
            .open_leg(|core, leg| core.open_leg(agent, dial, leg))
            .map_err(|reason| Refused {
                dial: Some(dial),
                reason: spoken_in(opening.version, reason),
            })?;
        let leg = OpenLeg {
            broker: self.broker.clone(),
            session: dial.session,
            id: leg,
        };
        Ok(Opened {
            opening,
            route,
            leg,
            end,
        })
    }

    /// Dials the host and forwards until the end, of which both ends are told.
    async fn carry(
        &self,
        agent: &PeerName,
        kind: TransportKind,
        mut stream: FrameStream,
        mut opened: Opened,
    ) -> Ended {
        let dial = opened.opening.dial;
        let mut host = match self.reach(&mut opened).await {
            Ok(host) => host,
            Err(ended) => {
                drop(opened.leg);
                close(&mut stream, Some(dial), &ended.for_agent()).await;
                return ended;
            }
        };
        let (route, leg) = (opened.route, opened.leg);
        let meters = self.broker.metrics.meters(kind, self.hosts.kind());
        let mut pump = Pump {
            agent: Leg::new(&mut stream),
            host: Leg::new(&mut host),
            dial,
            agent_version: opened.opening.version,
            session_version: 0,
            traffic: &route.traffic,
            meters: &meters,
            queued_bytes_max: self.limits.queued_bytes,
        };
        let first = opened.opening.granted(&route, agent);
        let up = || leg.up(kind, self.hosts.kind());
        let accept = self.limits.accept;
        let ended = pump.run(first, accept, up, &mut opened.end).await;
        if ended.host_is_silent {
            self.hosts.forget(&route);
        }
        // The agent may dial again while the old streams end.
        drop(leg);
        pump.finish(&ended).await;
        ended
    }

    /// Opens a stream to the host, unless the core ends the dial before.
    async fn reach(&self, opened: &mut Opened) -> Result<FrameStream, Ended> {
        let host = &opened.route.host;
        tokio::select! {
            reached = self.hosts.open(&opened.route) => reached.map_err(|error| {
                Ended::unreachable(format!("the host {host} could not be reached: {error}"))
            }),
            reason = &mut opened.end => Err(Ended::told(reason, opened.opening.version)),
        }
    }
}

/// The core's entry for a dial; dropping it takes it out.
struct OpenLeg {
    broker: Arc<Broker>,
    session: SessionId,
    id: LegId,
}

impl OpenLeg {
    /// The host has accepted.
    fn up(&self, agent: TransportKind, host: TransportKind) {
        let transports = (transport_label(agent), transport_label(host));
        self.broker
            .with(|core, _| core.leg_up(self.session, self.id, transports));
    }
}

impl Drop for OpenLeg {
    fn drop(&mut self) {
        self.broker.leg_closed(self.session, self.id);
    }
}

impl Refused {
    fn denied(message: String) -> Self {
        let code = potemkin_proto::v1::CloseCode::PermissionDenied;
        Self {
            dial: None,
            reason: DialRefusal { code, message },
        }
    }

    fn exhausted(agent: &PeerName, limit: usize) -> Self {
        let code = potemkin_proto::v1::CloseCode::ResourceExhausted;
        let message = format!("{agent} has {limit} dials waiting already");
        Self {
            dial: None,
            reason: DialRefusal { code, message },
        }
    }
}
