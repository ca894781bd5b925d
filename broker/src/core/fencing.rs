//! From a raised epoch to the host's confirmation.

use super::device::{Device, Fence};
use super::planted::{self, Bug};
use super::{Action, ConnId, Core, Reply, Time, Timer};
use crate::ids::DeviceId;

impl Core {
    /// The host's answer to a fence. `error` is empty, or why it could not.
    pub fn fence_done(
        &mut self,
        now: Time,
        conn: ConnId,
        device: &DeviceId,
        epoch: u64,
        error: &str,
    ) {
        let Some(known) = self.devices.get_mut(device) else {
            return;
        };
        // Answers to what was superseded in the meantime mean nothing any more.
        let older = known.epoch != epoch && !planted::is(Bug::BrokerOldFenceAnswer);
        if known.fence != Fence::Sent(conn) || older {
            return;
        }
        if error.is_empty() {
            known.fence = Fence::Confirmed;
            self.confirmed(now, device);
        } else {
            known.fence = Fence::Failed;
            self.fence_failed(now, device, error);
        }
    }

    /// Takes the device from whoever has it: a new epoch, which becomes durable and then the host's newest. Where another broker grants,
    /// epochs are that one's.
    pub(super) fn raise(&mut self, device: &DeviceId) {
        if !self.grants {
            return;
        }
        if let Some(known) = self.devices.get_mut(device) {
            next_epoch(known);
            known.fence = Fence::Committing;
            self.dirty.insert(device.clone());
        }
    }

    /// A new epoch for a device that nobody can be using: there is nothing to fence.
    /// `false`: its fence is not confirmed, so it was raised as usual.
    pub(super) fn raise_idle(&mut self, device: &DeviceId) -> bool {
        let Some(known) = self.devices.get_mut(device) else {
            return false;
        };
        if known.fence != Fence::Confirmed {
            self.raise(device);
            return false;
        }
        next_epoch(known);
        self.dirty.insert(device.clone());
        true
    }

    /// The device's row, as it is now, is durable.
    pub(super) fn durable(&mut self, device: &DeviceId) {
        let Some(known) = self.devices.get_mut(device) else {
            return;
        };
        match known.fence {
            Fence::Committing => {
                known.fence = Fence::Due;
                self.send_fence(device);
            }
            Fence::Confirmed => self.answer_claim(device),
            _ => {}
        }
        if !self.is_host_connected(device) {
            self.answer_waiting(device);
        }
    }

    /// Sends a fence that is due, if the host is connected.
    pub(super) fn send_fence(&mut self, device: &DeviceId) {
        let Some(conn) = self.conn_of(device) else {
            return;
        };
        let Some(known) = self.devices.get_mut(device) else {
            return;
        };
        let early = planted::is(Bug::BrokerFenceBeforeCommit) && known.fence == Fence::Committing;
        if known.fence == Fence::Due || early {
            known.fence = Fence::Sent(conn);
            self.actions.push_back(Action::Fence {
                conn,
                device: device.clone(),
                epoch: known.epoch,
                session: known.session,
            });
        }
    }

    /// A fence that the host could not do is sent again.
    pub(super) fn refence(&mut self, device: &DeviceId) {
        if let Some(known) = self.devices.get_mut(device)
            && known.fence == Fence::Failed
        {
            known.fence = Fence::Due;
            self.send_fence(device);
        }
    }

    /// What was sent on a stream that is gone has to be sent again on the next.
    pub(super) fn unsend(&mut self, device: &DeviceId) {
        if let Some(known) = self.devices.get_mut(device)
            && matches!(known.fence, Fence::Sent(_) | Fence::Failed)
        {
            known.fence = Fence::Due;
        }
    }

    fn confirmed(&mut self, now: Time, device: &DeviceId) {
        self.start_session(now, device);
        self.answer_claim(device);
        self.answer_waiting(device);
    }

    fn fence_failed(&mut self, now: Time, device: &DeviceId, error: &str) {
        let shown: String = error.chars().take(256).collect();
        let why = format!("the host of {device} could not fence it: {shown}");
        // A failed attach raises the epoch: then the next fence is on its way already.
        self.fail_requests_of(now, device, &why);
        let failed = |d: &Device| d.fence == Fence::Failed;
        if self.devices.get(device).is_some_and(failed) {
            let retry = now.saturating_add(self.times.fence);
            self.timers.arm(Timer::Refence(device.clone()), retry);
        }
    }

    /// Answers the claim request that waited for this device.
    fn answer_claim(&mut self, device: &DeviceId) {
        let Some(known) = self.devices.get_mut(device) else {
            return;
        };
        let epoch = known.epoch;
        if let Some(claim) = &mut known.claim
            && let Some(request) = claim.request.take()
        {
            let claim = claim.id;
            let device = device.clone();
            self.reply(
                request,
                Ok(Reply::Claimed {
                    device,
                    claim,
                    epoch,
                }),
            );
        }
    }

    /// Answers the detaches and releases that waited for this device.
    pub(super) fn answer_waiting(&mut self, device: &DeviceId) {
        if let Some(known) = self.devices.get_mut(device) {
            for request in known.take_waiting() {
                self.reply(request, Ok(Reply::Ended));
            }
        }
    }
}

/// Hosts may lift an epoch to at most 2^62 (checked where their offers are read): there is no overflow in sight.
fn next_epoch(device: &mut Device) {
    device.epoch = device.epoch.saturating_add(1);
}
