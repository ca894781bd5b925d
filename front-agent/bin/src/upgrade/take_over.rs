//! What the other program does: it takes over what was handed to it, devices first.

use std::{os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

use potemkin_front_core::adopt_agent_incarnation;
use potemkin_service::{
    BoxError,
    admin::{AttachRequest, Upgraded},
    runtime::chain,
};
use potemkin_vfio_server::{Inherited, Listener};
use tokio::{net::UnixStream, task::JoinSet};

use super::{
    document::{self, Document, SavedDevice},
    guest::HandedOver,
};
use crate::{
    agent::Agent,
    millis,
    served::{Served, Source},
};

/// An agent that was handed over, as far as it is not taken over.
#[derive(Debug)]
pub(crate) struct Legacy {
    document: Document,
    inherited: Inherited,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) upgraded: Upgraded,
    /// Who asked for it.
    pub(crate) operator: Option<UnixStream>,
}

impl Legacy {
    /// What another program has handed over to this one, if it has. Before anything that shows brokers who this is.
    pub(crate) fn find() -> Result<Option<Self>, BoxError> {
        let Some((document, inherited)) = document::inherited()? else {
            return Ok(None);
        };
        if !adopt_agent_incarnation(document.incarnation) {
            tracing::warn!("brokers take this for another run of the agent");
        }
        Ok(Some(Self {
            document,
            inherited,
        }))
    }

    /// The admin socket, if it is where it was.
    pub(crate) fn admin_socket(&mut self, path: &Path) -> Option<Listener> {
        let admin = &self.document.admin;
        let listener = Listener::adopt(&admin.path, &admin.listener, &mut self.inherited);
        let listener = listener.inspect_err(|error| tracing::error!(%error, "the admin socket"));
        // Dropped, it removes its name.
        listener.ok().filter(|listener| listener.path() == path)
    }

    /// Takes all devices over. One that cannot be is lost to its VMM, and told to people; it holds up no other.
    pub(crate) async fn take_over(self, agent: &Arc<Agent>) -> TakenOver {
        let Self {
            document,
            mut inherited,
        } = self;
        let operator = document.operator.and_then(|fd| inherited.take(fd).ok());
        let mut tries = JoinSet::new();
        for saved in document.devices {
            let inherited = inherited.split(&saved.descriptors);
            tries.spawn(device(Arc::clone(agent), saved, inherited));
        }
        let mut devices = 0;
        while let Some(tried) = tries.join_next().await {
            devices += usize::from(tried.unwrap_or(false));
        }
        for request in document.waiting {
            tokio::spawn(wait_on(Arc::clone(agent), request));
        }
        let stood = document::now_ns().saturating_sub(document.begun_ns);
        TakenOver {
            upgraded: Upgraded {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                devices,
                stood_ms: millis(Duration::from_nanos(stood)),
            },
            operator: operator.and_then(stream),
        }
    }
}

/// Whether the device goes on.
async fn device(agent: Arc<Agent>, saved: SavedDevice, inherited: Inherited) -> bool {
    let name = saved.name.clone();
    let Err(reason) = restore(&agent, saved, inherited).await else {
        return true;
    };
    tracing::error!(name, reason, "the device is lost to its VMM");
    false
}

async fn restore(agent: &Agent, saved: SavedDevice, inherited: Inherited) -> Result<(), String> {
    let order = agent.order(AttachRequest {
        name: saved.name.clone(),
        device: saved.target.device.clone(),
        selector: saved.target.selector.clone(),
        socket: saved.socket.clone(),
        after_loss: saved.after_loss,
    })?;
    let name = order.name.clone();
    agent.reserve(&name)?;
    let handed = HandedOver { saved, inherited };
    let source = Source::HandedOver(Box::new(handed));
    match Served::start_from(order, source, agent.begin()).await {
        Ok(served) => agent.insert(served),
        Err(error) => {
            agent.lock().remove(&name);
            return Err(chain(&error));
        }
    }
    Ok(())
}

/// A device that was waited for is waited for again.
async fn wait_on(agent: Arc<Agent>, request: AttachRequest) {
    let name = request.name.clone();
    if let Err(reason) = agent.attach_configured(request).await {
        tracing::error!(name, reason, "no longer waited for");
    }
}

fn stream(fd: OwnedFd) -> Option<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true).ok()?;
    UnixStream::from_std(stream).ok()
}
