//! Writing keys and certificates: all or, if something stands in the way, nothing.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{CertsError, Written};

/// Files to be written to one folder.
#[derive(Debug)]
pub(super) struct Output {
    dir: PathBuf,
    force: bool,
    files: Vec<(PathBuf, String, u32)>,
}

/// Private keys: their owner's only.
const KEY_MODE: u32 = 0o600;
const CERT_MODE: u32 = 0o644;

impl Output {
    pub(super) fn new(dir: &Path, force: bool) -> Self {
        Self {
            dir: dir.to_owned(),
            force,
            files: Vec::new(),
        }
    }

    /// Adds `<stem>.pem` and `<stem>.key`.
    pub(super) fn add(
        &mut self,
        stem: &str,
        identity: String,
        cert_pem: String,
        key_pem: String,
    ) -> Written {
        let cert = self.dir.join(format!("{stem}.pem"));
        let key = self.dir.join(format!("{stem}.key"));
        self.files.push((key.clone(), key_pem, KEY_MODE));
        self.files.push((cert.clone(), cert_pem, CERT_MODE));
        Written {
            identity,
            cert,
            key,
        }
    }

    pub(super) fn write(&self) -> Result<(), CertsError> {
        fs::create_dir_all(&self.dir).map_err(|source| CertsError::Io {
            action: "create",
            path: self.dir.clone(),
            source,
        })?;
        if !self.force {
            self.refuse_existing()?;
        }
        for (path, text, mode) in &self.files {
            write_new(path, text, *mode, self.force).map_err(|source| {
                if source.kind() == io::ErrorKind::AlreadyExists {
                    CertsError::Exists { path: path.clone() }
                } else {
                    CertsError::Io {
                        action: "write",
                        path: path.clone(),
                        source,
                    }
                }
            })?;
        }
        Ok(())
    }

    /// Before the first file is written, so that an old set stays whole.
    fn refuse_existing(&self) -> Result<(), CertsError> {
        match self.files.iter().find(|(path, ..)| path.exists()) {
            Some((path, ..)) => Err(CertsError::Exists { path: path.clone() }),
            None => Ok(()),
        }
    }
}

/// Writes beside the path and moves there, so that no half-written key is ever read. The file has its mode from the start.
/// Without `replace`, a file that exists is an error of kind `AlreadyExists`.
fn write_new(path: &Path, text: &str, mode: u32, replace: bool) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(name);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| move_to(&beside, path, replace));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn move_to(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if replace {
        return fs::rename(from, to);
    }
    // Unlike a rename, a link fails where a file exists.
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}
