//! Children that cannot outlive the test that started them.
//!
//! A child leads a process group of its own, which is killed and reaped on drop; the kernel kills the child
//! when the test's process dies before that. Its output goes to a log file.

mod launcher;
mod spawn;
mod usage;
mod watch;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

pub use spawn::{Output, Spawn};
pub use usage::{Usage, usage_of};
use watch::next_event;
pub(crate) use watch::{Event, Watch, wait_readable};

use crate::{Error, Result};

/// Between two looks at what a child holds.
const USAGE_EVERY: Duration = Duration::from_millis(10);
/// How much of a log an error shows.
const LOG_TAIL_BYTES: usize = 8 * 1024;

/// A running child (or one that has ended and was not asked about yet).
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Readable when the child has ended.
    pidfd: OwnedFd,
    log: PathBuf,
    /// Holds the log's file when the caller named none.
    _temporary_log: Option<tempfile::NamedTempFile>,
}

impl Process {
    /// The name that errors use.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with all that the child wrote to standard output and standard error.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The whole log so far.
    pub fn log(&self) -> Result<String> {
        self.log_from(0)
    }

    /// How long the log is so far, in bytes: where [`Self::log_from`] may start later.
    pub fn log_len(&self) -> Result<u64> {
        let metadata = std::fs::metadata(&self.log);
        Ok(metadata.map_err(self.unreadable())?.len())
    }

    /// The log from that byte on. A log may be too long to be read from the start again and again.
    pub fn log_from(&self, start: u64) -> Result<String> {
        let mut bytes = Vec::new();
        File::open(&self.log)
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(start))?;
                file.read_to_end(&mut bytes)
            })
            .map_err(self.unreadable())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn unreadable(&self) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::io(format!("cannot read {}", self.log.display()))
    }

    /// Whether the child has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.try_status()?.is_none())
    }

    /// Waits until `file` exists and is not empty, and returns its content. It must appear by a rename, or
    /// be complete when it first has a byte; its folder must exist.
    ///
    /// # Errors
    /// With the end of the log when the child ends first or `limit` passes.
    pub fn wait_ready(&mut self, file: &Path, limit: Duration) -> Result<String> {
        let folder = file.parent().filter(|f| !f.as_os_str().is_empty());
        let watch = Watch::folder(folder.unwrap_or(Path::new(".")))?;
        let what = format!("the file {}", file.display());
        self.wait_until(&watch, &what, limit, || {
            std::fs::read_to_string(file).ok().filter(|s| !s.is_empty())
        })
    }

    /// Waits until a complete line of the log contains `needle`, and returns the first such line.
    ///
    /// # Errors
    /// With the end of the log when the child ends without writing it or `limit` passes.
    pub fn wait_log(&mut self, needle: &str, limit: Duration) -> Result<String> {
        self.wait_log_from(0, needle, limit)
    }

    /// The same in what the log holds from that byte on.
    ///
    /// # Errors
    /// As [`Self::wait_log`].
    pub fn wait_log_from(&mut self, start: u64, needle: &str, limit: Duration) -> Result<String> {
        let log = self.log.clone();
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let watch = Watch::file(&log)?;
        let what = format!("a log line with {needle:?}");
        self.wait_until(&watch, &what, limit, || {
            let bytes = std::fs::read(&log).ok()?;
            let text = String::from_utf8_lossy(bytes.get(start..)?);
            let mut lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
            lines
                .find(|l| l.contains(needle))
                .map(|l| l.trim_end().to_owned())
        })
    }

    /// Waits for the child to end by itself.
    ///
    /// # Errors
    /// When `limit` passes; the child then still runs.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_status()? {
                return Ok(status);
            }
            if let Event::TimedOut = next_event(self.pidfd.as_fd(), None, deadline)? {
                return Err(self.timed_out("its end", limit));
            }
        }
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// When `limit` passes; the child then still runs.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Kills the child and its process group, and reaps it. No error if it has ended already.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.kill_group();
        self.child
            .wait()
            .map_err(Error::io(format!("cannot reap {}", self.name)))
    }

    /// Stops the child (SIGSTOP) and returns once all its threads stand still.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options)
            .map_err(Error::sys(format!("cannot wait for {} to stop", self.name)))?;
        if let Some(status) = self.try_status()? {
            return Err(self.exited("it stopped", status));
        }
        Ok(())
    }

    /// Lets a stopped child go on (SIGCONT).
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends any signal to the child alone.
    ///
    /// # Errors
    /// When the child has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_status()? {
            return Err(self.exited(&format!("{signal:?} was sent"), status));
        }
        rustix::process::pidfd_send_signal(&self.pidfd, signal).map_err(Error::sys(format!(
            "cannot send {signal:?} to {}",
            self.name
        )))
    }

    /// Open descriptors, resident memory and threads of the child, now.
    pub fn usage(&self) -> Result<Usage> {
        usage_of(self.pid())
    }

    /// Waits until `settled` holds of what the child holds, and returns that. `/proc` tells nobody of a change: this looks again and again.
    ///
    /// # Errors
    /// With what it holds when `limit` passes, or when the child ends.
    pub fn wait_usage(
        &mut self,
        limit: Duration,
        settled: impl Fn(&Usage) -> bool,
    ) -> Result<Usage> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_status()? {
                return Err(self.exited("it held less", status));
            }
            let usage = self.usage()?;
            if settled(&usage) {
                return Ok(usage);
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(self.timed_out(&format!("another usage than {usage:?}"), limit));
            }
            next_event(self.pidfd.as_fd(), None, deadline.min(now + USAGE_EVERY))?;
        }
    }

    /// Waits until `ready` finds what it looks for; looks again whenever `watch` sees a change.
    pub(crate) fn wait_until<T>(
        &mut self,
        watch: &Watch,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            // The order matters: what a child leaves behind as it ends still counts.
            let ended = self.try_status()?;
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Some(status) = ended {
                return Err(self.exited(what, status));
            }
            if let Event::TimedOut = next_event(self.pidfd.as_fd(), Some(watch), deadline)? {
                return Err(self.timed_out(what, limit));
            }
        }
    }

    pub(crate) fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::io(format!(
            "cannot ask for the status of {}",
            self.name
        )))
    }

    pub(crate) fn pidfd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn exited(&self, what: &str, status: ExitStatus) -> Error {
        Error::Exited {
            who: self.name.clone(),
            status,
            what: what.to_owned(),
            log: self.log_tail(),
        }
    }

    pub(crate) fn timed_out(&self, what: &str, limit: Duration) -> Error {
        Error::TimedOut {
            who: self.name.clone(),
            what: what.to_owned(),
            limit,
            log: self.log_tail(),
        }
    }

    fn log_tail(&self) -> String {
        match File::open(&self.log).and_then(|f| tail(&f)) {
            Ok(text) if text.is_empty() => "(its log is empty)".to_owned(),
            Ok(text) => format!("--- end of {}\n{text}", self.log.display()),
            Err(e) => format!("(its log {} cannot be read: {e})", self.log.display()),
        }
    }

    fn kill_group(&self) {
        let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) else {
            return;
        };
        // Not reaped yet, or members are left: the id is still the group's. ESRCH says that all is over.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        let _ = self.child.wait();
    }
}

fn tail(mut file: &File) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let length = file.metadata()?.len();
    let keep = u64::try_from(LOG_TAIL_BYTES).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(length.saturating_sub(keep)))?;
    let mut bytes = Vec::new();
    file.take(keep).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
