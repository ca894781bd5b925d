//! Which session of a device counts: the host's side of fencing.

use crate::{
    ids::{AttachNumber, Epoch, Path, SessionId},
    planted::{self, Bug},
};

/// Of two dials of the session the one with the newer attach number counts.
///
/// Per device. The highest epoch only grows; at one epoch a session is allowed once, and never again after it ended or was
/// shut out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    highest: Epoch,
    allowed: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowed {
    /// No session yet at the highest epoch.
    Nobody,
    Session {
        id: SessionId,
        /// The newest dial that was admitted; 0 before the first.
        newest: AttachNumber,
    },
    /// Whoever was allowed at the highest epoch is not any more.
    Over,
}

/// What a fence asks for, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FenceOrder {
    /// From now on only this counts.
    pub epoch: Epoch,
    /// The one session allowed at it; none: nobody.
    pub session: Option<SessionId>,
}

/// What a fence that is obeyed changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was obeyed before: the session that it names goes on.
    None,
    /// Whoever uses the device must leave it.
    ShutOut,
}

/// Why a fence is not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// A newer one was obeyed.
    #[error("epoch: {} is older than {}, the newest known to this host", .asked.0, .highest.0)]
    OldEpoch {
        /// The one that came.
        asked: Epoch,
        /// The newest one.
        highest: Epoch,
    },
    /// One epoch is for one session.
    #[error("session_id: another session was allowed at epoch {}", .epoch.0)]
    OtherSession {
        /// At which.
        epoch: Epoch,
    },
    /// A session that has ended begins no more.
    #[error("session_id: the session has ended")]
    Ended,
}

/// Why a session may not use the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// A newer one is known.
    #[error("header.epoch: {} is older than {}, the newest known to this host", .asked.0, .highest.0)]
    OldEpoch {
        /// The one that came.
        asked: Epoch,
        /// The newest one.
        highest: Epoch,
    },
    /// No fence has named it.
    #[error("header.epoch: this host was not fenced for epoch {}", .asked.0)]
    UnknownEpoch {
        /// The one that came.
        asked: Epoch,
    },
    /// The fence has named another.
    #[error("header.session_hi, session_lo: not the session that this host was fenced for")]
    OtherSession,
    /// It was ended or shut out.
    #[error("header.session_hi, session_lo: the session has ended")]
    Ended,
    /// A newer dial of the session came before.
    #[error("header.attach_number: {} is not newer than {}, which this host has", .asked.0, .newest.0)]
    OldAttach {
        /// The one that came.
        asked: AttachNumber,
        /// The newest one.
        newest: AttachNumber,
    },
}

impl Gate {
    /// As the host starts: nobody may use the device, and nobody ever with an epoch below `highest`.
    pub fn new(highest: Epoch) -> Self {
        Self {
            highest,
            allowed: Allowed::Nobody,
        }
    }

    /// The highest epoch seen.
    pub fn highest(&self) -> Epoch {
        self.highest
    }

    /// The first half of a fence: shuts everybody out, unless the very session is allowed already.
    ///
    /// # Errors
    /// Why it is not obeyed; nothing has changed then.
    pub fn shut(&mut self, order: FenceOrder) -> Result<Change, FenceError> {
        let FenceOrder { epoch, session } = order;
        if epoch < self.highest && !planted::is(Bug::OlderFenceObeyed) {
            return Err(FenceError::OldEpoch {
                asked: epoch,
                highest: self.highest,
            });
        }
        if epoch != self.highest {
            *self = Self::new(epoch);
            return Ok(Change::ShutOut);
        }
        match (self.allowed, session) {
            (Allowed::Session { id, .. }, Some(asked)) if id == asked => {
                let again = planted::is(Bug::RepeatedFenceShutsOut);
                Ok(if again { Change::ShutOut } else { Change::None })
            }
            (Allowed::Session { .. }, Some(_)) => Err(FenceError::OtherSession { epoch }),
            (Allowed::Over, Some(_)) => Err(FenceError::Ended),
            (Allowed::Nobody, _) => Ok(Change::ShutOut),
            (Allowed::Session { .. } | Allowed::Over, None) => {
                self.allowed = Allowed::Over;
                Ok(Change::ShutOut)
            }
        }
    }

    /// The second half, when the epoch is on disk: lets the session in, unless a newer fence came in between.
    pub fn open(&mut self, order: FenceOrder) {
        if let (Some(session), Allowed::Nobody) = (order.session, self.allowed)
            && (order.epoch == self.highest || planted::is(Bug::OlderHalfOpens))
        {
            self.allowed = Allowed::Session {
                id: session,
                newest: AttachNumber(0),
            };
        }
    }

    /// Whether a dial's session may use the device: then it is the newest.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&mut self, path: Path) -> Result<(), AdmitError> {
        let asked = path.epoch;
        if planted::is(Bug::StaleEpochAdmitted) && asked < self.highest {
            return Ok(());
        }
        if asked < self.highest {
            return Err(AdmitError::OldEpoch {
                asked,
                highest: self.highest,
            });
        }
        match &mut self.allowed {
            Allowed::Session { id, newest } if asked == self.highest => {
                if *id != path.session {
                    return Err(AdmitError::OtherSession);
                }
                let (asked, newest_known) = (path.attach_number, *newest);
                let older = asked < newest_known && !planted::is(Bug::OlderAttachAdmitted);
                let equal = asked == newest_known && !planted::is(Bug::EqualAttachAdmitted);
                if older || equal {
                    return Err(AdmitError::OldAttach {
                        asked,
                        newest: newest_known,
                    });
                }
                *newest = asked;
                Ok(())
            }
            Allowed::Over if asked == self.highest => Err(AdmitError::Ended),
            _ => Err(AdmitError::UnknownEpoch { asked }),
        }
    }

    /// The session ended by itself.
    pub fn ended(&mut self, session: SessionId) {
        if planted::is(Bug::EndedSessionAdmitted) {
            return;
        }
        if matches!(self.allowed, Allowed::Session { id, .. } if id == session) {
            self.allowed = Allowed::Over;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const A: SessionId = SessionId::from_bytes([0xaa; 16]);
    const B: SessionId = SessionId::from_bytes([0xbb; 16]);

    fn order(epoch: u64, session: Option<SessionId>) -> FenceOrder {
        FenceOrder {
            epoch: Epoch(epoch),
            session,
        }
    }

    fn path(epoch: u64, session: SessionId) -> Path {
        Path {
            session,
            epoch: Epoch(epoch),
            attach_number: AttachNumber(1),
        }
    }

    fn fenced(epoch: u64, session: SessionId) -> Gate {
        let mut gate = Gate::new(Epoch(0));
        gate.shut(order(epoch, Some(session))).unwrap();
        gate.open(order(epoch, Some(session)));
        gate
    }

    #[test]
    fn nobody_is_admitted_before_a_fence() {
        let mut gate = Gate::new(Epoch(3));

        for epoch in [3, 4] {
            assert_eq!(
                gate.admit(path(epoch, A)),
                Err(AdmitError::UnknownEpoch {
                    asked: Epoch(epoch)
                })
            );
        }
    }

    #[test]
    fn nobody_is_admitted_between_the_halves_of_a_fence() {
        let mut gate = fenced(3, A);

        assert_eq!(gate.shut(order(4, Some(B))), Ok(Change::ShutOut));

        assert!(gate.admit(path(3, A)).is_err());
        assert!(gate.admit(path(4, B)).is_err());
        gate.open(order(4, Some(B)));
        assert_eq!(gate.admit(path(4, B)), Ok(()));
    }

    #[test]
    fn only_the_fenced_session_at_the_fenced_epoch_is_admitted() {
        let mut gate = fenced(3, A);

        assert_eq!(gate.admit(path(3, A)), Ok(()));
        assert_eq!(gate.admit(path(3, B)), Err(AdmitError::OtherSession));
        assert!(matches!(
            gate.admit(path(2, A)),
            Err(AdmitError::OldEpoch { .. })
        ));
        assert!(matches!(
            gate.admit(path(4, A)),
            Err(AdmitError::UnknownEpoch { .. })
        ));
    }

    #[test]
    fn of_two_dials_the_newer_counts() {
        let mut gate = fenced(3, A);
        let dial = |number| Path {
            attach_number: AttachNumber(number),
            ..path(3, A)
        };
        assert_eq!(gate.admit(dial(2)), Ok(()));
        for old in [1, 2] {
            assert_eq!(
                gate.admit(dial(old)),
                Err(AdmitError::OldAttach {
                    asked: AttachNumber(old),
                    newest: AttachNumber(2),
                })
            );
        }
        assert_eq!(gate.admit(dial(3)), Ok(()));
    }

    #[test]
    fn older_fence_is_refused_and_changes_nothing() {
        let mut gate = fenced(3, A);

        let error = gate.shut(order(2, Some(B))).unwrap_err();

        assert_eq!(
            error.to_string(),
            "epoch: 2 is older than 3, the newest known to this host"
        );
        assert_eq!(gate, fenced(3, A));
    }

    #[test]
    fn repeated_fence_leaves_its_session_alone() {
        let mut gate = fenced(3, A);

        assert_eq!(gate.shut(order(3, Some(A))), Ok(Change::None));
        gate.open(order(3, Some(A)));

        assert_eq!(gate, fenced(3, A));
    }

    #[test]
    fn epoch_from_disk_can_be_fenced_for_a_session() {
        let mut gate = Gate::new(Epoch(3));

        assert_eq!(gate.shut(order(3, Some(A))), Ok(Change::ShutOut));
        gate.open(order(3, Some(A)));

        assert_eq!(gate.admit(path(3, A)), Ok(()));
    }

    #[test]
    fn second_session_at_one_epoch_is_refused() {
        let mut gate = fenced(3, A);

        assert_eq!(
            gate.shut(order(3, Some(B))),
            Err(FenceError::OtherSession { epoch: Epoch(3) })
        );
        assert_eq!(gate.admit(path(3, A)), Ok(()));
    }

    #[test]
    fn fence_without_session_shuts_out_for_good() {
        let mut gate = fenced(3, A);

        assert_eq!(gate.shut(order(3, None)), Ok(Change::ShutOut));
        gate.open(order(3, None));

        assert_eq!(gate.admit(path(3, A)), Err(AdmitError::Ended));
        assert_eq!(gate.shut(order(3, Some(A))), Err(FenceError::Ended));
    }

    #[test]
    fn ended_session_is_not_admitted_again() {
        let mut gate = fenced(3, A);

        gate.ended(B);
        assert_eq!(gate.admit(path(3, A)), Ok(()));
        gate.ended(A);

        assert_eq!(gate.admit(path(3, A)), Err(AdmitError::Ended));
    }

    #[test]
    fn newer_fence_in_between_keeps_the_older_session_out() {
        let mut gate = Gate::new(Epoch(0));
        gate.shut(order(1, Some(A))).unwrap();
        gate.shut(order(2, Some(B))).unwrap();

        gate.open(order(1, Some(A)));
        assert!(gate.admit(path(1, A)).is_err());
        gate.open(order(2, Some(B)));

        assert_eq!(gate.admit(path(2, B)), Ok(()));
    }
}
