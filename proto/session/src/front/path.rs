//! A session's paths: opened, watched, lost, and opened anew.

use std::time::Instant;

use potemkin_proto::v1::{CloseCode, SessionAccept, SessionClose, SessionOpen, SessionResend};

use super::{Front, FrontEvent, FrontState, close_frame};
use crate::{
    RESUMABLE, VERSION, VERSION_MIN,
    frame::{self, Body, check, header_for},
    ids::{AttachNumber, Incarnation},
    planted::{self, Bug},
    violation::Violation,
};

/// Whether the path makes progress.
#[derive(Debug, Clone)]
pub(super) struct PathWatch {
    /// A frame has come since `note`.
    heard: bool,
    /// When a frame came last, at most so late; at first when the path was begun.
    heard_by: Instant,
    /// For too long nothing came that was waited for.
    stalled: bool,
    /// The batch that was the oldest under way at the last dial: another path has not brought its answer either.
    waited_for: u64,
}

impl PathWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heard: false,
            heard_by: now,
            stalled: false,
            waited_for: 0,
        }
    }

    /// The watch of another path; `oldest`: first number of the oldest batch under way.
    fn next(now: Instant, oldest: Option<u64>) -> Self {
        Self {
            waited_for: oldest.unwrap_or_default(),
            ..Self::new(now)
        }
    }

    /// How many quarters of the deadline the answer to this batch may take: what another path did not bring is perhaps the device's to say.
    fn patience_for(&self, first: u64) -> u32 {
        if first == self.waited_for { 2 } else { 1 }
    }

    /// A frame of the path came that is not a refusal.
    pub(super) fn hear(&mut self) {
        self.heard = true;
        self.stalled = false;
    }

    pub(super) fn note(&mut self, now: Instant) {
        if std::mem::take(&mut self.heard) {
            self.heard_by = now;
        }
    }

    pub(super) fn stall(&mut self) {
        self.stalled = true;
    }
}

impl Front {
    /// The session has no path, or one that stands still: the driver dials another, and tells by [`Front::dial`]. True as long as that
    /// is so.
    pub fn wants_path(&self) -> bool {
        match self.state {
            FrontState::Interrupted => true,
            FrontState::Live | FrontState::Resuming => self.watch.stalled,
            FrontState::Opening | FrontState::Contained | FrontState::Closed => false,
        }
    }

    /// Something waits for an answer: a path is wanted at once.
    pub fn is_urgent(&self) -> bool {
        self.next_deadline().is_some()
    }

    /// The path is lost.
    pub fn handle_lost(&mut self, reason: &str) {
        self.interrupt(format!("the path is lost: {reason}"));
    }

    /// No path will be had any more.
    pub fn abandon(&mut self, reason: &str) {
        self.contain(reason.to_owned());
    }

    /// There is a new stream: what was under way on the old one is left to it, and nothing that still comes from there may be handed in.
    /// `open` comes out of the next [`Front::poll_transmit`].
    ///
    /// # Panics
    /// When the session was never live, cannot be resumed, or has ended: see [`Front::wants_path`].
    pub fn dial(&mut self, now: Instant) {
        assert!(
            self.accepts() && self.version >= RESUMABLE,
            "there is a session to resume"
        );
        let AttachNumber(last) = self.config.path.attach_number;
        self.config.path.attach_number = AttachNumber(last + 1);
        self.state = FrontState::Resuming;
        self.watch = PathWatch::next(now, self.flights.first());
        self.outgoing.clear();
        if planted::is(Bug::DeadlineFromDial) {
            self.renew_deadlines(now + self.config.deadline);
        }
        if planted::is(Bug::ForgetCollected) {
            self.forget_collected();
        }
        // The first dial has chosen for all.
        self.open_path(self.version, self.version);
    }

    pub(super) fn open_path(&mut self, version_min: u32, version_max: u32) {
        let open = SessionOpen {
            version_min,
            version_max,
            next_reverse: self.next_reverse,
            oldest_unacknowledged: self.acknowledged + 1,
            dma_write_limit: self.dma.writes.limit(),
            grant: None,
            host_incarnation: self.config.host_incarnation.to_bytes(),
            deadline_ms: u32::try_from(self.config.deadline.as_millis()).unwrap_or(u32::MAX),
        };
        self.told();
        let mut header = header_for(self.config.path);
        header.first_sequence = self.batch_first;
        self.outgoing
            .push_back(frame::encode(header, Body::Open(open)));
    }

    pub(super) fn take_accept(
        &mut self,
        accept: &SessionAccept,
        checked: bool,
    ) -> Result<(), Violation> {
        self.check_version(accept.version)?;
        if accept.version >= RESUMABLE && !checked {
            return Err(Violation::Unchecked);
        }
        if Incarnation::from_slice(&accept.host_incarnation) != Some(self.config.host_incarnation) {
            return Err(Violation::Stranger);
        }
        self.check_next_forward(accept.next_forward)?;
        self.version = accept.version;
        self.posted.raise(accept.posted_limit);
        self.non_posted.raise(accept.non_posted_limit);
        self.open_deadline = None;
        let first = self.state == FrontState::Opening;
        self.state = FrontState::Live;
        self.events.push_back(if first {
            FrontEvent::Opened
        } else {
            FrontEvent::Resumed
        });
        if planted::is(Bug::RenumberOnResume) && !first {
            self.renumber(accept.next_forward);
        }
        self.send_again(accept.next_forward);
        self.unblock();
        Ok(())
    }

    fn check_version(&self, found: u32) -> Result<(), Violation> {
        let known = match self.version {
            0 => (VERSION_MIN..=VERSION).contains(&found),
            chosen => found == chosen,
        };
        if known {
            return Ok(());
        }
        Err(Violation::Version {
            min: found,
            max: found,
            ours: VERSION,
        })
    }

    /// Nothing that was acknowledged may be missing at the host, and nothing be there that was not sent.
    fn check_next_forward(&self, found: u64) -> Result<(), Violation> {
        let (field, oldest, next) = ("next_forward", self.acknowledged + 1, self.batch_first);
        if found < oldest {
            return check(field, found, oldest);
        }
        if found > next {
            return check(field, found, next);
        }
        Ok(())
    }

    /// The host refused what came too late.
    pub(super) fn take_resend(&mut self, resend: SessionResend) -> Result<(), Violation> {
        self.check_next_forward(resend.next_forward)?;
        // What waits to be sent is among it.
        self.outgoing.clear();
        self.send_again(resend.next_forward);
        Ok(())
    }

    fn send_again(&mut self, next_forward: u64) {
        let header = self.header();
        for batch in self.flights.from(next_forward) {
            self.outgoing.push_back(batch.again(header));
        }
        if !self.outgoing.is_empty() {
            self.told();
        }
    }

    pub(super) fn take_close(&mut self, close: &SessionClose) {
        let code = close.code().as_str_name().trim_start_matches("CLOSE_CODE_");
        let reason = format!("closed by the other side: {code}: {}", close.message);
        match close.code() {
            CloseCode::Unreachable
            | CloseCode::ResourceExhausted
            | CloseCode::PathBroken
            | CloseCode::GoingAway => self.interrupt(reason),
            // An older relay: the host has spoken this version before.
            CloseCode::Version if self.state == FrontState::Resuming => self.interrupt(reason),
            code => {
                self.closed_by.get_or_insert(code);
                self.contain(reason);
            }
        }
    }

    /// The other end, or the path, broke the protocol.
    pub(super) fn refuse(&mut self, violation: &Violation) {
        let message = violation.to_string();
        // The first frame's version is not known: no path of version 1 is told apart from its end.
        let of_path = self.version != VERSION_MIN && violation.is_of_path();
        let code = if of_path {
            CloseCode::PathBroken
        } else {
            CloseCode::ProtocolViolation
        };
        let close = close_frame(self.header(), code, format!("host: {message}"));
        if of_path {
            self.interrupt(format!("the path is broken: {message}"));
        } else {
            self.contain(format!("the host broke the protocol: {message}"));
        }
        self.outgoing.push_back(close);
    }

    /// Without a path from here on. What was sent is kept, and sent again on the next.
    fn interrupt(&mut self, reason: String) {
        if !self.accepts() || self.state == FrontState::Interrupted {
            return;
        }
        if self.version < RESUMABLE {
            return self.contain(reason);
        }
        self.state = FrontState::Interrupted;
        self.outgoing.clear();
        self.events.push_back(FrontEvent::Interrupted(reason));
    }

    /// When the path counts as standing still: after a quarter of the deadline without anything that was waited for.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        if self.watch.stalled || self.watch.heard || self.version < RESUMABLE {
            return None;
        }
        let quarter = self.config.deadline / 4;
        match self.state {
            FrontState::Resuming => Some(self.watch.heard_by + quarter),
            FrontState::Live => {
                let patience = self
                    .flights
                    .first()
                    .map_or(1, |first| self.watch.patience_for(first));
                let waits = self
                    .flights
                    .oldest()
                    .into_iter()
                    .chain(self.blocked)
                    .min()?;
                Some(waits.max(self.watch.heard_by) + quarter * patience)
            }
            _ => None,
        }
    }
}
