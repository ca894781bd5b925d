//! What a call comes to.

use potemkin_front_core::Outcome;

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[must_use]
pub enum Status {
    /// Done, all of it; or a posted write that is on its way, of which nobody hears what the device made of it.
    Ok = 0,
    /// There is nothing of this function's at that place: its BARs do not decode it, decode is off, or the BAR ends before.
    /// Ask the VMM's other devices; if there are none, reads give all-ones and writes are dropped.
    /// The buffer of an absolute read is left as it was; that of a read relative to a BAR is filled with all-ones.
    NotDecoded = 1,
    /// The function decodes it and there is no result: the device refused, or the session is lost. A read has filled its
    /// buffer with what the guest is to see: all-ones (a string: from the piece that failed), or in configuration space the bits that
    /// are known here. Of an access of more than 4096 bytes other pieces may have been done.
    Failed = 2,
    /// An argument is out of range or a null pointer. Nothing was done.
    InvalidArgument = 3,
    /// Opening failed, and may succeed later: the broker cannot be reached, or the device is taken or not there yet.
    TryAgain = 4,
    /// Opening failed for good: a rule of the broker's, a wrong certificate, another broker than it should be.
    Refused = 5,
    /// A callback has called the library, which would wait for itself. Nothing was done.
    InCallback = 6,
    /// A bug in the library. It was caught; the handle may still be closed.
    Internal = 7,
}

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Ok,
            Outcome::NotDecoded => Self::NotDecoded,
            Outcome::Failed => Self::Failed,
        }
    }
}
