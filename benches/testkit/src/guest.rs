//! A Linux guest that runs a script and powers off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::initramfs::{DONE_LINE, Initramfs, READY_LINE};
use crate::qemu::{Machine, Vm};
use crate::{Error, Result, Spawn, Vmm};

/// How long a compiler may take.
const COMPILE_LIMIT: Duration = Duration::from_secs(120);
/// Between the end of QEMU's process and the end of its console.
const CONSOLE_END_LIMIT: Duration = Duration::from_secs(10);

/// A guest to be started; a builder.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    kernel: PathBuf,
    initramfs: Initramfs,
    kernel_arguments: String,
}

/// A guest that was started.
#[derive(Debug)]
pub struct RunningGuest {
    /// The machine it runs on.
    pub vm: Vm,
    /// Holds the initramfs.
    _initrd: tempfile::NamedTempFile,
}

/// What a guest left that has powered off.
#[derive(Debug, Clone)]
pub struct Report {
    /// All that it wrote to its serial console.
    pub console: String,
    /// The exit code of its script.
    pub status: u8,
}

impl Guest {
    /// A guest with one emulated CPU and the script `script`.
    #[must_use]
    pub fn new(vmm: &Vmm, script: &str) -> Self {
        Self {
            machine: Machine::tcg(vmm),
            kernel: vmm.kernel.clone(),
            initramfs: Initramfs::new(vmm).script(script),
            kernel_arguments: String::new(),
        }
    }

    /// Changes the machine: adds devices, a namespace, a log.
    #[must_use]
    pub fn machine(mut self, change: impl FnOnce(Machine) -> Machine) -> Self {
        self.machine = change(self.machine);
        self
    }

    /// Adds an executable file, at an absolute path in the guest (`/bin` is on its PATH).
    #[must_use]
    pub fn file(mut self, path: &str, source: &Path) -> Self {
        self.initramfs = self.initramfs.file(path, source);
        self
    }

    /// Adds a program of the unpacked Debian packages to `/bin`, with its libraries; `program` is its path there, such as
    /// `usr/bin/lspci`.
    #[must_use]
    pub fn program(mut self, program: &str) -> Self {
        self.initramfs = self.initramfs.program(program);
        self
    }

    /// Loads a kernel module, and what it needs, before the script.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.initramfs = self.initramfs.module(name);
        self
    }

    /// Adds to the kernel's command line.
    #[must_use]
    pub fn kernel_arguments(mut self, arguments: &str) -> Self {
        self.kernel_arguments = format!("{} {arguments}", self.kernel_arguments);
        self
    }

    /// Starts the guest.
    ///
    /// # Errors
    /// When its initramfs cannot be built, or QEMU does not start.
    pub fn start(self) -> Result<RunningGuest> {
        let initrd = tempfile::Builder::new()
            .prefix("potemkin-initrd-")
            .tempfile()
            .map_err(Error::io("cannot make an initramfs file"))?;
        std::fs::write(initrd.path(), self.initramfs.build()?)
            .map_err(Error::io("cannot write an initramfs"))?;
        // A panic resets at once, and a reset ends QEMU: a guest that fails does not run into a limit.
        let command_line = format!("console=ttyS0 quiet panic=-1{}", self.kernel_arguments);
        let vm = self
            .machine
            .linux(&self.kernel, initrd.path(), &command_line)
            .start()?;
        Ok(RunningGuest {
            vm,
            _initrd: initrd,
        })
    }

    /// Starts the guest and waits until it has powered off.
    ///
    /// # Errors
    /// As [`Guest::start`] and [`RunningGuest::wait_power_off`].
    pub fn run(self, limit: Duration) -> Result<Report> {
        self.start()?.wait_power_off(limit)
    }
}

impl RunningGuest {
    /// Waits until the guest's user space is up and its script begins.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        self.wait_line(READY_LINE, limit).map(drop)
    }

    /// Waits for the next console line that contains `needle`, and returns it.
    pub fn wait_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        self.vm.console().wait_line(needle, limit)
    }

    /// Sends a line, which a script takes with `read`.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        self.vm.console().send_line(line)
    }

    /// Waits until the guest has powered off.
    ///
    /// # Errors
    /// With the console when `limit` passes, or when the guest ended before its script did (a kernel panic).
    pub fn wait_power_off(mut self, limit: Duration) -> Result<Report> {
        let waited = self.vm.wait(limit);
        if let Err(Error::TimedOut {
            who,
            what,
            limit,
            log,
        }) = waited
        {
            let log = format!("{log}\n--- console\n{}", self.vm.console().text());
            return Err(Error::TimedOut {
                who,
                what,
                limit,
                log,
            });
        }
        waited?;
        self.vm.console().wait_closed(CONSOLE_END_LIMIT)?;
        Report::parse(self.vm.console().text())
    }
}

impl Report {
    fn parse(console: String) -> Result<Self> {
        let code = console.lines().rev().find_map(|line| {
            let at = line.find(DONE_LINE)?;
            line[at + DONE_LINE.len()..].trim().parse().ok()
        });
        match code {
            Some(status) => Ok(Self { console, status }),
            None => Err(Error::peer(
                "guest",
                format!("it ended before its script did:\n{console}"),
            )),
        }
    }

    /// The lines `RESULT name value`, by name; of equal names the last counts.
    #[must_use]
    pub fn results(&self) -> BTreeMap<String, String> {
        let line = |line: &str| {
            let rest = line.trim().strip_prefix("RESULT ")?;
            let (name, value) = rest.split_once(' ')?;
            Some((name.to_owned(), value.to_owned()))
        };
        self.console.lines().filter_map(line).collect()
    }
}

/// The folder with the sources of programs for the guest.
#[must_use]
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest")
}

/// Compiles the guest program `NAME.c` of [`sources`] to a static executable in `folder`.
///
/// # Errors
/// With the compiler's words. It needs `cc` and a static C library.
pub fn compile(name: &str, folder: &Path) -> Result<PathBuf> {
    let program = folder.join(name);
    Spawn::new("cc")
        .args([
            "-static", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o",
        ])
        .arg(&program)
        .arg(sources().join(format!("{name}.c")))
        .run(COMPILE_LIMIT)?
        .success()?;
    Ok(program)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn results_and_the_exit_code_are_found_between_kernel_messages() {
        let console = "[    1.0] pci\r\nGUEST READY\r\nRESULT id 0x010000ed\r\nRESULT a b c\r\nGUEST DONE 3\r\n[   2.0] off";

        let report = Report::parse(console.to_owned()).unwrap();

        assert_eq!(report.status, 3);
        let results = report.results();
        assert_eq!(results["id"], "0x010000ed");
        assert_eq!(results["a"], "b c");
    }

    #[test]
    fn a_guest_that_panicked_is_an_error_with_its_console() {
        let error = Report::parse("Kernel panic - not syncing".to_owned()).unwrap_err();

        assert!(error.to_string().contains("not syncing"), "{error}");
    }
}
