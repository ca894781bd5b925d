//! Kinds of faults, and how many of each there were.

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A frame is lost, and those behind it are not.
    Drop,
    /// A frame comes twice.
    Duplicate,
    /// A frame comes before one that was sent earlier.
    Reorder,
    /// A frame is late, and what is behind it.
    Delay,
    /// A frame's end is cut off.
    Truncate,
    /// A bit of a frame is another.
    Corrupt,
    /// A stream breaks, and both ends hear of it.
    Disconnect,
    /// Nothing goes between two machines for a while, in one direction.
    OneWayPartition,
    /// Nothing goes between two machines for a while.
    Partition,
    /// A stream is dead in one direction, and nobody is told.
    HalfOpen,
    /// A stream takes a byte now and then.
    SlowReader,
    /// An agent's process is killed, and started again.
    KillAgent,
    /// A broker's.
    KillBroker,
    /// A host's.
    KillHost,
    /// An agent's process stops for longer than any time-out, and goes on.
    PauseAgent,
    /// A broker's; it wakes with old frames.
    PauseBroker,
    /// A host's.
    PauseHost,
    /// An actor's clock jumps.
    ClockJump,
    /// A second process wants the device that another has.
    DoubleOwner,
    /// The broker's store answers late.
    StoreLate,
    /// The broker's store fails.
    StoreFails,
    /// The device takes its time.
    SlowDevice,
    /// An agent's machine is set back to an earlier moment, with its session and its streams.
    SetBack,
    /// A fence comes again: the newest, or an older one.
    FenceAgain,
    /// A dial comes again, through any broker: the newest, or an older one.
    DialAgain,
    /// Another host offers the device while the first one is away.
    SecondHost,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::Drop,
        Self::Duplicate,
        Self::Reorder,
        Self::Delay,
        Self::Truncate,
        Self::Corrupt,
        Self::Disconnect,
        Self::OneWayPartition,
        Self::Partition,
        Self::HalfOpen,
        Self::SlowReader,
        Self::KillAgent,
        Self::KillBroker,
        Self::KillHost,
        Self::PauseAgent,
        Self::PauseBroker,
        Self::PauseHost,
        Self::ClockJump,
        Self::DoubleOwner,
        Self::StoreLate,
        Self::StoreFails,
        Self::SlowDevice,
        Self::SetBack,
        Self::FenceAgain,
        Self::DialAgain,
        Self::SecondHost,
    ];

    /// As in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Delay => "delay",
            Self::Truncate => "truncate",
            Self::Corrupt => "corrupt",
            Self::Disconnect => "disconnect",
            Self::OneWayPartition => "one-way partition",
            Self::Partition => "partition",
            Self::HalfOpen => "half-open",
            Self::SlowReader => "slow reader",
            Self::KillAgent => "kill agent",
            Self::KillBroker => "kill broker",
            Self::KillHost => "kill host",
            Self::PauseAgent => "pause agent",
            Self::PauseBroker => "pause broker",
            Self::PauseHost => "pause host",
            Self::ClockJump => "clock jump",
            Self::DoubleOwner => "double owner",
            Self::StoreLate => "store late",
            Self::StoreFails => "store fails",
            Self::SlowDevice => "slow device",
            Self::SetBack => "set back",
            Self::FenceAgain => "fence again",
            Self::DialAgain => "dial again",
            Self::SecondHost => "second host",
        }
    }
}

/// How often each happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults([u64; Fault::ALL.len()]);

impl Faults {
    /// One more.
    pub(crate) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How many of this kind.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours += theirs;
        }
    }
}
