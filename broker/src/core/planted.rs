//! Faults that can be planted in this core: see `potemkin_session::planted`, which has them all.
//!
//! Without the feature `planted` none is, and this crate does not even know that one.

#[cfg(feature = "planted")]
pub(super) use potemkin_session::planted::{Bug, is};

#[cfg(not(feature = "planted"))]
pub(super) use absent::{Bug, is};

#[cfg(not(feature = "planted"))]
mod absent {
    /// Those that this core asks for.
    #[derive(Debug, Clone, Copy)]
    #[allow(clippy::enum_variant_names)] // The names are those of the whole list.
    pub(in super::super) enum Bug {
        BrokerOlderDial,
        BrokerFenceBeforeCommit,
        BrokerReplyBeforeFence,
        BrokerOldFenceAnswer,
        BrokerEpochUsedTwice,
        BrokerForgetsClaims,
        BrokerLeaseIgnored,
    }

    /// Never: the feature is off.
    #[inline(always)]
    pub(in super::super) const fn is(_: Bug) -> bool {
        false
    }
}
