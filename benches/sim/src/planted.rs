//! Faults that are planted in the session core and in the broker's, to see whether the oracle finds them.
//!
//! Without the feature `planted` there are none.

#[cfg(feature = "planted")]
use potemkin_session::planted::{Bug, set};

/// What the planted faults are called.
#[must_use]
pub fn names() -> Vec<&'static str> {
    #[cfg(feature = "planted")]
    return Bug::ALL.iter().map(|bug| bug.name()).collect();
    #[cfg(not(feature = "planted"))]
    Vec::new()
}

/// As long as it lives the fault is there, for this thread.
pub(crate) struct Planted;

impl Planted {
    /// Another name than one of [`names`] plants nothing.
    pub(crate) fn set(name: Option<&'static str>) -> Self {
        #[cfg(feature = "planted")]
        set(name.and_then(|name| name.parse::<Bug>().ok()));
        #[cfg(not(feature = "planted"))]
        let _ = name;
        Self
    }
}

#[cfg(feature = "planted")]
impl Drop for Planted {
    fn drop(&mut self) {
        set(None);
    }
}
