//! What goes wrong in a round.

use potemkin_e2e::dice::Dice;

/// One round's fault. "In use": the session's path goes there when the round begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// SIGKILL of the broker in use.
    KillBroker,
    /// SIGKILL of the other.
    KillIdleBroker,
    /// SIGKILL of one, and once it is back, of the other.
    KillBothInTurn,
    /// SIGKILL of both at once. They may be back too late: contained or not, both is right.
    KillBoth,
    /// SIGTERM of the broker in use.
    TerminateBroker,
    /// SIGSTOP of the broker in use beyond every time-out; it wakes with old frames.
    StopBroker,
    /// SIGSTOP of the broker in use, for less than the deadline.
    PauseBroker,
    /// SIGSTOP of the host, for less than the deadline.
    PauseHost,
    /// A link in use is down for less than the deadline.
    Blip,
    /// A link in use goes down and up again many times.
    Flap,
    /// All ways are down, so that nothing passes anywhere.
    BlipAll,
    /// One direction of a link in use is cut, perhaps beyond every time-out.
    CutOneWay,
    /// Both are.
    CutBothWays,
    /// A link in use is slow for a while.
    SlowDown,
    /// SIGKILL of the host.
    KillHost,
    /// SIGSTOP of the host beyond the deadline; it wakes with old accesses.
    StopHost,
    /// All ways are cut beyond the deadline.
    CutAll,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
        Self::KillBroker,
        Self::KillIdleBroker,
        Self::KillBothInTurn,
        Self::KillBoth,
        Self::TerminateBroker,
        Self::StopBroker,
        Self::PauseBroker,
        Self::PauseHost,
        Self::Blip,
        Self::Flap,
        Self::BlipAll,
        Self::CutOneWay,
        Self::CutBothWays,
        Self::SlowDown,
        Self::KillHost,
        Self::StopHost,
        Self::CutAll,
    ];

    /// In how many rounds each occurs.
    pub(crate) const ROUNDS: u64 = Self::ALL.len() as u64;

    /// Each occurs once in as many rounds as there are, in another order each time.
    pub(crate) fn of_round(seed: u64, round: u64) -> Self {
        let mut dice = Dice::new(seed, "faults", round / Self::ROUNDS);
        let mut left = Self::ALL.to_vec();
        for _ in 0..round % Self::ROUNDS {
            left.swap_remove(dice.between(0, left.len() - 1));
        }
        left[dice.between(0, left.len() - 1)]
    }
}
