//! Claims: taken before any attach, given back, or left over from before the broker's start.

use potemkin_proto::v1::CloseCode;

use super::device::Claim;
use super::requests::{Kind, Pending};
use super::{Action, Core, Refusal, Reply, RequestId, Requester, Target, Time, Timer};
use crate::ids::{ClaimId, DeviceId, PeerName};

impl Core {
    /// Takes a device for `agent`, until it is released. `fresh` will be the claim's id.
    pub fn claim(
        &mut self,
        now: Time,
        request: RequestId,
        agent: &PeerName,
        target: &Target,
        fresh: ClaimId,
    ) {
        if let Err(refusal) = self.try_claim(now, request, agent, target, fresh) {
            self.reply(request, Err(refusal));
        }
    }

    /// Gives a claim back: ends its session, fences the device.
    pub fn release(
        &mut self,
        now: Time,
        request: RequestId,
        requester: Requester<'_>,
        claim: ClaimId,
    ) {
        if let Err(refusal) = self.try_release(now, request, requester, claim) {
            self.reply(request, Err(refusal));
        }
    }

    fn try_claim(
        &mut self,
        now: Time,
        request: RequestId,
        agent: &PeerName,
        target: &Target,
        fresh: ClaimId,
    ) -> Result<(), Refusal> {
        self.check_grants()?;
        self.check_requests(agent)?;
        self.check_claims(agent)?;
        let device = self.find_free(agent, target)?;
        let idle = self.raise_idle(&device);
        self.set_claim(
            &device,
            Claim {
                id: fresh,
                owner: agent.clone(),
                implicit: false,
                request: Some(request),
                fresh: idle,
            },
        );
        let pending = Pending {
            peer: agent.clone(),
            device,
            kind: Kind::Claim,
        };
        self.wait(now, request, pending);
        Ok(())
    }

    fn check_claims(&self, agent: &PeerName) -> Result<(), Refusal> {
        let held = self
            .claims
            .values()
            .filter_map(|device| self.devices.get(device)?.claim.as_ref())
            .filter(|claim| claim.owner == *agent && !claim.implicit)
            .count();
        if held < self.limits.claims_per_agent {
            return Ok(());
        }
        Err(Refusal::Exhausted(format!(
            "{agent} holds {held} claims, which is the limit: release one"
        )))
    }

    fn try_release(
        &mut self,
        now: Time,
        request: RequestId,
        requester: Requester<'_>,
        claim: ClaimId,
    ) -> Result<(), Refusal> {
        self.check_grants()?;
        let unknown = || Refusal::NotFound(format!("claim_id: no claim {claim} of yours"));
        let device = self.claims.get(&claim).cloned().ok_or_else(unknown)?;
        let owner = self
            .devices
            .get(&device)
            .and_then(|d| d.claim.as_ref())
            .map(|c| c.owner.clone())
            .ok_or_else(unknown)?;
        if !requester.may_end(&owner) {
            return Err(unknown());
        }
        let why = requester.words("its claim was released");
        self.end_claim(now, &device, &why);
        self.wait_for_end(now, request, owner, device);
        Ok(())
    }

    /// Answers when the device is fenced, or durably lost while its host is away.
    pub(super) fn wait_for_end(
        &mut self,
        now: Time,
        request: RequestId,
        peer: PeerName,
        device: DeviceId,
    ) {
        let waits = self
            .devices
            .get_mut(&device)
            .is_some_and(|d| d.wait(request));
        if waits {
            let kind = Kind::End;
            self.wait(now, request, Pending { peer, device, kind });
        } else {
            self.reply(request, Ok(Reply::Ended));
        }
    }

    /// Ends a claim and what depends on it, and fences the device.
    pub(super) fn end_claim(&mut self, now: Time, device: &DeviceId, why: &str) {
        let Some(known) = self.devices.get_mut(device) else {
            return;
        };
        let claiming = known.claim.as_mut().and_then(|c| c.request.take());
        if let Some(request) = claiming {
            self.reply(request, Err(Refusal::Unavailable(why.to_owned())));
        }
        match self.devices.get(device).and_then(|d| d.session) {
            Some(session) => self.end_session(now, session, CloseCode::Normal, why),
            None => self.raise(device),
        }
        self.drop_claim(device);
    }

    /// A host is back for the first time since the broker's start. If the device has an implicit claim from before, and no session
    /// that its host would have told of, the agent has the grace to attach again.
    pub(super) fn await_owner(&mut self, now: Time, device: &DeviceId) {
        let claim = self.devices.get(device).and_then(|d| d.claim.as_ref());
        if claim.is_some_and(|claim| claim.implicit) {
            let over = now.saturating_add(self.times.grace);
            self.timers.arm(Timer::Orphan(device.clone()), over);
        }
    }

    /// An implicit claim from before the broker's start has not been taken up again.
    pub(super) fn orphan_over(&mut self, now: Time, device: &DeviceId) {
        let is_orphan = self.devices.get(device).is_some_and(|known| {
            known.session.is_none() && known.claim.as_ref().is_some_and(|claim| claim.implicit)
        });
        if is_orphan {
            self.end_claim(
                now,
                device,
                "its session did not survive the broker's restart",
            );
        }
    }

    pub(super) fn set_claim(&mut self, device: &DeviceId, claim: Claim) {
        self.drop_claim(device);
        if let Some(known) = self.devices.get_mut(device) {
            self.claims.insert(claim.id, device.clone());
            known.claim = Some(claim);
        }
    }

    /// Forgets a claim, now and in the store.
    pub(super) fn drop_claim(&mut self, device: &DeviceId) {
        if let Some(claim) = self.devices.get_mut(device).and_then(|d| d.claim.take()) {
            self.claims.remove(&claim.id);
            self.keep(device);
        }
        self.actions
            .push_back(Action::DeviceChanged(device.clone()));
    }
}
