//! The folder of a measurement, and the processes that it starts there.
//!
//! Each process is this very program in another role. None outlives the measurement: it is killed when its handle is dropped and,
//! by the kernel, when this process dies.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potemkin_testkit::{Process, Spawn};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::args::RoleName;
use crate::error::BenchError;

/// Longest that a process may take until it listens. It waits for the processes before it, on one slow CPU.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How much of each log is shown when a measurement fails.
const TAIL_LINES: usize = 20;

/// A folder for configurations, ready-files, sockets and logs. Removed on drop unless it is kept.
#[derive(Debug)]
pub(crate) struct Workspace {
    folder: TempDir,
    /// This program.
    program: PathBuf,
}

/// A process that listens, and where.
#[derive(Debug)]
pub(crate) struct Listening<T> {
    /// Ends with this value.
    pub(crate) process: Process,
    pub(crate) addresses: T,
}

impl Workspace {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let folder = tempfile::Builder::new()
            .prefix("potemkin-bench-")
            .tempdir()
            .map_err(BenchError::io("cannot make a temporary folder"))?;
        let program =
            std::env::current_exe().map_err(BenchError::io("cannot find this program"))?;
        Ok(Self { folder, program })
    }

    /// The path of a file in the folder.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a process with a configuration of its own, in the way that the role's binary is started, and waits until it listens.
    pub(crate) fn start_configured<T: DeserializeOwned>(
        &self,
        role: RoleName,
        instance: &str,
        config: &str,
    ) -> Result<Listening<T>, BenchError> {
        let name = format!("{}-{instance}", role.as_str());
        let config_file = self.file(format!("{name}.toml"));
        fs::write(&config_file, config).map_err(BenchError::io(format!(
            "cannot write {}",
            config_file.display()
        )))?;
        let ready_file = self.file(format!("{name}.ready"));
        let flags = [OsStr::new("--config"), config_file.as_os_str()];
        let ready = [OsStr::new("--ready-file"), ready_file.as_os_str()];
        self.start(role, &name, &ready_file, flags.into_iter().chain(ready))
    }

    /// Starts a process without a configuration, which takes its ready-file and `arg`, and waits until it listens. `name` is the stem of its
    /// files.
    pub(crate) fn start_plain<T: DeserializeOwned>(
        &self,
        role: RoleName,
        name: &str,
        arg: &OsStr,
    ) -> Result<Listening<T>, BenchError> {
        let ready_file = self.file(format!("{name}.ready"));
        self.start(role, name, &ready_file, [ready_file.as_os_str(), arg])
    }

    fn start<'a, T: DeserializeOwned>(
        &self,
        role: RoleName,
        name: &str,
        ready_file: &Path,
        args: impl IntoIterator<Item = &'a OsStr>,
    ) -> Result<Listening<T>, BenchError> {
        let mut process = Spawn::new(&self.program)
            .name(name)
            .args(["role", role.as_str()])
            .args(args)
            .log(self.file(format!("{name}.log")))
            .start()?;
        let content = process.wait_ready(ready_file, READY_LIMIT)?;
        let addresses = serde_json::from_str(&content).map_err(|source| BenchError::Ready {
            who: name.to_owned(),
            content,
            source,
        })?;
        Ok(Listening { process, addresses })
    }

    /// Keeps the folder and says where it is.
    pub(crate) fn keep(self) -> PathBuf {
        self.folder.keep()
    }

    /// The end of every log that is not empty, by name.
    pub(crate) fn log_tails(&self) -> String {
        let mut logs: Vec<_> = fs::read_dir(self.folder.path())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension() == Some(OsStr::new("log")))
            .collect();
        logs.sort();
        let tails = logs.iter().filter_map(|log| tail(log));
        tails.collect()
    }
}

fn tail(log: &Path) -> Option<String> {
    let bytes = fs::read(log).ok().filter(|bytes| !bytes.is_empty())?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Some(format!(
        "--- end of {}\n{}\n",
        log.display(),
        end.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn log_tails_show_the_last_lines_of_logs_that_say_something() {
        let workspace = Workspace::new().unwrap();
        let long: String = (0..TAIL_LINES + 5).map(|n| format!("line {n}\n")).collect();
        fs::write(workspace.file("a.log"), long).unwrap();
        fs::write(workspace.file("b.log"), "").unwrap();
        fs::write(workspace.file("c.toml"), "secret").unwrap();

        let tails = workspace.log_tails();

        assert!(
            tails.contains("line 24") && tails.contains("line 5\n"),
            "{tails}"
        );
        assert!(!tails.contains("line 4\n"), "{tails}");
        assert!(
            !tails.contains("b.log") && !tails.contains("secret"),
            "{tails}"
        );
    }

    #[test]
    fn folder_is_gone_after_drop_and_stays_when_kept() {
        let dropped = Workspace::new().unwrap().file(".");
        let kept = Workspace::new().unwrap().keep();

        assert!(!dropped.exists());
        assert!(kept.exists());
        fs::remove_dir_all(kept).unwrap();
    }
}
