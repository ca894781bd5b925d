//! What an agent does to be upgraded.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use potemkin_front_core::agent_incarnation;
use potemkin_service::{admin::AttachRequest, runtime::chain};
use potemkin_vfio_server::Bundle;
use tokio::task::JoinSet;

use super::{
    document::{Document, FORMAT, SavedAdmin, SavedDevice, SavedTarget, now_ns},
    freeze::{Frozen, Standing, freeze},
    program::Program,
};
use crate::{
    agent::{Agent, Slot},
    settings,
};

/// How long devices may take to come to a stand: an access has its deadline, up to 4 s, and DMA by message as much.
const STAND_TIMEOUT: Duration = Duration::from_secs(10);

/// What operators have the agent do at the moment: either any number of things, or an upgrade.
#[derive(Debug, Default)]
pub(crate) struct Activity(Mutex<Doing>);

#[derive(Debug, Default)]
struct Doing {
    operations: usize,
    upgrade: bool,
}

/// Keeps upgrades away.
#[derive(Debug)]
pub(crate) struct Operation<'a>(&'a Activity);

/// Keeps operators away.
#[derive(Debug)]
struct Upgrading<'a>(&'a Activity);

impl Activity {
    /// Begins an operation.
    pub(crate) fn operate(&self) -> Result<Operation<'_>, String> {
        let mut doing = self.doing();
        if doing.upgrade {
            return Err("the agent is being upgraded; try again".to_owned());
        }
        doing.operations += 1;
        Ok(Operation(self))
    }

    fn upgrade(&self) -> Result<Upgrading<'_>, String> {
        let mut doing = self.doing();
        if doing.upgrade {
            return Err("the agent is being upgraded already".to_owned());
        }
        if doing.operations > 0 {
            return Err("a device is being attached or detached; try again".to_owned());
        }
        doing.upgrade = true;
        Ok(Upgrading(self))
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.0.doing().operations -= 1;
    }
}

impl Drop for Upgrading<'_> {
    fn drop(&mut self) {
        self.0.doing().upgrade = false;
    }
}

impl Agent {
    /// Has the program that stands where this one was started from take this process over. Returns only when that cannot be: the error is
    /// for people, and everything goes on as before. `operator`: who asked, for the other program to answer.
    pub(crate) async fn upgrade(&self, operator: Option<OwnedFd>) -> Result<Infallible, String> {
        let _upgrading = self.activity.upgrade()?;
        let program = Program::find()?;
        program.check().await?;
        let begun_ns = now_ns();
        // They go on when these are dropped.
        let (frozen, _standing): (Vec<_>, Vec<_>) = self.stand_still().await?.into_iter().unzip();
        let (document, bundle) = self.document(begun_ns, operator, frozen)?;
        let memfd = document.write().map_err(|error| {
            format!("the state for the other program cannot be written: {error}")
        })?;
        tracing::info!(program = %program.path().display(), "upgrading: the other program takes over");
        let Err(error) = program.execute(memfd);
        drop(bundle);
        Err(format!(
            "{} cannot be run: {error}",
            program.path().display()
        ))
    }

    /// Brings all devices to a stand, all at once.
    async fn stand_still(&self) -> Result<Vec<(Frozen, Standing)>, String> {
        let mut tries = JoinSet::new();
        for (name, slot) in &*self.lock() {
            if let Slot::Serving(served) = slot {
                let (name, stands) = (name.clone(), freeze(served.freezes()));
                tries.spawn(async move {
                    let stands = tokio::time::timeout(STAND_TIMEOUT, stands).await;
                    let late = || format!("it does not come to a stand within {STAND_TIMEOUT:?}");
                    let stands = stands.unwrap_or_else(|_| Err(late()));
                    stands.map_err(|problem| format!("`{name}` cannot be handed over: {problem}"))
                });
            }
        }
        let mut standing = Vec::new();
        while let Some(tried) = tries.join_next().await {
            standing.push(tried.map_err(|error| chain(&error))??);
        }
        Ok(standing)
    }

    /// All of the agent, and all descriptors.
    fn document(
        &self,
        begun_ns: u64,
        operator: Option<OwnedFd>,
        frozen: Vec<Frozen>,
    ) -> Result<(Document, Bundle), String> {
        let mut bundle = Bundle::default();
        let mut devices = Vec::new();
        for frozen in frozen {
            devices.push(frozen.saved);
            bundle.append(frozen.bundle);
        }
        let failed = |error| format!("descriptors for the other program: {error}");
        let listener = self.admin.save(&mut bundle).map_err(failed)?;
        let operator = operator.map(|fd| bundle.add(fd)).transpose();
        let document = Document {
            format: FORMAT,
            incarnation: agent_incarnation(),
            begun_ns,
            admin: SavedAdmin {
                path: self.admin.path().to_owned(),
                listener,
            },
            operator: operator.map_err(failed)?,
            waiting: self.waiting(&devices)?,
            devices,
            descriptors: bundle.numbers(),
        };
        Ok((document, bundle))
    }

    /// The devices that have not been attached so far. None may have been since the others came to a stand.
    fn waiting(&self, devices: &[SavedDevice]) -> Result<Vec<AttachRequest>, String> {
        let saved: BTreeSet<_> = devices.iter().map(|device| &device.name).collect();
        let mut waiting = Vec::new();
        for (name, slot) in &*self.lock() {
            match slot {
                Slot::Waiting(slot) => {
                    let SavedTarget { device, selector } = (&slot.order.target).into();
                    waiting.push(AttachRequest {
                        name: name.clone(),
                        device,
                        selector,
                        socket: slot.order.socket.clone(),
                        after_loss: Some(settings::after_loss_name(slot.order.remote.after_loss)),
                    });
                }
                Slot::Serving(_) if saved.contains(name) => {}
                Slot::Serving(_) | Slot::Starting => {
                    return Err(format!("`{name}` has just been attached; try again"));
                }
            }
        }
        Ok(waiting)
    }
}
