//! Sessions: started by an attach (or adopted, see `adopting`), ended by a detach, by their claim, their host, or the agent's absence.

use std::sync::Arc;

use potemkin_proto::v1::CloseCode;

use super::device::{Claim, Fence};
use super::dial::Leg;
use super::planted::{self, Bug};
use super::requests::{Kind, Pending};
use super::{
    Action, Attacher, Core, Refusal, Reply, RequestId, Requester, Target, Time, Timer, Traffic,
};
use crate::ids::{ClaimId, DeviceId, Incarnation, PeerName, SessionId};

/// Random ids for what an attach may create.
#[derive(Debug, Clone, Copy)]
pub struct FreshIds {
    /// For the implicit claim, if one is taken.
    pub claim: ClaimId,
    /// For the session.
    pub session: SessionId,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) device: DeviceId,
    pub(super) agent: PeerName,
    /// The run of the agent's process, as its attach said.
    pub(super) agent_incarnation: Option<Incarnation>,
    pub(super) host: PeerName,
    pub(super) incarnation: Incarnation,
    pub(super) epoch: u64,
    /// Newest seen; 0 before the first dial.
    pub(super) attach_number: u32,
    /// The attach request, while the host has not confirmed.
    pub(super) starting: Option<RequestId>,
    pub(super) up: Up,
    /// The agent's newest dial, while it is up.
    pub(super) leg: Option<Leg>,
    pub(super) traffic: Arc<Traffic>,
}

/// What is known of the session at its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Up {
    /// Nobody has dialled it yet, as far as is known.
    NotYet,
    /// The host accepted a stream that went through here, and has not told of the session.
    Accepted,
    /// The host told that it lives.
    Told,
}

/// What an attach will do.
struct Plan {
    device: DeviceId,
    /// The device's claim is the agent's and explicit: it is used.
    keep_claim: bool,
    /// ... and no fence with its epoch was ever sent: it is used as it is.
    fresh: bool,
}

/// What the process is told that had a device which a newer one attaches.
const TAKEN_OVER: &str = "superseded by a newer process of the same agent";

impl Attacher<'_> {
    /// The session is one of an older process of the same agent: the newest process wins.
    pub(super) fn replaces(&self, session: &Session) -> bool {
        let other = |(ours, theirs): (Incarnation, Incarnation)| ours != theirs;
        session.agent == *self.agent
            && self
                .incarnation
                .zip(session.agent_incarnation)
                .is_some_and(other)
    }
}

impl Core {
    /// Starts a session of an agent on a device: on one that it has claimed, on a free one, which it claims by this, or on
    /// one that an older process of its own has, whose session ends.
    pub fn attach(
        &mut self,
        now: Time,
        request: RequestId,
        attacher: Attacher<'_>,
        target: &Target,
        fresh: FreshIds,
    ) {
        if let Err(refusal) = self.try_attach(now, request, attacher, target, fresh) {
            self.reply(request, Err(refusal));
        }
    }

    /// Ends a session, and its claim if that was implicit.
    pub fn detach(
        &mut self,
        now: Time,
        request: RequestId,
        requester: Requester<'_>,
        session: SessionId,
    ) {
        if let Err(refusal) = self.try_detach(now, request, requester, session) {
            self.reply(request, Err(refusal));
        }
    }

    /// The host says that a session ended on its side.
    pub fn ended_by_host(
        &mut self,
        now: Time,
        host: &PeerName,
        session: SessionId,
        code: CloseCode,
        why: &str,
    ) {
        if self.sessions.get(&session).is_some_and(|s| s.host == *host) {
            let shown: String = why.chars().take(256).collect();
            let why = format!("the host ended the session: {shown}");
            self.end_session(now, session, code, &why);
        }
    }

    fn try_attach(
        &mut self,
        now: Time,
        request: RequestId,
        attacher: Attacher<'_>,
        target: &Target,
        fresh: FreshIds,
    ) -> Result<(), Refusal> {
        let agent = attacher.agent;
        self.check_grants()?;
        self.check_requests(agent)?;
        let plan = self.plan(attacher, target)?;
        let old = self.devices.get(&plan.device).and_then(|d| d.session);
        if let Some(old) = old {
            self.supersede(old, attacher);
        }
        self.check_sessions(agent)?;
        if !plan.keep_claim {
            self.set_claim(
                &plan.device,
                Claim {
                    id: fresh.claim,
                    owner: agent.clone(),
                    implicit: true,
                    request: None,
                    fresh: false,
                },
            );
        }
        self.begin(now, request, attacher, &plan, fresh.session);
        Ok(())
    }

    /// Decides what an attach does, without doing any of it.
    fn plan(&self, attacher: Attacher<'_>, target: &Target) -> Result<Plan, Refusal> {
        let agent = attacher.agent;
        let held = match target {
            Target::Claim(claim) => Some(self.claimed(agent, *claim)?),
            Target::Device(id) => Some(id.clone()),
            Target::Fitting { .. } => None,
        };
        let own = held.filter(|id| {
            let claim = self.devices.get(id).and_then(|d| d.claim.as_ref());
            claim.is_some_and(|claim| claim.owner == *agent)
        });
        if let Some(device) = own {
            return self.plan_on_own(attacher, device);
        }
        let device = match self.find_free(agent, target) {
            Ok(free) => free,
            Err(refusal) => self.find_left_over(attacher, target).ok_or(refusal)?,
        };
        Ok(Plan {
            device,
            keep_claim: false,
            fresh: false,
        })
    }

    fn plan_on_own(&self, attacher: Attacher<'_>, id: DeviceId) -> Result<Plan, Refusal> {
        let device = self.allowed(attacher.agent, &id)?;
        self.connected(&id, device)?;
        let Some(claim) = &device.claim else {
            return Err(Refusal::Unavailable(format!("{id} was released just now")));
        };
        // Of a process that was replaced nothing stands in the way, whatever it was doing.
        let session = device.session.and_then(|s| self.sessions.get(&s));
        let session = session.filter(|s| !attacher.replaces(s));
        if claim.request.is_some() || session.is_some_and(|s| s.starting.is_some()) {
            return Err(Refusal::Unavailable(format!(
                "an earlier request of yours for {id} is under way: try again"
            )));
        }
        // A process takes back what it has lost, and not what it has.
        if claim.implicit && session.is_some_and(|s| s.leg.is_some()) {
            return Err(Refusal::Precondition(format!(
                "you are attached to {id} already: detach it, or close what has it, first"
            )));
        }
        Ok(Plan {
            keep_claim: !claim.implicit,
            fresh: claim.fresh && device.fence == Fence::Confirmed,
            device: id,
        })
    }

    /// Ends the session in whose place a new one comes; the device's epoch has to be raised after this.
    fn supersede(&mut self, old: SessionId, attacher: Attacher<'_>) {
        let Some(session) = self.sessions.get(&old) else {
            return;
        };
        let mut why = "the agent attached again";
        if attacher.replaces(session)
            && let (Some(older), Some(newer)) = (session.agent_incarnation, attacher.incarnation)
        {
            why = TAKEN_OVER;
            self.actions.push_back(Action::TakenOver {
                device: session.device.clone(),
                agent: session.agent.clone(),
                session: old,
                older,
                newer,
            });
        }
        self.remove_session(old, CloseCode::Superseded, why);
    }

    fn check_sessions(&self, agent: &PeerName) -> Result<(), Refusal> {
        if self.sessions.len() >= self.limits.sessions {
            return Err(Refusal::Exhausted(format!(
                "the broker has {} sessions, which is its limit",
                self.sessions.len()
            )));
        }
        let own = self.sessions.values().filter(|s| s.agent == *agent).count();
        if own >= self.limits.sessions_per_agent {
            return Err(Refusal::Exhausted(format!(
                "{agent} has {own} sessions, which is the limit: detach one"
            )));
        }
        Ok(())
    }

    fn begin(
        &mut self,
        now: Time,
        request: RequestId,
        attacher: Attacher<'_>,
        plan: &Plan,
        session: SessionId,
    ) {
        if !plan.fresh {
            self.raise(&plan.device);
        }
        let Some(device) = self.devices.get_mut(&plan.device) else {
            return;
        };
        let Some(host) = device.offered.as_ref().map(|o| o.host.clone()) else {
            return;
        };
        let Some(incarnation) = self.hosts.get(&host).map(|h| h.incarnation) else {
            return;
        };
        device.session = Some(session);
        if let Some(claim) = &mut device.claim {
            claim.fresh &= planted::is(Bug::BrokerEpochUsedTwice);
        }
        let begun = Session {
            device: plan.device.clone(),
            agent: attacher.agent.clone(),
            agent_incarnation: attacher.incarnation,
            host,
            incarnation,
            epoch: device.epoch,
            attach_number: 0,
            starting: Some(request),
            up: Up::NotYet,
            leg: None,
            traffic: Arc::default(),
        };
        if plan.fresh {
            device.fence = Fence::Due;
        }
        self.sessions.insert(session, begun);
        let pending = Pending {
            peer: attacher.agent.clone(),
            device: plan.device.clone(),
            kind: Kind::Attach,
        };
        self.wait(now, request, pending);
        self.send_fence(&plan.device);
        if planted::is(Bug::BrokerReplyBeforeFence) {
            self.start_session(now, &plan.device);
        }
        self.actions
            .push_back(Action::DeviceChanged(plan.device.clone()));
    }

    /// The host confirmed: the device's session is live.
    pub(super) fn start_session(&mut self, now: Time, device: &DeviceId) {
        let Some(known) = self.devices.get(device) else {
            return;
        };
        let (Some(id), Some(offered)) = (known.session, known.offered.as_ref()) else {
            return;
        };
        let descriptor = offered.offer.descriptor.clone();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(request) = session.starting.take() else {
            return;
        };
        let attached = Reply::Attached {
            device: device.clone(),
            session: id,
            epoch: session.epoch,
            incarnation: session.incarnation,
            descriptor,
        };
        self.reply(request, Ok(attached));
        self.arm_grace(now, id);
        self.actions.push_back(Action::SessionChanged(id));
        self.actions
            .push_back(Action::DeviceChanged(device.clone()));
    }

    fn try_detach(
        &mut self,
        now: Time,
        request: RequestId,
        requester: Requester<'_>,
        session: SessionId,
    ) -> Result<(), Refusal> {
        self.check_grants()?;
        let unknown = || Refusal::NotFound(format!("session_id: no session {session} of yours"));
        let known = self.sessions.get(&session).ok_or_else(unknown)?;
        let (peer, device) = (known.agent.clone(), known.device.clone());
        if !requester.may_end(&peer) {
            return Err(unknown());
        }
        let why = requester.words("the session was detached");
        self.end_session(now, session, CloseCode::Normal, &why);
        self.wait_for_end(now, request, peer, device);
        Ok(())
    }

    /// Ends a session, and its claim if that was implicit, and fences the device.
    pub(super) fn end_session(
        &mut self,
        _now: Time,
        session: SessionId,
        code: CloseCode,
        why: &str,
    ) {
        let Some(device) = self.remove_session(session, code, why) else {
            return;
        };
        let claim = self.devices.get(&device).and_then(|d| d.claim.as_ref());
        if claim.is_some_and(|claim| claim.implicit) {
            self.drop_claim(&device);
        }
        self.raise(&device);
        self.actions.push_back(Action::DeviceChanged(device));
    }

    /// Ends an attach that was not confirmed.
    pub(super) fn undo_start(&mut self, now: Time, device: &DeviceId, why: &str) {
        let session = self.devices.get(device).and_then(|d| d.session);
        let starting = |id: &SessionId| {
            let session = self.sessions.get(id);
            session.is_some_and(|s| s.starting.is_some())
        };
        if let Some(session) = session.filter(starting) {
            self.end_session(now, session, CloseCode::Unreachable, why);
        }
    }

    /// Takes a session out of the tables; its device's epoch has to be raised after this.
    fn remove_session(&mut self, id: SessionId, code: CloseCode, why: &str) -> Option<DeviceId> {
        let session = self.sessions.remove(&id)?;
        self.timers.disarm(&Timer::Grace(id));
        if let Some(device) = self.devices.get_mut(&session.device) {
            device.session = None;
        }
        if let Some(request) = session.starting {
            self.reply(request, Err(Refusal::Unavailable(why.to_owned())));
        } else {
            self.actions.push_back(Action::SessionGone {
                session: id,
                agent: session.agent,
                host: session.host,
            });
        }
        if let Some(leg) = session.leg {
            self.actions.push_back(Action::CloseLeg {
                leg: leg.id,
                code,
                message: why.to_owned(),
            });
        }
        Some(session.device)
    }

    pub(super) fn arm_grace(&mut self, now: Time, session: SessionId) {
        let over = now.saturating_add(self.times.grace);
        self.timers.arm(Timer::Grace(session), over);
    }

    /// The agent has been without a data leg for too long.
    pub(super) fn grace_over(&mut self, now: Time, session: SessionId) {
        if self.sessions.get(&session).is_some_and(|s| s.leg.is_none()) {
            let why = "the agent did not dial the session's data path in time";
            self.end_session(now, session, CloseCode::Unreachable, why);
        }
    }
}
