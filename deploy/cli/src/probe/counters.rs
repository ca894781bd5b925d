//! The front agent's counters, before and after.

use std::path::{Path, PathBuf};

use potemkin_service::admin::{AdminClient, Counters, DeviceState, DeviceStatus};
use serde::Serialize;

use super::{Options, ProbeError};

/// A front agent that is asked for the counters of the device under probe.
pub(crate) struct CounterSource {
    client: AdminClient,
    name: String,
}

/// What crossed the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Remote {
    pub(crate) round_trips: u64,
    pub(crate) frames_sent: u64,
    pub(crate) frames_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl CounterSource {
    /// Finds the device: by the name given, or by its socket. None: no agent was given.
    pub(crate) fn find(options: &Options) -> Result<Option<Self>, ProbeError> {
        let Some(agent) = &options.agent else {
            return Ok(None);
        };
        let mut client = AdminClient::connect(agent, options.agent_timeout)?;
        let devices = client.status()?.devices;
        let wanted = |device: &&DeviceStatus| match &options.name {
            Some(name) => device.name == *name,
            None => same_file(&device.socket, &options.socket),
        };
        let device = devices
            .iter()
            .find(wanted)
            .ok_or_else(|| ProbeError::NotAttached {
                agent: agent.clone(),
                what: options.name.clone().map_or_else(
                    || format!("with the socket {}", options.socket.display()),
                    |name| format!("called {name}"),
                ),
            })?;
        expect_attached(device)?;
        let name = device.name.clone();
        Ok(Some(Self { client, name }))
    }

    /// An error if the device is lost by now.
    pub(crate) fn expect_attached(&mut self) -> Result<(), ProbeError> {
        expect_attached(&self.device()?)
    }

    pub(crate) fn device(&mut self) -> Result<DeviceStatus, ProbeError> {
        let status = self.client.status()?;
        status
            .devices
            .into_iter()
            .find(|device| device.name == self.name)
            .ok_or_else(|| ProbeError::Detached {
                name: self.name.clone(),
            })
    }
}

/// There is no point in driving a device that is lost: only its configuration space would answer.
fn expect_attached(device: &DeviceStatus) -> Result<(), ProbeError> {
    let name = device.name.clone();
    let reason = || {
        let reason = device.reason.as_deref();
        reason.unwrap_or("the agent does not say why").to_owned()
    };
    match device.state {
        DeviceState::Lost | DeviceState::Reattaching | DeviceState::AwaitingReset => {
            Err(ProbeError::Lost {
                name,
                reason: reason(),
            })
        }
        DeviceState::Waiting => Err(ProbeError::Waiting {
            name,
            reason: reason(),
        }),
        _ => Ok(()),
    }
}

/// What was counted between two looks.
pub(crate) fn between(before: &Counters, after: &Counters) -> Remote {
    Remote {
        round_trips: after.round_trips.saturating_sub(before.round_trips),
        frames_sent: after.frames_sent.saturating_sub(before.frames_sent),
        frames_received: after.frames_received.saturating_sub(before.frames_received),
        bytes_sent: after.bytes_sent.saturating_sub(before.bytes_sent),
        bytes_received: after.bytes_received.saturating_sub(before.bytes_received),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    let resolved =
        |path: &Path| -> PathBuf { path.canonicalize().unwrap_or_else(|_| path.to_owned()) };
    resolved(a) == resolved(b)
}
