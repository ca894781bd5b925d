//! A store that forgets: for tests of what stands above it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{DeviceRow, Store, StoreError};
use crate::ids::DeviceId;

/// Clones share their contents, so that a test can restart a broker on them.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore {
    rows: Arc<Mutex<BTreeMap<DeviceId, DeviceRow>>>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Vec<DeviceRow>, StoreError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.values().cloned().collect())
    }

    fn commit(&self, batch: &[DeviceRow]) -> Result<(), StoreError> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = rows.clone();
        for row in batch {
            let stored = next.get(&row.device).map_or(0, |r| r.epoch);
            if row.epoch < stored {
                return Err(StoreError::EpochWentBack {
                    device: row.device.clone(),
                    stored,
                    asked: row.epoch,
                });
            }
            next.insert(row.device.clone(), row.clone());
        }
        *rows = next;
        Ok(())
    }
}
