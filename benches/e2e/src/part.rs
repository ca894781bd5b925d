//! One process of a deployment, which can be started again as it was.

use std::{net::SocketAddr, path::PathBuf};

use potemkin_testkit::{Process, Result, Spawn, netns::Netns};
use serde_json::Value;

use crate::stack::{LIMIT, address, start_role};

/// A process with its configuration, its state and its place.
#[derive(Debug)]
pub struct Part {
    /// The process, or what is left of it.
    pub process: Process,
    recipe: Recipe,
    ready: Value,
}

/// How a part is started.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// The program with all roles.
    pub(crate) program: PathBuf,
    /// Where configuration, log and sockets are.
    pub(crate) dir: PathBuf,
    /// Its role's word on the command line.
    pub(crate) role: &'static str,
    /// What its files are called.
    pub(crate) name: &'static str,
}

impl Recipe {
    fn config(&self) -> PathBuf {
        self.dir.join(format!("{}.toml", self.name))
    }

    fn start(&self, netns: Option<&Netns>) -> Result<(Process, Value)> {
        let names = (self.role, self.name);
        let spawn = Spawn::new(&self.program);
        start_role(spawn, &self.dir, names, &self.config(), netns)
    }
}

impl Part {
    pub(crate) fn start(recipe: Recipe, netns: Option<&Netns>) -> Result<Self> {
        let (process, ready) = recipe.start(netns)?;
        Ok(Self {
            process,
            recipe,
            ready,
        })
    }

    /// Starts it again where it was, with what it has stored, once it has ended.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn restart(&mut self, netns: Option<&Netns>) -> Result<()> {
        (self.process, self.ready) = self.recipe.start(netns)?;
        Ok(())
    }

    /// Tells it to stop, and waits until it has.
    ///
    /// # Errors
    /// When it does not, or says that something went wrong.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.process.terminate(LIMIT)?;
        assert!(status.success(), "{} ended with {status}", self.recipe.name);
        Ok(())
    }

    /// Where its metrics are.
    pub(crate) fn metrics(&self) -> Result<SocketAddr> {
        address(&self.ready, "metrics")
    }
}
