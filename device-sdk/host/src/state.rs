//! What a host remembers between runs: the highest epoch seen of each device.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use potemkin_session::ids::Epoch;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Version of the file's format.
const FORMAT: u32 = 1;
/// More than 1,024 devices with the longest ids take.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The folder in which a host keeps its state, locked against other hosts until this is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    epochs: BTreeMap<String, u64>,
    /// Holds the lock.
    _lock: File,
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process uses the folder.
    #[error("state_dir: {} is in use by another host", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("state_dir: cannot {doing} {}", .path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not one of ours. A host must not go on without it: it could obey an epoch that is over.
    #[error("state_dir: {} is damaged: {problem}; restore it, or remove it once no agent uses a device of this host", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epochs {
    format: u32,
    epochs: BTreeMap<String, u64>,
}

impl StateDir {
    /// Opens the folder, making it (0700) if it is not there, and reads what was remembered.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| fail("make", path, source))?;
        let lock = lock(path)?;
        let epochs = read(&path.join("epochs.json"))?;
        Ok(Self {
            path: path.to_owned(),
            epochs,
            _lock: lock,
        })
    }

    /// The highest epoch remembered for a device; 0: none.
    pub(crate) fn highest(&self, device: &str) -> Epoch {
        Epoch(self.epochs.get(device).copied().unwrap_or_default())
    }

    /// Remembers `epoch` for `device`: on disk when this returns. Blocks for as long as the disk takes. An epoch below the one
    /// remembered changes nothing.
    pub(crate) fn raise(&mut self, device: &str, epoch: Epoch) -> Result<(), StateError> {
        if self.highest(device) >= epoch {
            return Ok(());
        }
        let before = self.epochs.insert(device.to_owned(), epoch.0);
        let written = self.write();
        if written.is_err() {
            // What is in memory must not claim more than what is on disk.
            match before {
                Some(before) => self.epochs.insert(device.to_owned(), before),
                None => self.epochs.remove(device),
            };
        }
        written
    }

    fn write(&self) -> Result<(), StateError> {
        let content = Epochs {
            format: FORMAT,
            epochs: self.epochs.clone(),
        };
        let (file, beside) = (
            self.path.join("epochs.json"),
            self.path.join("epochs.json.tmp"),
        );
        let mut bytes =
            serde_json::to_vec(&content).map_err(|source| fail("encode", &file, source.into()))?;
        bytes.push(b'\n');
        write_synced(&beside, &bytes).map_err(|source| fail("write", &beside, source))?;
        fs::rename(&beside, &file).map_err(|source| fail("rename", &beside, source))?;
        // Without this the rename itself may be lost with the power.
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| fail("sync", &self.path, source))
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn lock(folder: &Path) -> Result<File, StateError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| fail("open", &path, source))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse {
            path: folder.to_owned(),
        }),
        Err(errno) => Err(fail("lock", &path, errno.into())),
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, u64>, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(fail("open", path, source)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| fail("read", path, source))?;
    let damaged = |problem: String| StateError::Damaged {
        path: path.to_owned(),
        problem,
    };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let epochs: Epochs =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if epochs.format != FORMAT {
        return Err(damaged(format!(
            "format is {}, this version reads {FORMAT}",
            epochs.format
        )));
    }
    Ok(epochs.epochs)
}

fn fail(doing: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn raised_epoch_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");

        let mut state = StateDir::open(&path).unwrap();
        assert_eq!(state.highest("edu-0"), Epoch(0));
        state.raise("edu-0", Epoch(7)).unwrap();
        state.raise("edu-1", Epoch(2)).unwrap();
        state.raise("edu-0", Epoch(6)).unwrap();
        drop(state);

        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.highest("edu-0"), Epoch(7));
        assert_eq!(state.highest("edu-1"), Epoch(2));
        assert!(!path.join("epochs.json.tmp").exists());
    }

    #[test]
    fn folder_and_files_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");

        let mut state = StateDir::open(&path).unwrap();
        state.raise("edu-0", Epoch(1)).unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("epochs.json")), 0o600);
        assert_eq!(mode(&path.join("lock")), 0o600);
    }

    #[test]
    fn second_host_in_the_same_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = StateDir::open(folder.path()).unwrap();

        let error = StateDir::open(folder.path()).unwrap_err();

        assert!(matches!(error, StateError::InUse { .. }));
    }

    #[test]
    fn damaged_file_is_an_error_and_not_epoch_0() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["", "{", r#"{"format":2,"epochs":{}}"#, r#"{"format":1}"#] {
            fs::write(folder.path().join("epochs.json"), content).unwrap();

            let error = StateDir::open(folder.path()).unwrap_err();

            assert!(matches!(error, StateError::Damaged { .. }), "{content}");
        }
    }

    #[test]
    fn failed_write_raises_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(folder.path()).unwrap();
        // A folder in the way of the temporary file fails even for root.
        fs::create_dir(folder.path().join("epochs.json.tmp")).unwrap();

        assert!(state.raise("edu-0", Epoch(7)).is_err());

        assert_eq!(state.highest("edu-0"), Epoch(0));
    }
}
