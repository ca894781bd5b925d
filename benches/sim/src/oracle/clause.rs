//! What must hold, clause by clause.

use std::fmt;

/// A rule that every run is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Clause {
    /// The accesses of a session are applied in the order in which they were issued, each once: none repeated, none left out.
    OnceInOrder,
    /// An access reaches the device as it was issued: place, width, count, data.
    SameContents,
    /// Nothing of a session is applied once the host has confirmed the fence of a newer epoch.
    NotAfterFence,
    /// Of a device's sessions one executes at a time, and the device is reset before the next.
    OneOwner,
    /// Of a session's dials the host takes newer ones only.
    NewestPath,
    /// What was under way when the agent contained its session does not enter the device long after: the host refuses what is late.
    NotLate,
    /// The result that the guest sees is what the device answered to that very access.
    TrueResult,
    /// Once a session is contained no result of it is shown.
    SilentAfterContainment,
    /// Nothing is acknowledged before it was applied.
    AppliedBeforeAcknowledged,
    /// What the device wrote before it answered is in the guest's memory before the answer is shown, and before the acknowledgement.
    DmaBeforeAnswer,
    /// DMA writes reach the agent in the device's order, each once, with the device's data.
    DmaAsWritten,
    /// The answer to a DMA read is that of the guest's memory, once.
    DmaReadOnce,
    /// An interrupt comes after the DMA writes that preceded it, and is one that the device raised.
    InterruptAfterDma,
    /// An interrupt that was raised arrives.
    InterruptArrives,
    /// A DMA read comes to the agent after the DMA writes that the device began before it.
    DmaReadAfterWrites,
    /// DMA and interrupts of a generation that the agent has ended are not accepted.
    OldGenerationRefused,
    /// At rest the guest sees the level of INTx that the device drives.
    IntxLevel,
    /// Until a reset is confirmed no level of INTx of the time before it is shown.
    IntxOfNow,
    /// A reset, and bus mastering turned off, reach the device between the accesses between which they were issued.
    ResetInOrder,
    /// No access waits longer than the deadline, by the agent's clock.
    Deadline,
    /// When faults have stopped and time has passed a session is whole (all applied and acknowledged) or contained.
    Settles,
    /// What the ends keep is bounded by the credits.
    Bounded,
    /// A device's epoch never goes back.
    EpochGrows,
    /// A host hears of an epoch only after that is durable at the broker, and for one session.
    FenceAfterCommit,
    /// A host obeys no fence that is older than one that it has obeyed.
    NewestFence,
    /// A fence that comes again leaves its own session alone.
    FenceSparesItsOwn,
    /// The session that the newest fence names is let in, until it has ended.
    FencedIsLetIn,
    /// A session that has ended at its host does not begin anew.
    EndedStaysEnded,
    /// A device that an agent has claimed is handed out to no other.
    ClaimHolds,
    /// A host that is away keeps its devices until its lease is over for sure.
    LeaseHolds,
    /// What still comes from an older path has no effect.
    OlderPathIgnored,
    /// Of an agent that was set back in time nothing that it does anew under old numbers is swallowed, and nothing behind that is applied.
    SetBackEnds,
    /// A session is handed out only after its host has confirmed the fence for it.
    GrantAfterFence,
    /// A frame that is not as it was sent has no effect.
    GarbledHasNoEffect,
    /// Two honest ends never accuse each other of breaking the protocol, whatever the way does to their frames.
    HonestEnds,
    /// A session is contained only for a reason: a deadline, a fence, a host that is gone.
    ContainedForAReason,
    /// Every run ends: within so many events.
    Ends,
    /// No part panics.
    NoPanic,
}

impl Clause {
    /// As in reports.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// A clause that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub clause: Clause,
    /// What was seen instead.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.clause, self.detail)
    }
}
