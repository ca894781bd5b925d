//! A running QEMU.

use std::process::ExitStatus;
use std::time::Duration;

use super::{Console, Qmp, Qtest};
use crate::{Process, Result};

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
