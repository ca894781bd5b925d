//! Which device a target means.

use std::collections::BTreeMap;

use super::device::{Device, Offered};
use super::{Attacher, Core, Refusal, Target};
use crate::ids::{ClaimId, DeviceId, PeerName};

impl Core {
    /// The free device that `target` means: the one named, or the first by id that fits and is allowed.
    pub(super) fn find_free(&self, agent: &PeerName, target: &Target) -> Result<DeviceId, Refusal> {
        match target {
            Target::Device(id) => {
                let device = self.allowed(agent, id)?;
                self.connected(id, device)?;
                match &device.claim {
                    None => Ok(id.clone()),
                    Some(claim) if claim.owner == *agent => Err(Refusal::Precondition(format!(
                        "{agent} holds a claim to {id} already"
                    ))),
                    Some(_) => Err(Refusal::Precondition(format!(
                        "{id} is claimed by another agent"
                    ))),
                }
            }
            Target::Fitting { class, labels } => {
                self.first_fitting(agent, class.as_deref(), labels)
            }
            Target::Claim(id) => self.claimed(agent, *id),
        }
    }

    /// For a selector: the first device by id that fits, is allowed, and was attached by an older process of this agent,
    /// with no claim but that session's.
    pub(super) fn find_left_over(
        &self,
        attacher: Attacher<'_>,
        target: &Target,
    ) -> Option<DeviceId> {
        let Target::Fitting { class, labels } = target else {
            return None;
        };
        let left_over = |(id, device): &(&DeviceId, &Device)| {
            let session = device.session.and_then(|s| self.sessions.get(&s));
            let implicit = device.claim.as_ref().is_some_and(|c| c.implicit);
            implicit
                && session.is_some_and(|s| attacher.replaces(s))
                && device.offered.as_ref().is_some_and(|offered| {
                    fits(offered, class.as_deref(), labels)
                        && self
                            .policy
                            .may_claim(attacher.agent, id, Some(&offered.offer.class))
                })
                && self.is_host_connected(id)
        };
        let (id, _) = self.devices.iter().find(left_over)?;
        Some(id.clone())
    }

    /// The device of a claim of this agent's.
    pub(super) fn claimed(&self, agent: &PeerName, claim: ClaimId) -> Result<DeviceId, Refusal> {
        let device = self.claims.get(&claim);
        device
            .filter(|id| {
                let held = self.devices.get(*id).and_then(|d| d.claim.as_ref());
                held.is_some_and(|c| c.owner == *agent)
            })
            .cloned()
            .ok_or_else(|| Refusal::NotFound(format!("claim_id: no claim {claim} of yours")))
    }

    /// A device that is offered and that the policy allows to `agent`.
    pub(super) fn allowed(&self, agent: &PeerName, id: &DeviceId) -> Result<&Device, Refusal> {
        let device = self.devices.get(id);
        let offered = device.and_then(|d| d.offered.as_ref());
        let class = offered.map(|o| &*o.offer.class);
        // In this order: who may not have a device does not learn whether it is there.
        if !self.policy.may_claim(agent, id, class) {
            return Err(Refusal::Denied(format!(
                "no [[policy.claim]] rule allows {id} to {agent}"
            )));
        }
        device
            .filter(|_| offered.is_some())
            .ok_or_else(|| Refusal::NotFound(format!("target: no host offers a device {id}")))
    }

    /// Refuses a device whose host is away.
    pub(super) fn connected(&self, id: &DeviceId, device: &Device) -> Result<(), Refusal> {
        if self.is_host_connected(id) {
            return Ok(());
        }
        let host = device.offered.as_ref().map_or("?", |o| &o.host);
        Err(Refusal::Precondition(format!(
            "the host of {id}, {host}, is away"
        )))
    }

    fn first_fitting(
        &self,
        agent: &PeerName,
        class: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<DeviceId, Refusal> {
        let mut outlook = Outlook::NothingFits;
        for (id, device) in &self.devices {
            let Some(offered) = device.offered.as_ref() else {
                continue;
            };
            if !fits(offered, class, labels) {
                continue;
            }
            if !self.policy.may_claim(agent, id, Some(&offered.offer.class)) {
                outlook = outlook.max(Outlook::Denied);
            } else if device.claim.is_some() || !self.is_host_connected(id) {
                outlook = Outlook::Taken;
            } else {
                return Ok(id.clone());
            }
        }
        Err(outlook.refusal(agent))
    }
}

fn fits(offered: &Offered, class: Option<&str>, labels: &BTreeMap<String, String>) -> bool {
    let offer = &offered.offer;
    class.is_none_or(|class| *offer.class == *class)
        && labels
            .iter()
            .all(|(key, value)| offer.labels.get(key) == Some(value))
}

/// The best that a search without result has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outlook {
    NothingFits,
    Denied,
    Taken,
}

impl Outlook {
    fn refusal(self, agent: &PeerName) -> Refusal {
        match self {
            Self::NothingFits => Refusal::NotFound("target.selector: no device fits".to_owned()),
            Self::Denied => Refusal::Denied(format!(
                "no [[policy.claim]] rule allows a device that fits target.selector to {agent}"
            )),
            Self::Taken => Refusal::Precondition(
                "target.selector: every device that fits is claimed or its host is away".to_owned(),
            ),
        }
    }
}
