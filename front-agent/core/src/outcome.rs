//! What became of an access.

/// What became of an access to a BAR, the expansion ROM or configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, all of it; or posted.
    Done,
    /// There is nothing at this place: the function does not decode it, or the BAR ends before. A read has given all-ones, a write is
    /// dropped.
    NotDecoded,
    /// The function decodes it and there is no result: the device refused, or the session is contained. A read has given all-ones
    /// (configuration space: the bits of the local image); of a write nothing more reaches the device.
    Failed,
}

/// What a write to configuration space did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigWrite {
    /// Of what went to the host.
    pub outcome: Outcome,
    /// It reset the function.
    pub reset: bool,
    /// It turned bus mastering off.
    pub bus_master_off: bool,
}

impl Outcome {
    /// Of an access that was sent.
    pub(crate) fn sent(done: bool) -> Self {
        if done { Self::Done } else { Self::Failed }
    }
}
