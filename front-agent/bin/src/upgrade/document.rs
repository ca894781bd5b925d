//! What an agent hands over: a document in a sealed memfd, and the descriptors that it names.

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use potemkin_front_core::{SavedFunction, Target};
use potemkin_service::admin::{AfterLoss, AttachRequest};
use potemkin_vfio_server::{AdoptError, Inherited, SavedClient, SavedListener};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create},
    process::geteuid,
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{bus::SavedBus, checks::MAX_DEVICES};

/// The number of the format that this program writes. It is raised when a field changes its meaning, or one is added without which a device
/// would not be what it was; fields that a reader does not know are skipped.
pub(crate) const FORMAT: u32 = 1;
/// Tells a program that it takes over, and the number of the memfd's descriptor.
pub(super) const VARIABLE: &str = "POTEMKIN_FRONT_UPGRADE_STATE";
/// Longest document: far more than all devices have at a time.
const BYTES_MAX: u64 = 1 << 30;
/// What nobody can change any more.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// All of an agent.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Document {
    pub(super) format: u32,
    /// By which run of the agent brokers know it.
    #[serde(default)]
    pub(super) incarnation: Option<[u8; 16]>,
    /// When the devices began to come to a stand.
    pub(super) begun_ns: u64,
    pub(super) admin: SavedAdmin,
    /// Who asked for the upgrade, and waits for the answer.
    #[serde(default)]
    pub(super) operator: Option<i32>,
    pub(super) devices: Vec<SavedDevice>,
    /// Devices that could not be attached so far.
    #[serde(default)]
    pub(super) waiting: Vec<AttachRequest>,
    /// All descriptors.
    pub(super) descriptors: Vec<i32>,
}

/// The admin socket.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct SavedAdmin {
    pub(super) path: PathBuf,
    pub(super) listener: SavedListener,
}

/// A device and its VMM.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SavedDevice {
    pub(super) name: String,
    pub(super) target: SavedTarget,
    pub(super) socket: PathBuf,
    /// What comes after a session that is lost.
    #[serde(default)]
    pub(super) after_loss: Option<AfterLoss>,
    pub(super) listener: SavedListener,
    pub(super) client: Option<SavedClient>,
    #[serde(default)]
    pub(super) bus: SavedBus,
    pub(super) function: SavedFunction,
    /// When it was saved, by the system's monotonic clock.
    pub(super) at_ns: u64,
    /// Its descriptors.
    pub(super) descriptors: Vec<i32>,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct SavedTarget {
    pub(super) device: Option<String>,
    pub(super) selector: Option<String>,
}

impl From<&Target> for SavedTarget {
    fn from(target: &Target) -> Self {
        match target {
            Target::Device(id) => Self {
                device: Some(id.clone()),
                selector: None,
            },
            // Without a class the text begins with one that is empty.
            Target::Selector { .. } => Self {
                device: None,
                selector: Some(target.to_string().replacen("class=,", "", 1)),
            },
        }
    }
}

/// Why a program does not take over.
#[derive(Debug, Error)]
pub(crate) enum DocumentError {
    #[error("{VARIABLE}: not the number of a descriptor")]
    Number,
    #[error("{VARIABLE}")]
    Descriptor(#[from] AdoptError),
    #[error("the state that was handed over")]
    Io(#[from] io::Error),
    #[error("the state that was handed over is not a sealed memfd of this user's")]
    Untrusted,
    #[error("the state that was handed over")]
    Text(#[from] serde_json::Error),
    #[error("the state that was handed over has format {0}; this program reads {FORMAT}")]
    Format(u32),
    #[error("the state that was handed over has more than {MAX_DEVICES} devices")]
    TooMany,
}

/// Only which format it is.
#[derive(Deserialize)]
struct Envelope {
    format: u32,
}

impl Document {
    /// A sealed memfd that holds it.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = memfd_create("potemkin-upgrade", flags)?;
        let mut file = File::from(memfd);
        file.write_all(&serde_json::to_vec(self)?)?;
        fcntl_add_seals(&file, SEALS)?;
        Ok(file.into())
    }

    fn read(memfd: OwnedFd) -> Result<Self, DocumentError> {
        let stat = fstat(&memfd).map_err(io::Error::from)?;
        let seals = fcntl_get_seals(&memfd).map_err(|_| DocumentError::Untrusted)?;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if !seals.contains(SEALS) || stat.st_uid != geteuid().as_raw() || size > BYTES_MAX {
            return Err(DocumentError::Untrusted);
        }
        let mut text = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        File::from(memfd).read_exact_at(&mut text, 0)?;
        let Envelope { format } = serde_json::from_slice(&text)?;
        if format != FORMAT {
            return Err(DocumentError::Format(format));
        }
        let document: Self = serde_json::from_slice(&text)?;
        if document.devices.len() > MAX_DEVICES || document.waiting.len() > MAX_DEVICES {
            return Err(DocumentError::TooMany);
        }
        Ok(document)
    }
}

/// What another program has handed over to this one, if it has.
pub(crate) fn inherited() -> Result<Option<(Document, Inherited)>, DocumentError> {
    let Some(number) = env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let number = number.to_str().and_then(|text| text.parse().ok());
    let number: i32 = number.ok_or(DocumentError::Number)?;
    let document = Document::read(Inherited::adopt([number])?.take(number)?)?;
    let inherited = Inherited::adopt(document.descriptors.iter().copied())?;
    Ok(Some((document, inherited)))
}

/// The system's monotonic clock, which goes on from one program to the next.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let rest = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// When the clock showed this.
pub(super) fn instant(at_ns: u64) -> Instant {
    let now = Instant::now();
    let passed = Duration::from_nanos(now_ns().saturating_sub(at_ns));
    now.checked_sub(passed).unwrap_or(now)
}
