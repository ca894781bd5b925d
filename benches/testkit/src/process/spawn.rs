//! What is to be started, and how.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Process;
use super::launcher::launch;
use crate::netns::Netns;
use crate::{Error, Result};

/// A child to be started; a builder.
#[derive(Debug)]
pub struct Spawn {
    name: String,
    command: Command,
    log: Option<PathBuf>,
    netns: Option<Result<OwnedFd>>,
}

/// What a child that ran to its end left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// All of standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

impl Output {
    /// The output, if the exit code was 0.
    pub fn success(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        Err(Error::Command {
            command: self.command,
            status: self.status,
            stderr: format!("{}{}", self.stderr, self.stdout),
        })
    }
}

impl Spawn {
    /// A child that runs `program`, looked up on PATH if it holds no slash. Standard input is empty.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let name = Path::new(program).file_name().unwrap_or(program);
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self {
            name: name.to_string_lossy().into_owned(),
            command,
            log: None,
            netns: None,
        }
    }

    /// The name that errors use; the program's file name by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable in the child's environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable out of the child's environment.
    #[must_use]
    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Starts the child in this folder.
    #[must_use]
    pub fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Where standard output and standard error go, appended. Without it: a temporary file, gone on drop.
    #[must_use]
    pub fn log(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Starts the child in a network namespace.
    #[must_use]
    pub fn in_netns(self, netns: &Netns) -> Self {
        self.in_open_netns(netns.open())
    }

    /// The same for a namespace that was opened before; a failure to open it comes out of the start.
    #[must_use]
    pub(crate) fn in_open_netns(mut self, netns: Result<OwnedFd>) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Starts the child.
    ///
    /// # Errors
    /// When the program cannot be executed, its log cannot be opened, or its namespace not be entered.
    pub fn start(mut self) -> Result<Process> {
        let (log, temporary) = match self.log.take() {
            Some(path) => (path, None),
            None => {
                let file = temporary_file()?;
                (file.path().to_owned(), Some(file))
            }
        };
        let out = append_to(&log)?;
        let err = out.try_clone().map_err(Error::io("cannot share the log"))?;
        self.command.stdout(out).stderr(err);
        self.launch(log, temporary)
    }

    /// Runs the child to its end. Whatever its exit code, that is no error here: see [`Output::success`].
    ///
    /// # Errors
    /// When it cannot be started, or does not end within `limit`; it is killed then.
    pub fn run(mut self, limit: Duration) -> Result<Output> {
        let command = self.command_line();
        let stdout = temporary_file()?;
        let stderr = temporary_file()?;
        self.command
            .stdout(append_to(stdout.path())?)
            .stderr(append_to(stderr.path())?);
        let stdout_path = stdout.path().to_owned();
        let stderr_path = stderr.path().to_owned();
        let mut process = self.launch(stderr_path.clone(), Some(stderr))?;
        let status = process.wait(limit)?;
        Ok(Output {
            command,
            status,
            stdout: read_lossy(&stdout_path)?,
            stderr: read_lossy(&stderr_path)?,
        })
    }

    fn launch(self, log: PathBuf, temporary: Option<tempfile::NamedTempFile>) -> Result<Process> {
        let netns = self.netns.transpose()?;
        let what = format!("cannot start {:?}", self.command.get_program());
        let child = launch(self.command, netns).map_err(Error::io(what))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::Usage("a child without a process id".to_owned()))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(Error::sys(format!("cannot open a pidfd of {}", self.name)))?;
        Ok(Process {
            name: self.name,
            child,
            pidfd,
            log,
            _temporary_log: temporary,
        })
    }

    fn command_line(&self) -> String {
        let mut words: Vec<OsString> = vec![self.command.get_program().to_owned()];
        words.extend(self.command.get_args().map(OsStr::to_owned));
        words.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }
}

fn temporary_file() -> Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix("potemkin-log-")
        .tempfile()
        .map_err(Error::io("cannot make a temporary log"))
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io(format!("cannot open the log {}", path.display())))
}

fn read_lossy(path: &Path) -> Result<String> {
    let bytes =
        std::fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
