//! What survives a broker's restart: for each device the highest epoch handed out, and its claim.

mod redb_store;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod memory;

use std::path::PathBuf;

use crate::ids::{ClaimId, DeviceId, PeerName};

pub use redb_store::RedbStore;

#[cfg(test)]
pub(crate) use memory::MemoryStore;

/// The layout that this broker reads and writes.
pub const FORMAT_VERSION: u64 = 1;

/// What is kept of one device. A row is written whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// The device.
    pub device: DeviceId,
    /// The highest epoch that may have been handed out. Never goes down.
    pub epoch: u64,
    /// Who holds the device.
    pub claim: Option<ClaimRow>,
}

/// What is kept of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// Names it.
    pub id: ClaimId,
    /// Identity of the agent that holds it.
    pub owner: PeerName,
    /// It was taken by an attach, and ends with the session.
    pub implicit: bool,
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file could not be opened.
    #[error("cannot open the store {path:?}")]
    Open {
        /// The store's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has it open.
    #[error("the store {path:?} is in use: is another broker running with this state_dir?")]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// A newer broker wrote it.
    #[error(
        "the store {path:?} has format {found}, this broker reads format {FORMAT_VERSION}: start a newer broker"
    )]
    NewerFormat {
        /// The store's file.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// The store's contents cannot be understood.
    #[error("the store's entry for {device:?} is damaged: {what}")]
    Damaged {
        /// The key of the entry.
        device: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A row would take an epoch back. Nothing of the commit was written.
    #[error("the epoch of {device} cannot go back from {stored} to {asked}")]
    EpochWentBack {
        /// The device.
        device: DeviceId,
        /// The epoch in the store.
        stored: u64,
        /// The epoch of the row.
        asked: u64,
    },
    /// Reading or writing failed.
    #[error("the store failed")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A durable table of [`DeviceRow`]s. Calls block; the broker makes them on a thread that may.
pub trait Store: Send + Sync + 'static {
    /// Everything that was committed, in order of device id.
    fn load(&self) -> Result<Vec<DeviceRow>, StoreError>;

    /// Writes rows, replacing those of the same devices: all or nothing, and durable when this returns. A row whose epoch
    /// is below the stored one fails the whole commit.
    fn commit(&self, rows: &[DeviceRow]) -> Result<(), StoreError>;
}
