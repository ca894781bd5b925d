//! Compares the guest's view, the device's log and the guest's memory, all the time.

mod clause;
mod forward;
mod log;
mod op;
mod reverse;

pub use clause::{Clause, Finding};
pub(crate) use log::{Ending, Over, VECTORS};
pub(crate) use op::{Kind, read_back, shape, value_of};

use bytes::Bytes;
use log::Log;
use potemkin_session::{
    frame::{Body, Frame},
    ids::SessionId,
};

use crate::clock::Micros;

/// A close frame whose check is gone: a relay of version 1 sends such, so it is obeyed.
pub(crate) fn is_bare_close(bytes: Bytes) -> bool {
    Frame::decode(bytes).is_ok_and(|frame| !frame.checked && matches!(frame.body, Body::Close(_)))
}

/// Names a session's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogId(usize);

#[derive(Debug, Default, Clone, Copy)]
struct DeviceLog {
    /// The newest epoch whose fence the host has confirmed.
    fenced: u64,
    /// The newest epoch that was handed out.
    granted: u64,
    /// The first one that was handed out after the faults.
    in_calm_from: Option<u64>,
    /// The session that executed last.
    last: Option<LogId>,
    /// The device was reset since.
    clean: bool,
    /// The newest epoch that the host has obeyed, and the one session that it lets in.
    obeyed: u64,
    lets_in: Option<SessionId>,
    /// The newest epoch that a fence was sent for, and whom that lets in.
    sent: u64,
    sent_for: Option<u128>,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    logs: Vec<Log>,
    devices: Vec<DeviceLog>,
    finding: Option<Finding>,
    pub(crate) now: Micros,
    /// Interrupts may have coalesced in this run: then their number says nothing.
    pub(crate) storms: bool,
    /// Accesses issued, and applied.
    pub(crate) issued: u64,
    pub(crate) applied: u64,
}

impl Oracle {
    pub(crate) fn new(devices: usize) -> Self {
        Self {
            devices: vec![DeviceLog::default(); devices],
            ..Self::default()
        }
    }

    /// The first clause that did not hold counts.
    pub(crate) fn fail(&mut self, clause: Clause, detail: impl FnOnce() -> String) {
        if self.finding.is_none() {
            let detail = detail();
            self.finding = Some(Finding { clause, detail });
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.finding.is_some()
    }

    pub(crate) fn take_finding(&mut self) -> Option<Finding> {
        self.finding.take()
    }

    /// The broker hands out a session.
    pub(crate) fn granted(&mut self, device: usize, epoch: u64, calm: bool) {
        let known = self.devices[device];
        if epoch <= known.granted {
            self.fail(Clause::EpochGrows, || {
                format!(
                    "device {device}: epoch {epoch} was handed out after {}",
                    known.granted
                )
            });
        }
        if known.fenced < epoch {
            self.fail(Clause::GrantAfterFence, || {
                format!(
                    "device {device}: epoch {epoch} was handed out, the host has confirmed {}",
                    known.fenced
                )
            });
        }
        let known = &mut self.devices[device];
        known.granted = epoch.max(known.granted);
        if calm {
            known.in_calm_from.get_or_insert(epoch);
        }
    }

    /// An agent has got a session, late perhaps.
    pub(crate) fn begin(&mut self, device: usize, id: SessionId, epoch: u64) -> LogId {
        let mut log = Log::new(id, epoch, device);
        log.in_calm = self.devices[device]
            .in_calm_from
            .is_some_and(|from| from <= epoch);
        self.logs.push(log);
        LogId(self.logs.len() - 1)
    }

    /// The log of a session that an agent was given.
    pub(crate) fn find(&self, id: SessionId) -> Option<LogId> {
        self.logs.iter().rposition(|log| log.id == id).map(LogId)
    }

    /// The host has confirmed a fence.
    pub(crate) fn fenced(&mut self, device: usize, epoch: u64) {
        let known = &mut self.devices[device];
        known.fenced = known.fenced.max(epoch);
    }

    /// A broker sends a fence. `durable`: the epoch that its store has.
    pub(crate) fn fence_sent(
        &mut self,
        device: usize,
        epoch: u64,
        session: Option<u128>,
        durable: u64,
    ) {
        let known = self.devices[device];
        if durable < epoch {
            self.fail(Clause::FenceAfterCommit, || {
                format!(
                    "device {device}: a fence of epoch {epoch} was sent, the store has {durable}"
                )
            });
        }
        if known.sent == epoch && known.sent_for != session {
            self.fail(Clause::FenceAfterCommit, || {
                format!("device {device}: two fences of epoch {epoch} are for different sessions")
            });
        }
        if epoch >= known.sent {
            let known = &mut self.devices[device];
            (known.sent, known.sent_for) = (epoch, session);
        }
    }

    /// A host obeys a fence's first half. `ends`: the session that it ends, if one lives.
    pub(crate) fn obeyed(
        &mut self,
        device: usize,
        epoch: u64,
        session: Option<SessionId>,
        ends: Option<SessionId>,
    ) {
        let newest = self.devices[device].obeyed;
        if epoch < newest {
            self.fail(Clause::NewestFence, || {
                format!("device {device}: a fence of epoch {epoch} was obeyed after {newest}")
            });
        }
        if ends.is_some() && ends == session {
            self.fail(Clause::FenceSparesItsOwn, || {
                format!(
                    "device {device}: a fence of epoch {epoch} ended the session that it is for"
                )
            });
        }
        let known = &mut self.devices[device];
        known.obeyed = epoch;
        if known.lets_in != session {
            known.lets_in = None;
        }
    }

    /// A host has done a fence's second half.
    pub(crate) fn opened(&mut self, device: usize, epoch: u64, session: Option<SessionId>) {
        let known = &mut self.devices[device];
        if epoch == known.obeyed {
            known.lets_in = session;
        }
    }

    /// A host refuses a session at its gate, as none that it knows.
    pub(crate) fn shut_out(&mut self, device: usize, epoch: u64, session: SessionId) {
        let known = self.devices[device];
        if known.obeyed == epoch && known.lets_in == Some(session) {
            self.fail(Clause::FencedIsLetIn, || {
                format!(
                    "device {device}: the session that the fence of epoch {epoch} is for is refused"
                )
            });
        }
    }

    /// A session begins at a host.
    pub(crate) fn begins_at_host(&mut self, id: LogId) {
        if self.logs[id.0].over.is_some() {
            self.fail(Clause::EndedStaysEnded, || {
                "a session that had ended at its host begins anew".to_owned()
            });
        }
    }

    /// The agent of a session was set back to an earlier moment.
    pub(crate) fn set_back(&mut self, id: LogId) {
        self.logs[id.0].set_back = true;
    }

    pub(crate) fn is_set_back(&self, id: LogId) -> bool {
        self.logs[id.0].set_back
    }

    /// A host has started with this epoch from its disk.
    pub(crate) fn started(&mut self, device: usize, epoch: u64) {
        let fenced = self.devices[device].fenced;
        self.devices[device].obeyed = epoch;
        self.devices[device].lets_in = None;
        if epoch < fenced {
            self.fail(Clause::EpochGrows, || {
                format!("device {device}: the host starts with epoch {epoch}, and has confirmed {fenced}")
            });
        }
    }

    /// The device is as new.
    pub(crate) fn device_reset(&mut self, device: usize) {
        self.devices[device].clean = true;
    }

    /// The host has taken a dial.
    pub(crate) fn dialled(&mut self, id: LogId, attach_number: u32) {
        let log = &mut self.logs[id.0];
        let newest = std::mem::replace(&mut log.newest, attach_number);
        if attach_number <= newest {
            self.fail(Clause::NewestPath, || {
                format!("the host took dial {attach_number} after {newest}")
            });
        }
    }

    pub(crate) fn over_at_host(&mut self, log: LogId, why: Over) {
        self.logs[log.0].over.get_or_insert(why);
    }

    /// An agent has contained its session. `told`: because the other side said so; `disturbed`: there was a fault.
    pub(crate) fn check_reason(&mut self, id: LogId, reason: &str, told: bool, disturbed: bool) {
        let log = &self.logs[id.0];
        let in_calm = log.in_calm;
        if log.set_back {
            return;
        }
        let needless = told && log.over == Some(Over::Closed);
        if needless || in_calm || !disturbed {
            self.fail(Clause::ContainedForAReason, || {
                format!("contained, after a fault: {disturbed}, begun after the faults: {in_calm}: {reason}")
            });
        }
    }

    pub(crate) fn ended(&mut self, log: LogId, ending: Ending) {
        self.logs[log.0].ending.get_or_insert(ending);
    }

    /// Executes somebody who may?
    fn check_owner(&mut self, id: LogId) {
        let (device, epoch) = (self.logs[id.0].device, self.logs[id.0].epoch);
        let known = &mut self.devices[device];
        let before = known.last.replace(id);
        let clean = std::mem::replace(&mut known.clean, false);
        let fenced = known.fenced;
        if epoch < fenced {
            self.fail(Clause::NotAfterFence, || {
                format!(
                    "device {device}: an access of epoch {epoch} after the fence of epoch {fenced}"
                )
            });
        }
        if let Some(before) = before.filter(|before| *before != id) {
            let older = self.logs[before.0].epoch;
            if !clean || older >= epoch {
                self.fail(Clause::OneOwner, || {
                    format!("device {device}: epoch {epoch} executes after epoch {older}, reset between: {clean}")
                });
            }
        }
        if self.logs[id.0].over.is_some() {
            self.fail(Clause::OneOwner, || {
                format!("device {device}: a session executes that has ended, epoch {epoch}")
            });
        }
    }

    /// An access entered the device at `now`, straight from a frame that came then. `limit`: how long after its containment that is allowed.
    pub(crate) fn check_late(&mut self, id: LogId, now: Micros, limit: Micros) {
        if let Some(Ending::Contained(at) | Ending::Killed(at)) = self.logs[id.0].ending
            && now > at + limit
        {
            self.fail(Clause::NotLate, || {
                format!(
                    "an access entered the device {} us after its session was contained",
                    now - at
                )
            });
        }
    }
}
