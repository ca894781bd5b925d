//! The granting broker's store: a table that survives the process, and answers late or not at all.

use std::collections::BTreeMap;

use potemkin_broker::{ids::DeviceId, store::DeviceRow};

use crate::clock::Micros;

#[derive(Debug, Default)]
pub(super) struct Store {
    rows: BTreeMap<DeviceId, DeviceRow>,
    /// It answers so late from now on.
    pub(super) late: Micros,
    /// So many commits fail from now on.
    pub(super) failures: u64,
}

impl Store {
    pub(super) fn load(&self) -> Vec<DeviceRow> {
        self.rows.values().cloned().collect()
    }

    /// The device's epoch as it is durable.
    pub(super) fn epoch(&self, device: &DeviceId) -> u64 {
        self.rows.get(device).map_or(0, |row| row.epoch)
    }

    /// The process that asked is gone; what it asked for may still be done.
    pub(super) fn forget_waiting(&mut self) {
        self.failures = 0;
    }

    /// False: the epoch of a device would go back.
    pub(super) fn commit(&mut self, rows: &[DeviceRow]) -> bool {
        let back = rows.iter().any(|row| {
            self.rows
                .get(&row.device)
                .is_some_and(|known| known.epoch > row.epoch)
        });
        if !back {
            let entries = rows.iter().map(|row| (row.device.clone(), row.clone()));
            self.rows.extend(entries);
        }
        !back
    }
}
