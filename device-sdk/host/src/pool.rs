//! The devices of a host, by id.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::served::{End, Served};

/// Fixed when the host starts.
#[derive(Debug, Default)]
pub(crate) struct Pool(BTreeMap<String, Arc<Served>>);

impl Pool {
    pub(crate) fn get(&self, id: &str) -> Option<&Arc<Served>> {
        self.0.get(id)
    }

    /// In order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.0.values()
    }

    /// Tells every session to leave.
    pub(crate) fn dismiss_all(&self, end: &End) {
        for served in self.iter() {
            served.dismiss(end.clone());
        }
    }
}

impl FromIterator<Served> for Pool {
    fn from_iter<I: IntoIterator<Item = Served>>(devices: I) -> Self {
        let by_id = |served: Served| (served.id.clone(), Arc::new(served));
        Self(devices.into_iter().map(by_id).collect())
    }
}
