//! Ready-files: how a process tells those who started it that it listens, and where.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A ready-file; dropping it removes the file.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
}

/// Why the ready-file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the ready-file {}", path.display())]
pub struct ReadyError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl ReadyFile {
    /// Writes `addresses` as one line of JSON. Who reads `path` sees all of it or nothing: the file is written beside it and
    /// renamed. An old file of that name is replaced.
    pub fn write(path: &Path, addresses: &impl Serialize) -> Result<Self, ReadyError> {
        write_renamed(path, addresses).map_err(|source| ReadyError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "could not remove the ready-file");
        }
    }
}

fn write_renamed(path: &Path, addresses: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(addresses)?;
    line.push(b'\n');
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(name);
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(&line))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn file_holds_one_json_line_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broker.ready");

        let file =
            ReadyFile::write(&path, &serde_json::json!({"listen": "127.0.0.1:7640"})).unwrap();

        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\"listen\":\"127.0.0.1:7640\"}\n"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn missing_folder_is_an_error_that_names_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/broker.ready");

        let error = ReadyFile::write(&path, &()).unwrap_err();

        assert!(error.to_string().contains("absent/broker.ready"));
    }
}
