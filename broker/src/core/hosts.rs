//! Hosts: what they offer, and their leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use potemkin_proto::v1::CloseCode;

use super::device::{Device, Fence, Offered};
use super::planted::{self, Bug};
use super::{
    Action, ConnId, Core, Hello, LiveSession, Offer, Refusal, RejectCause, Rejected, Time, Timer,
};
use crate::RESUMABLE;
use crate::ids::{DeviceId, Incarnation, PeerName, SessionId};

/// A host that is registered, or was lately.
#[derive(Debug)]
pub(super) struct Host {
    /// Its Register stream; `None`: away.
    pub(super) conn: Option<ConnId>,
    /// The protocol version that we share.
    pub(super) version: u32,
    pub(super) incarnation: Incarnation,
    pub(super) data_address: SocketAddr,
    /// Until then its sessions live and its devices are nobody else's.
    lease_until: Time,
    devices: BTreeSet<DeviceId>,
}

/// Why a device is not taken: for programs and for people.
type Rejection = (RejectCause, String);

impl Core {
    /// A host registers. Devices that are not taken are named to the host; an error refuses the host as a whole.
    pub fn register(
        &mut self,
        now: Time,
        conn: ConnId,
        host: &PeerName,
        hello: Hello,
    ) -> Result<(), Refusal> {
        self.admit(now, conn, host, &hello)?;
        let mut rejected = hello.rejected;
        let sessions = hello.sessions.into_iter();
        let mut sessions: BTreeMap<_, _> = sessions.map(|s| (s.device.clone(), s)).collect();
        let mut offered = BTreeSet::new();
        for offer in hello.offers {
            let device = offer.device.clone();
            let live = sessions.remove(&device);
            match self.take_offer(now, host, offer, live.as_ref()) {
                Ok(()) => {
                    offered.insert(device);
                }
                Err((cause, reason)) => rejected.push(Rejected {
                    device: device.as_str().to_owned(),
                    cause,
                    reason,
                }),
            }
        }
        self.actions.push_back(Action::Accept {
            conn,
            version: hello.version,
            rejected,
            lease: self.times.lease,
        });
        self.set_offered(now, host, offered);
        Ok(())
    }

    /// A host keeps its lease.
    pub fn heartbeat(&mut self, now: Time, conn: ConnId) {
        if let Some(host) = self.conns.get(&conn).cloned() {
            self.renew(now, &host);
        }
    }

    /// A Register stream ended.
    pub fn host_gone(&mut self, now: Time, conn: ConnId) {
        let Some(name) = self.conns.remove(&conn) else {
            return;
        };
        let Some(host) = self.hosts.get_mut(&name) else {
            return;
        };
        if host.conn == Some(conn) {
            host.conn = None;
            self.away(now, &name);
            self.forget_if_empty(&name);
        }
    }

    /// Which host a Register stream belongs to.
    #[must_use]
    pub fn host_of(&self, conn: ConnId) -> Option<&PeerName> {
        self.conns.get(&conn)
    }

    /// Makes the host's entry, new or renewed, before any of its devices are looked at.
    fn admit(
        &mut self,
        now: Time,
        conn: ConnId,
        name: &PeerName,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        if let Some(known) = self.hosts.get_mut(name) {
            let restarted = known.incarnation != hello.incarnation;
            let older = known.conn.take();
            if let Some(older) = older {
                self.conns.remove(&older);
                let reason = "this identity registered again on a newer stream";
                self.actions.push_back(Action::CloseHost {
                    conn: older,
                    reason,
                });
                self.away(now, name);
            }
            if restarted {
                self.end_sessions_of(now, name, "the host was restarted");
            }
        } else if self.hosts.len() >= self.limits.hosts {
            return Err(Refusal::Exhausted(format!(
                "the broker knows {} hosts, which is its limit",
                self.hosts.len()
            )));
        }
        let entry = self.hosts.entry(name.clone()).or_insert_with(|| Host {
            conn: None,
            version: hello.version,
            incarnation: hello.incarnation,
            data_address: hello.data_address,
            lease_until: now,
            devices: BTreeSet::new(),
        });
        entry.conn = Some(conn);
        entry.version = hello.version;
        entry.incarnation = hello.incarnation;
        entry.data_address = hello.data_address;
        self.conns.insert(conn, name.clone());
        self.timers.disarm(&Timer::Forget(name.clone()));
        self.renew(now, name);
        Ok(())
    }

    fn renew(&mut self, now: Time, name: &PeerName) {
        let until = now.saturating_add(self.times.lease);
        if let Some(host) = self.hosts.get_mut(name) {
            host.lease_until = until;
            self.timers.arm(Timer::Lease(name.clone()), until);
        }
    }

    /// Takes one device of a host, or says why not. `live` is the session that the host says it has.
    fn take_offer(
        &mut self,
        now: Time,
        host: &PeerName,
        offer: Offer,
        live: Option<&LiveSession>,
    ) -> Result<(), Rejection> {
        let id = offer.device.clone();
        if !self.policy.may_offer(host, &id) {
            let reason = format!("device_id: no [[policy.offer]] rule allows {id} to {host}");
            return Err((RejectCause::Policy, reason));
        }
        let moved = self.take_over(now, host, &id)?;
        if !self.devices.contains_key(&id) {
            if self.devices.len() >= self.limits.devices {
                let limit = self.limits.devices;
                let reason = format!("the pool is full: its limit is {limit} devices");
                return Err((RejectCause::Full, reason));
            }
            self.devices.insert(id.clone(), Device::new(Fence::Unknown));
        }
        self.end_if_changed(now, &offer);
        let highest = offer.highest_epoch;
        if let Some(device) = self.devices.get_mut(&id) {
            device.offered = Some(Offered {
                host: host.clone(),
                offer,
            });
        }
        // One with an older epoch is about to end, and the host has not come round to it.
        let live = live.filter(|live| live.epoch == highest);
        let goes_on = live.is_some_and(|live| self.take_up(now, host, live));
        if !goes_on {
            // A session that cannot be taken up has to end, unless a fence that will do so is on its way.
            let foreign = live.is_some() && self.is_quiet(&id);
            self.clear(now, &id, highest, moved || foreign);
        }
        Ok(())
    }

    /// The host has no session of the device that could go on: ends the one that was known, and fences the device if somebody
    /// from before may still use it, for sure if it is `doubtful`.
    fn clear(&mut self, now: Time, id: &DeviceId, highest: u64, doubtful: bool) {
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        let lifted = highest > device.epoch;
        device.epoch = device.epoch.max(highest);
        let never_used = device.epoch == 0;
        let unknown = device.fence == Fence::Unknown;
        if unknown && never_used {
            device.fence = Fence::Confirmed;
        } else if unknown || lifted || doubtful {
            self.lose_session_for_epoch(now, id);
            self.raise(id);
        } else {
            self.end_if_missing(now, id);
        }
        if unknown {
            self.await_owner(now, id);
        }
    }

    /// Takes a device from another host whose lease is over for sure. `true`: there was one.
    fn take_over(&mut self, now: Time, host: &PeerName, id: &DeviceId) -> Result<bool, Rejection> {
        let offered = self.devices.get(id).and_then(|d| d.offered.as_ref());
        let Some(other) = offered.map(|o| o.host.clone()).filter(|h| h != host) else {
            return Ok(false);
        };
        if let Some(holder) = self.hosts.get_mut(&other) {
            let own_until = holder.lease_until.saturating_add(self.times.drift);
            let ignored = planted::is(Bug::BrokerLeaseIgnored);
            if holder.conn.is_some() || (now < own_until && !ignored) {
                let reason =
                    format!("device_id: {id} is offered by {other}, whose lease has not run out");
                return Err((RejectCause::Owned, reason));
            }
            holder.devices.remove(id);
        }
        Ok(true)
    }

    /// A session's guest has seen one descriptor: it does not go on with another.
    fn end_if_changed(&mut self, now: Time, offer: &Offer) {
        let Some(device) = self.devices.get(&offer.device) else {
            return;
        };
        let known = device.offered.as_ref();
        let changed = known.is_some_and(|known| known.offer.descriptor != offer.descriptor);
        if changed && let Some(session) = device.session {
            let why = "the host offers the device with another descriptor now";
            self.end_session(now, session, CloseCode::Unreachable, why);
        }
    }

    pub(super) fn lose_session_for_epoch(&mut self, now: Time, id: &DeviceId) {
        if let Some(session) = self.devices.get(id).and_then(|d| d.session) {
            let why = "the host knows a newer epoch of the device";
            self.end_session(now, session, CloseCode::Superseded, why);
        }
    }

    /// The host's devices are these from now on; what it does not offer any more is gone. Sends the fences that are due.
    fn set_offered(&mut self, now: Time, name: &PeerName, offered: BTreeSet<DeviceId>) {
        let Some(host) = self.hosts.get_mut(name) else {
            return;
        };
        let before = std::mem::replace(&mut host.devices, offered.clone());
        for device in before.difference(&offered) {
            self.withdraw(now, device, "the host does not offer the device any more");
        }
        for device in offered {
            self.send_fence(&device);
            self.actions.push_back(Action::DeviceChanged(device));
        }
    }

    /// The host's stream is gone: its devices are away, what waits for it fails.
    fn away(&mut self, now: Time, name: &PeerName) {
        for device in self.devices_of(name) {
            self.unsend(&device);
            self.fail_requests_of(now, &device, &format!("the host of {device} went away"));
            self.answer_waiting(&device);
            self.actions.push_back(Action::DeviceChanged(device));
        }
    }

    /// A host was silent for too long: its devices may be another's soon. Sessions that survive their paths do not end for that: it may be this
    /// broker that was away, and they may live on over others. Whoever takes the device over ends them.
    pub(super) fn lease_over(&mut self, now: Time, name: &PeerName) {
        let Some(host) = self.hosts.get_mut(name) else {
            return;
        };
        let version = host.version;
        if let Some(conn) = host.conn.take() {
            self.conns.remove(&conn);
            let reason = "no heartbeat within the lease";
            self.actions.push_back(Action::CloseHost { conn, reason });
            self.away(now, name);
        }
        if version < RESUMABLE {
            self.end_sessions_of(now, name, "the host's lease is over");
        }
        let forget = now.saturating_add(self.times.forget);
        self.timers.arm(Timer::Forget(name.clone()), forget);
        self.forget_if_empty(name);
    }

    /// A host has been away for so long that nobody expects it back.
    pub(super) fn forget(&mut self, now: Time, name: &PeerName) {
        self.end_sessions_of(now, name, "the host has been away for too long");
        let Some(host) = self.hosts.remove(name) else {
            return;
        };
        for device in host.devices {
            self.drop_offer(&device);
        }
    }

    /// Who offers nothing need not be remembered: such hosts shall not fill the table.
    fn forget_if_empty(&mut self, name: &PeerName) {
        if self.hosts.get(name).is_some_and(|h| h.devices.is_empty()) {
            self.timers.disarm(&Timer::Lease(name.clone()));
            self.timers.disarm(&Timer::Forget(name.clone()));
            self.hosts.remove(name);
        }
    }

    fn end_sessions_of(&mut self, now: Time, name: &PeerName, why: &str) {
        let ended: Vec<SessionId> = self
            .devices_of(name)
            .iter()
            .filter_map(|device| self.devices.get(device)?.session)
            .collect();
        for session in ended {
            self.end_session(now, session, CloseCode::Unreachable, why);
        }
    }

    fn withdraw(&mut self, now: Time, device: &DeviceId, why: &str) {
        self.fail_requests_of(now, device, why);
        if let Some(session) = self.devices.get(device).and_then(|d| d.session) {
            self.end_session(now, session, CloseCode::Unreachable, why);
        }
        self.drop_offer(device);
        self.answer_waiting(device);
    }

    /// Takes a device out of the pool. Its epoch is remembered, as is its claim.
    fn drop_offer(&mut self, id: &DeviceId) {
        let Some(device) = self.devices.get_mut(id) else {
            return;
        };
        if let Some(offered) = device.offered.take() {
            self.actions.push_back(Action::DeviceGone {
                device: id.clone(),
                class: offered.offer.class,
                host: offered.host,
            });
        }
        if device.is_blank() {
            self.devices.remove(id);
            self.dirty.remove(id);
        }
    }

    fn devices_of(&self, name: &PeerName) -> Vec<DeviceId> {
        let host = self.hosts.get(name);
        host.map_or_else(Vec::new, |h| h.devices.iter().cloned().collect())
    }

    /// The stream of the host that offers this device, if it is connected.
    pub(super) fn conn_of(&self, id: &DeviceId) -> Option<ConnId> {
        let offered = self.devices.get(id)?.offered.as_ref()?;
        self.hosts.get(&offered.host)?.conn
    }

    pub(super) fn is_host_connected(&self, id: &DeviceId) -> bool {
        self.conn_of(id).is_some()
    }
}
