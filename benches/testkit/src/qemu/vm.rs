//! A running QEMU.

use std::fs::{self, File, OpenOptions};
use std::process::ExitStatus;
use std::time::Duration;

use super::{Console, Qmp, Qtest};
use crate::{Error, Process, Result};

/// A running QEMU. The parts are public so that they can be used side by side.
#[derive(Debug)]
pub struct Vm {
    /// The QEMU process.
    pub process: Process,
    /// Its monitor.
    pub qmp: Qmp,
    /// Its qtest socket, in a machine made by [`super::Machine::qtest`].
    pub(super) qtest: Option<Qtest>,
    /// The first serial port, in a machine made by [`super::Machine::tcg`].
    pub(super) console: Option<Console>,
    /// Holds the sockets.
    #[expect(dead_code, reason = "removes the folder on drop")]
    pub(super) folder: tempfile::TempDir,
}

impl Vm {
    /// The qtest connection.
    ///
    /// # Panics
    /// In a machine that was not made by [`super::Machine::qtest`].
    pub fn qtest(&mut self) -> &mut Qtest {
        self.qtest
            .as_mut()
            .expect("only a qtest machine has a qtest socket")
    }

    /// The serial console.
    ///
    /// # Panics
    /// In a machine that was not made by [`super::Machine::tcg`].
    pub fn console(&mut self) -> &mut Console {
        self.console
            .as_mut()
            .expect("only a machine with a CPU has a console")
    }

    /// The file that guest memory is: what lies below 2 GiB is at its own address. For whoever has to look faster than by qtest.
    ///
    /// # Errors
    /// When memory is anonymous.
    pub fn memory(&self) -> Result<File> {
        let folder = format!("/proc/{}/fd", self.process.pid());
        let failed = || Error::io(format!("cannot look through {folder}"));
        for entry in fs::read_dir(&folder).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            // One that was closed meanwhile is not it.
            let name = fs::read_link(&path).unwrap_or_default();
            if name.starts_with("/memfd:memory-backend-memfd (deleted)") {
                let open = OpenOptions::new().read(true).write(true).open(&path);
                return open.map_err(Error::io("cannot open guest memory"));
            }
        }
        Err(Error::Usage("guest memory is not shared".to_owned()))
    }

    /// Ends QEMU by its monitor and waits for it.
    pub fn quit(mut self, limit: Duration) -> Result<ExitStatus> {
        self.qmp.quit()?;
        self.process.wait(limit)
    }

    /// Waits until QEMU ends by itself, as it does when its guest powers off or resets.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.process.wait(limit)
    }
}
