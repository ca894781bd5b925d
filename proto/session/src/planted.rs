//! Faults that can be planted, one at a time: proof that a check of the whole finds what it is there to find.
//!
//! Each [`Bug`] is a mistake that could be made in earnest. With the feature `planted` one of them is chosen at run time, for the
//! calling thread only (`set`); the code then does the wrong thing where it asks [`is`]. Without the feature [`is`] is a
//! constant, there is no `set`, and nothing of all this is left in the program.

use std::{fmt, str::FromStr};

/// Declares the bugs once: variant, name, and what goes wrong.
macro_rules! bugs {
    ($($(#[$what:meta])+ $variant:ident = $name:literal,)+) => {
        /// A mistake: what the faulty implementation does, and what a user sees of it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($(#[$what])+ $variant,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name on a command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

bugs! {
    // The host half.
    /// Host: acknowledges writes when they came, not when they were done. A write counts as done, and has no deadline any more, while
    /// the device has not seen it.
    AcknowledgeBeforeApply = "acknowledge-before-apply",
    /// Host: an acknowledgement does not wait for the DMA and interrupts that the write caused. "Done" arrives before the data.
    AcknowledgeBeforeDma = "acknowledge-before-dma",
    /// Both: `accept` acknowledges, and the agent believes it before the answers behind it have come. Such a read has no deadline
    /// any more: lose the path again, and its guest waits for ever.
    AcceptAcknowledges = "accept-acknowledges",
    /// Host: the cache of completions evicts when it is full, in place of backpressure. After a blip an answer is gone: the path
    /// is dialled over and over until the access is out of time.
    EvictCompletion = "evict-completion",
    /// Host: numbers go on from what the agent has, and what was lost with the path is not sent again. Interrupts, DMA and answers
    /// are lost without a gap.
    ResumeWithoutReplay = "resume-without-replay",
    /// Host: on resume one batch too many counts as taken. An answer or interrupt is lost, and the session dies of the gap.
    TrimOneTooFar = "trim-one-too-far",
    /// Host: what is sent again has today's acknowledgement, which speaks of answers behind it. A blip ends the session.
    ResendNewAcknowledgement = "resend-new-acknowledgement",
    /// Host: what was acknowledged on the lost path is not acknowledged on the next. Writes that were done run out of time.
    AcknowledgementNotRepeated = "acknowledgement-not-repeated",
    /// Host: a batch that comes twice is executed twice. Writes are repeated, FIFOs popped again, answers move by one.
    ExecuteRepeat = "execute-repeat",
    /// Host: a repeat is known by its number alone. What a restored agent does anew under old numbers is swallowed.
    ForgetDigest = "forget-digest",
    /// Host: a batch is refused as too late, and executed all the same; then it comes again. Writes are repeated.
    ExecuteRefused = "execute-refused",
    /// Host: what is behind a refused batch is executed. It overtakes what was refused, and is repeated.
    TakeBehindRefused = "take-behind-refused",
    /// Host: a batch that was under way for too long is executed. A guest's write lands long after it was given up.
    TakeLate = "take-late",
    /// Host: a gap in what comes is skipped. Writes are lost, later ones are executed.
    HostSkipsGap = "host-skips-gap",
    /// Host: what waits for the device is forgotten with the path. Accesses are lost, and later answers go to earlier reads.
    LoseQueueWithoutPath = "lose-queue-without-path",
    /// Host: a vector raised while there is no path is dropped. An interrupt is lost.
    InterruptLostWithoutPath = "interrupt-lost-without-path",
    /// Host: a level of INTx set while there is no path is noted and not sent. The guest keeps the old level.
    IntxLostWithoutPath = "intx-lost-without-path",
    /// Host: interrupts go before the DMA writes that wait. The guest's handler finds old data.
    InterruptBeforeDma = "interrupt-before-dma",
    /// Host: answers go before the DMA and interrupts that wait. A read says "done", and the data is not there.
    CompletionBeforeDma = "completion-before-dma",
    /// Host: DMA reads go before DMA writes that wait. The device reads what it has overwritten.
    DmaReadBeforeWrites = "dma-read-before-writes",
    /// Host: a vector that waits in a crowd and is raised again keeps its first place. It arrives before the later DMA.
    CrowdedInterruptEarly = "crowded-interrupt-early",
    /// Host: a DMA write gets the newest generation, not the one in which its transfer began. It lands in memory that was reused.
    StampNewestGeneration = "stamp-newest-generation",
    /// Host: a reset goes before the accesses that wait. Writes from before it land in the device that was reset.
    ResetOvertakes = "reset-overtakes",
    /// Host: the credit of a posted write is given back when it came. Behind a slow device the queue grows without bound.
    PostedCreditEarly = "posted-credit-early",
    /// Host: what waits for the device survives the session's end. Writes land after the fence, or after the guest gave them up.
    ExecuteAfterClose = "execute-after-close",
    /// Host: frames of an older path are obeyed. A farewell on it ends the newer path, or the session.
    HostHearsOldPath = "host-hears-old-path",

    // The front half.
    /// Front: answers and DMA that come after containment are taken. A guest gets two results of one access, one of them too late.
    ResultAfterContainment = "result-after-containment",
    /// Front: an `accept` after containment makes the session live again. The guest's device comes back with accesses missing.
    LateAcceptRevives = "late-accept-revives",
    /// Front: the deadline of what was collected begins when it is sent. A guest waits for up to twice the deadline.
    DeadlineFromSeal = "deadline-from-seal",
    /// Front: deadlines begin anew with each dial. While paths come and go a guest waits for ever.
    DeadlineFromDial = "deadline-from-dial",
    /// Front: a batch of which one item is acknowledged counts as landed. The rest of it has no deadline: a guest waits for ever.
    LandedInPart = "landed-in-part",
    /// Front: on resume numbers go on from what the host has, and what it lacks is dropped. Writes are lost without a gap.
    RenumberOnResume = "renumber-on-resume",
    /// Front: what is collected when a new path is dialled is forgotten. Writes are lost without a gap.
    ForgetCollected = "forget-collected",
    /// Front: sends again from one item too late. A batch of one item never comes, and the session stands still.
    ResendOneLate = "resend-one-late",
    /// Front: what was refused as too late is sent again with its old beat, and refused again, until it is out of time: a guest
    /// that was idle loses its device.
    ResendOldBeat = "resend-old-beat",
    /// Front: of a batch that comes twice the last item is taken twice. An interrupt comes twice, and the next item is lost.
    DuplicateOffByOne = "duplicate-off-by-one",
    /// Front: DMA writes of a batch that comes twice are done twice. Memory goes back to an older state.
    DmaWriteTwice = "dma-write-twice",
    /// Front: a gap in what comes is skipped, and acknowledged. Interrupts, DMA and answers are lost.
    FrontSkipsGap = "front-skips-gap",
    /// Front: frames of an older path are obeyed. "Superseded" on the old path takes the device from the guest.
    FrontHearsOldPath = "front-hears-old-path",
    /// Both: the check of a frame is not verified. A read gives, or a write stores, what the line made of it.
    SkipCheck = "skip-check",
    /// Front: INTx from before a reset is shown before the reset is confirmed. The guest gets an interrupt of the time before.
    StaleIntx = "stale-intx",

    // The gate.
    /// Gate: a dial with an older epoch is admitted. Two owners use one device.
    StaleEpochAdmitted = "stale-epoch-admitted",
    /// Gate: a session that ended is admitted again. It begins anew on a device that was reset, as if nothing had been.
    EndedSessionAdmitted = "ended-session-admitted",
    /// Gate: an older fence is obeyed. The new owner is thrown out, and the former one is let in.
    OlderFenceObeyed = "older-fence-obeyed",
    /// Gate: a dial with the attach number of the newest is admitted. An `open` that comes twice throws its own session out.
    EqualAttachAdmitted = "equal-attach-admitted",
    /// Gate: an older dial is admitted. One that was under way for long takes the session from the newer path.
    OlderAttachAdmitted = "older-attach-admitted",
    /// Gate: the second half of an older fence opens for its session after a newer one began. The new owner is kept out.
    OlderHalfOpens = "older-half-opens",
    /// Gate: a fence that comes twice shuts its own session out. The device is reset under a live guest.
    RepeatedFenceShutsOut = "repeated-fence-shuts-out",

    // The broker's core, which asks by its own feature `planted`.
    /// Broker: an older dial is obeyed. One that was under way for long closes the newer leg, and takes the device from the guest.
    BrokerOlderDial = "broker-older-dial",
    /// Broker: an attach is fenced before its epoch is durable. After a crash the same epoch is handed out twice.
    BrokerFenceBeforeCommit = "broker-fence-before-commit",
    /// Broker: an attach is answered before the host has confirmed the fence. The new owner comes while the former one is served.
    BrokerReplyBeforeFence = "broker-reply-before-fence",
    /// Broker: the answer to an older fence counts for the newest. The new owner comes while the former one is served.
    BrokerOldFenceAnswer = "broker-old-fence-answer",
    /// Broker: the epoch of a claim is used for each of its sessions. Its second attach never succeeds.
    BrokerEpochUsedTwice = "broker-epoch-used-twice",
    /// Broker: claims in the store are ignored at the start. A device is given to another agent while its owner holds it.
    BrokerForgetsClaims = "broker-forgets-claims",
    /// Broker: a host that is away loses its devices to whoever offers them, before its lease is over. Two hosts serve one device.
    BrokerLeaseIgnored = "broker-lease-ignored",
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No bug has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no bug is called {0:?}")]
pub struct UnknownBug(pub String);

impl FromStr for Bug {
    type Err = UnknownBug;

    fn from_str(name: &str) -> Result<Self, UnknownBug> {
        let known = Self::ALL.iter().find(|bug| bug.name() == name);
        known.copied().ok_or_else(|| UnknownBug(name.to_owned()))
    }
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in all that this thread runs from here on, in place of the one before; `None`: all is right again.
#[cfg(feature = "planted")]
pub fn set(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread runs with that bug.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Never: the feature is off.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_name_parses_back() {
        for bug in Bug::ALL {
            assert_eq!(bug.to_string().parse(), Ok(*bug));
        }
        assert!("no-such-bug".parse::<Bug>().is_err());
    }

    #[test]
    fn names_are_kebab_case_and_differ() {
        let names: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        }
    }

    #[cfg(not(feature = "planted"))]
    #[test]
    fn without_the_feature_nothing_is_planted() {
        assert!(!Bug::ALL.iter().any(|bug| is(*bug)));
    }

    #[cfg(feature = "planted")]
    #[test]
    fn one_bug_at_a_time_is_planted_in_one_thread() {
        assert!(!Bug::ALL.iter().any(|bug| is(*bug)));
        for planted in Bug::ALL {
            set(Some(*planted));
            assert!(Bug::ALL.iter().all(|bug| is(*bug) == (bug == planted)));
            let elsewhere = std::thread::spawn(|| Bug::ALL.iter().any(|bug| is(*bug)));
            assert_eq!(elsewhere.join().ok(), Some(false));
        }
        set(None);
        assert!(!Bug::ALL.iter().any(|bug| is(*bug)));
    }
}
