//! The store in one file, by redb.

use std::path::Path;

use prost::Message;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{ClaimRow, DeviceRow, FORMAT_VERSION, Store, StoreError};
use crate::ids::{ClaimId, DeviceId};

/// Names to numbers: the format's version.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Device ids to [`Record`]s.
const DEVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("devices");
/// The key of the format's version in [`META`].
const VERSION_KEY: &str = "format_version";
/// Memory for pages, in bytes. The table is read once, at start.
const CACHE_BYTES: usize = 1 << 20;

/// A [`Store`] in a file of its own.
#[derive(Debug)]
pub struct RedbStore {
    database: Database,
}

/// The stored value of a device. Protobuf, so that a field can be added without a new format.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    /// 16 bytes, or empty: not claimed.
    #[prost(bytes = "vec", tag = "2")]
    claim_id: Vec<u8>,
    #[prost(string, tag = "3")]
    owner: String,
    #[prost(bool, tag = "4")]
    implicit: bool,
}

impl RedbStore {
    /// Opens the store at `path`, or makes it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| open_error(path, error))?;
        let store = Self { database };
        match store.version().map_err(StoreError::Io)? {
            None => store.set_version(FORMAT_VERSION).map_err(StoreError::Io)?,
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                return Err(StoreError::NewerFormat {
                    path: path.to_owned(),
                    found,
                });
            }
        }
        Ok(store)
    }

    fn version(&self) -> Result<Option<u64>, BoxError> {
        let read = self.database.begin_read()?;
        match read.open_table(META) {
            Ok(table) => Ok(table.get(VERSION_KEY)?.map(|v| v.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Also makes the tables, so that reading need not care.
    fn set_version(&self, version: u64) -> Result<(), BoxError> {
        let write = self.database.begin_write()?;
        write.open_table(META)?.insert(VERSION_KEY, version)?;
        write.open_table(DEVICES)?;
        write.commit()?;
        Ok(())
    }

    fn read_records(&self) -> Result<Vec<(String, Vec<u8>)>, BoxError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(DEVICES)?;
        let mut records = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            records.push((key.value().to_owned(), value.value().to_vec()));
        }
        Ok(records)
    }
}

impl Store for RedbStore {
    fn load(&self) -> Result<Vec<DeviceRow>, StoreError> {
        let records = self.read_records().map_err(StoreError::Io)?;
        records.iter().map(|(k, v)| row_of(k, v)).collect()
    }

    fn commit(&self, rows: &[DeviceRow]) -> Result<(), StoreError> {
        // An early return drops the transaction: nothing of it is written.
        let write = self.database.begin_write().map_err(io)?;
        {
            let mut table = write.open_table(DEVICES).map_err(io)?;
            for row in rows {
                check_epoch(&table, row)?;
                table
                    .insert(row.device.as_str(), record_of(row).as_slice())
                    .map_err(io)?;
            }
        }
        write.commit().map_err(io)
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn io(error: impl Into<BoxError>) -> StoreError {
    StoreError::Io(error.into())
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path },
        error => StoreError::Open {
            path,
            source: error.into(),
        },
    }
}

fn check_epoch(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    row: &DeviceRow,
) -> Result<(), StoreError> {
    let Some(value) = table.get(row.device.as_str()).map_err(io)? else {
        return Ok(());
    };
    let stored = row_of(row.device.as_str(), value.value())?.epoch;
    if row.epoch < stored {
        return Err(StoreError::EpochWentBack {
            device: row.device.clone(),
            stored,
            asked: row.epoch,
        });
    }
    Ok(())
}

fn record_of(row: &DeviceRow) -> Vec<u8> {
    let claim = row.claim.as_ref();
    Record {
        epoch: row.epoch,
        claim_id: claim.map_or_else(Vec::new, |c| c.id.to_bytes().to_vec()),
        owner: claim.map_or_else(String::new, |c| c.owner.to_string()),
        implicit: claim.is_some_and(|c| c.implicit),
    }
    .encode_to_vec()
}

fn row_of(key: &str, value: &[u8]) -> Result<DeviceRow, StoreError> {
    let damaged = |what| StoreError::Damaged {
        device: key.to_owned(),
        what,
    };
    let device = DeviceId::parse(key).map_err(|_| damaged("its key is no device id"))?;
    let record = Record::decode(value).map_err(|_| damaged("its value is no record"))?;
    let claim = match record.claim_id.as_slice() {
        [] => None,
        id => Some(ClaimRow {
            id: ClaimId::from_slice(id).ok_or_else(|| damaged("its claim id is not 16 bytes"))?,
            owner: record.owner.as_str().into(),
            implicit: record.implicit,
        }),
    };
    Ok(DeviceRow {
        device,
        epoch: record.epoch,
        claim,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.redb");
        let store = RedbStore::open(&path).unwrap();
        store.set_version(FORMAT_VERSION + 1).unwrap();
        drop(store);

        let error = RedbStore::open(&path).unwrap_err();

        assert!(matches!(error, StoreError::NewerFormat { found: 2, .. }));
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn a_second_opening_is_refused_as_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.redb");
        let _first = RedbStore::open(&path).unwrap();
        assert!(matches!(
            RedbStore::open(&path).unwrap_err(),
            StoreError::InUse { .. }
        ));
    }

    #[test]
    fn a_file_that_is_no_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.redb");
        std::fs::write(&path, vec![0x5a; 8192]).unwrap();
        assert!(matches!(
            RedbStore::open(&path).unwrap_err(),
            StoreError::Open { .. }
        ));
    }

    #[test]
    fn damaged_entries_are_errors_that_name_the_device() {
        let bad_value = row_of("edu-0", &[0xff, 0xff]).unwrap_err();
        assert!(bad_value.to_string().contains("edu-0"), "{bad_value}");
        let short_claim = Record {
            claim_id: vec![1, 2],
            ..Record::default()
        };
        assert!(row_of("edu-0", &short_claim.encode_to_vec()).is_err());
        assert!(row_of("Not An Id", &[]).is_err());
    }
}
