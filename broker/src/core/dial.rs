//! Dials: the agent's data legs, of which the newest counts.

use potemkin_proto::v1::CloseCode;

use super::planted::{self, Bug};
use super::sessions::Up;
use super::{Action, Core, DialRefusal, LegId, Route, Time, Timer};
use crate::ids::{PeerName, SessionId};

/// What an agent says of a session when it dials.
#[derive(Debug, Clone, Copy)]
pub struct Dial {
    /// The session.
    pub session: SessionId,
    /// Its epoch.
    pub epoch: u64,
    /// Grows with each dial.
    pub attach_number: u32,
}

/// A dial that is up, at least on the agent's side.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    /// Names of the transports, agent's and host's, once both sides are up.
    pub(super) transports: Option<(&'static str, &'static str)>,
}

impl Core {
    /// An agent dials a session. If that is its own and the dial newer than the last, says where it leads, and closes
    /// the older. The driver ends each accepted dial with [`Core::leg_closed`].
    pub fn open_leg(
        &mut self,
        agent: &PeerName,
        dial: Dial,
        leg: LegId,
    ) -> Result<Route, DialRefusal> {
        let route = self.check_dial(agent, dial)?;
        let Some(session) = self.sessions.get_mut(&dial.session) else {
            return Err(unknown(dial.session));
        };
        session.attach_number = dial.attach_number;
        let leg = Leg {
            id: leg,
            transports: None,
        };
        if let Some(older) = session.leg.replace(leg) {
            self.actions.push_back(Action::CloseLeg {
                leg: older.id,
                code: CloseCode::Superseded,
                message: format!("the session was dialled again as {}", dial.attach_number),
            });
        }
        self.timers.disarm(&Timer::Grace(dial.session));
        self.actions.push_back(Action::SessionChanged(dial.session));
        Ok(route)
    }

    /// The host accepted the dial: both sides are up.
    pub fn leg_up(
        &mut self,
        session: SessionId,
        leg: LegId,
        transports: (&'static str, &'static str),
    ) {
        let newest = self.sessions.get_mut(&session).and_then(|s| s.leg.as_mut());
        if let Some(newest) = newest.filter(|newest| newest.id == leg) {
            newest.transports = Some(transports);
            self.actions.push_back(Action::SessionChanged(session));
            self.accepted(session);
        }
    }

    fn accepted(&mut self, session: SessionId) {
        if let Some(session) = self.sessions.get_mut(&session)
            && session.up == Up::NotYet
        {
            session.up = Up::Accepted;
        }
    }

    /// A dial is over, for whatever reason. The agent has the grace to dial again: ours, or its host's.
    pub fn leg_closed(&mut self, now: Time, session: SessionId, leg: LegId) {
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        if known.leg.as_ref().is_some_and(|newest| newest.id == leg) {
            known.leg = None;
            if !self.host_decides(session) {
                self.arm_grace(now, session);
            }
            self.actions.push_back(Action::SessionChanged(session));
        }
    }

    fn check_dial(&self, agent: &PeerName, dial: Dial) -> Result<Route, DialRefusal> {
        let session = self
            .sessions
            .get(&dial.session)
            .filter(|s| s.starting.is_none())
            .ok_or_else(|| unknown(dial.session))?;
        if session.agent != *agent {
            return Err(refusal(
                CloseCode::PermissionDenied,
                format!("session {} is not yours", dial.session),
            ));
        }
        if dial.epoch != session.epoch {
            return Err(refusal(
                CloseCode::Superseded,
                format!(
                    "epoch: the session has {}, not {}",
                    session.epoch, dial.epoch
                ),
            ));
        }
        let obeys_older = planted::is(Bug::BrokerOlderDial);
        if dial.attach_number <= session.attach_number && !obeys_older {
            return Err(refusal(
                CloseCode::Superseded,
                format!(
                    "attach_number: {} is not newer than {}",
                    dial.attach_number, session.attach_number
                ),
            ));
        }
        let address = self.hosts.get(&session.host).map(|h| h.data_address);
        Ok(Route {
            device: session.device.clone(),
            host: session.host.clone(),
            incarnation: session.incarnation,
            address: address.ok_or_else(|| unknown(dial.session))?,
            traffic: session.traffic.clone(),
        })
    }
}

/// Not the word that a session is over: it may live at its host, which has not told of it here yet.
fn unknown(session: SessionId) -> DialRefusal {
    refusal(
        CloseCode::Unreachable,
        format!(
            "no session {session} is known here: it has ended, or its host has not told of it yet; dial again, here or at another broker"
        ),
    )
}

const fn refusal(code: CloseCode, message: String) -> DialRefusal {
    DialRefusal { code, message }
}
