//! A client as a value: what it has announced, connected and not finished. Descriptors are told by their numbers.

use std::io;

use potemkin_vfio_user::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::descriptors::AdoptError;

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedListener {
    /// Its descriptor.
    pub socket: i32,
    /// Device and inode of its name in the file system.
    pub name: (u64, u64),
}

/// A client between two messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct SavedClient {
    /// Its socket.
    pub socket: i32,
    /// A version was agreed on.
    pub negotiated: bool,
    /// Most bytes of one message's data.
    pub limit: u32,
    /// Number of the server's next request.
    pub next_id: u16,
    /// What has come of the next message.
    pub input: SavedInput,
    /// What its socket did not take.
    #[serde(with = "potemkin_pci::hex")]
    pub backlog: Vec<u8>,
    /// Its interrupts.
    pub irqs: SavedIrqs,
    /// Its windows.
    pub windows: Vec<SavedWindow>,
    /// The files that these are in.
    pub files: Vec<i32>,
    /// Requests of the server's whose replies may still come.
    pub requests: Vec<SavedRequest>,
    /// Requests that were refused.
    pub refused: u64,
}

/// Part of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedInput {
    /// Its bytes.
    #[serde(with = "potemkin_pci::hex")]
    pub bytes: Vec<u8>,
    /// The descriptors that came with them, each with the place of the last byte of its receive.
    pub fds: Vec<(usize, i32)>,
}

/// The interrupts of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedIrqs {
    /// By type, in VFIO's order.
    pub vectors: Vec<Vec<SavedVector>>,
    /// The level of INTx.
    pub level: bool,
    /// The eventfd that masks INTx.
    pub intx_mask: Option<i32>,
    /// The eventfd that unmasks INTx.
    pub intx_unmask: Option<i32>,
}

/// One interrupt.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedVector {
    /// The eventfd where it is delivered.
    pub trigger: Option<i32>,
    /// It is masked.
    pub masked: bool,
    /// It fired and could not be delivered.
    pub pending: bool,
}

/// A window of guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedWindow {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub size: u64,
    /// The device may read it.
    pub read: bool,
    /// The device may write it.
    pub write: bool,
    /// Which of the files it is in.
    pub file: Option<usize>,
    /// Where it begins in that.
    pub offset: u64,
}

/// A request for guest memory by message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedRequest {
    /// Its number.
    pub id: u16,
    /// A write, not a read.
    pub write: bool,
    /// Guest-physical address.
    pub address: u64,
    /// How many bytes.
    pub count: u32,
}

/// Why a client is not restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// A field holds what no client has.
    #[error("saved client: {0}: not of this function, or out of range")]
    Invalid(&'static str),
    /// A descriptor is not there.
    #[error("saved client: {0}")]
    Descriptor(#[from] AdoptError),
    /// The function does not take a window.
    #[error("saved client: windows: {0}")]
    Function(#[from] Errno),
    /// The operating system.
    #[error("saved client: {0}")]
    Os(#[from] io::Error),
}
