//! A session's paths: lost, refused, and taken up again.

use super::*;

impl Host {
    /// Whether this session can live without a path. One of version 1 ends with its path.
    pub fn is_resumable(&self) -> bool {
        self.version >= RESUMABLE
    }

    /// There is a path on which frames come and go.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The path is lost: what is not acknowledged is kept for the next. Frames that still come from it may not be handed in.
    pub fn suspend(&mut self) {
        self.connected = false;
        self.outgoing.clear();
        if planted::is(Bug::LoseQueueWithoutPath) {
            self.queue.clear();
        }
    }

    /// The agent has dialled anew: the frame that ends the older path comes out of [`Host::poll_transmit`].
    pub fn leave_path(&mut self, newer: AttachNumber) {
        let message = format!("host: attach number {} took over", newer.0);
        let close = close_frame(self.header(), CloseCode::Superseded, message);
        self.suspend();
        self.outgoing.push_back(close);
    }

    /// A newer path of this session. The driver has closed the older before, and sends what [`Host::poll_transmit`] gives on the new one.
    ///
    /// # Errors
    /// When the two ends do not fit together any more: the agent says that it has, or lacks, what it cannot. Such a session is closed.
    ///
    /// # Panics
    /// When it is of another session or epoch: the driver has let in whom it should not.
    pub fn resume(&mut self, opening: &Opening, beat: u64) -> Result<(), Violation> {
        let (ours, theirs) = (self.path, opening.path);
        assert_eq!(
            (ours.session, ours.epoch),
            (theirs.session, theirs.epoch),
            "one session"
        );
        self.beat = beat;
        let checked = self.check_resume(opening);
        self.path.attach_number = theirs.attach_number;
        self.connected = true;
        self.refusing = false;
        self.resend_due = false;
        self.outgoing.clear();
        if let Err(violation) = checked {
            self.close(CloseCode::ProtocolViolation, format!("agent: {violation}"));
            return Err(violation);
        }
        let too_far = u64::from(planted::is(Bug::TrimOneTooFar));
        self.take_acknowledged(opening.open.next_reverse - 1 + too_far);
        if planted::is(Bug::ResumeWithoutReplay) {
            self.renumber(opening.open.next_reverse);
        }
        self.outbound
            .raise_dma_write_limit(opening.open.dma_write_limit);
        self.deadline_beats = opening.open.deadline_ms.into();
        self.push_accept();
        self.send_again();
        Ok(())
    }

    fn check_resume(&self, opening: &Opening) -> Result<(), Violation> {
        let open = &opening.open;
        if !(open.version_min..=open.version_max).contains(&self.version) {
            return Err(Violation::Version {
                min: open.version_min,
                max: open.version_max,
                ours: self.version,
            });
        }
        // What it has acknowledged it cannot lack, and what was not numbered it cannot have.
        within(
            "next_reverse",
            open.next_reverse,
            self.taken + 1,
            self.batch_first,
        )?;
        // What it knows to be applied was received.
        let next = self.next_forward;
        within("oldest_unacknowledged", open.oldest_unacknowledged, 1, next)
    }

    /// The answer to an `open`. It acknowledges nothing: completions that the agent lacks come after it.
    pub(super) fn push_accept(&mut self) {
        let accept = SessionAccept {
            version: self.version,
            host_incarnation: self.incarnation.to_bytes(),
            next_forward: self.next_forward,
            posted_limit: self.posted.limit(),
            non_posted_limit: self.non_posted.limit(),
        };
        if !planted::is(Bug::AcknowledgementNotRepeated) {
            self.told = 0;
        }
        self.told_limits();
        let first = self
            .sent
            .front()
            .map_or(self.batch_first, |(s, _)| s.first());
        let header = FrameHeader {
            first_sequence: first,
            acknowledged: match planted::is(Bug::AcceptAcknowledges) {
                true => self.acknowledgeable(),
                false => 0,
            },
            beat: self.beat,
            ..header_for(self.path)
        };
        self.outgoing
            .push_back(frame::encode(header, Body::Accept(accept)));
    }

    /// Each batch goes with the acknowledgement that it had: a newer one may speak of completions that are behind it.
    fn send_again(&mut self) {
        for (batch, _) in &self.sent {
            let newest = planted::is(Bug::ResendNewAcknowledgement);
            let header = FrameHeader {
                acknowledged: if newest {
                    self.acknowledgeable()
                } else {
                    batch.acknowledged()
                },
                ..self.header()
            };
            self.told = batch.acknowledged();
            self.outgoing.push_back(batch.again(header));
        }
    }

    /// Says that what came was too late, and is to be sent again.
    pub(super) fn push_resend(&mut self) {
        let resend = SessionResend {
            next_forward: self.next_forward,
        };
        // As in `push_accept`: what is in the batch is not sent.
        let header = FrameHeader {
            acknowledged: self.told,
            ..self.header()
        };
        self.outgoing
            .push_back(frame::encode(header, Body::Resend(resend)));
    }

    /// The path is at fault: a last frame on it says so.
    pub(super) fn break_path(&mut self, message: String) {
        let close = close_frame(self.header(), CloseCode::PathBroken, message);
        self.suspend();
        self.outgoing.push_back(close);
    }
}

/// `found` must be in `least..=most`.
fn within(field: &'static str, found: u64, least: u64, most: u64) -> Result<(), Violation> {
    if found < least {
        return check(field, found, least);
    }
    if found > most {
        return check(field, found, most);
    }
    Ok(())
}
