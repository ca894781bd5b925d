//! `potemkin devices`, `sessions`, `sessions end`, `claim`, `release`: over a broker's control service.

mod connect;

use potemkin_proto::v1::{
    ClaimRequest, DetachRequest, DeviceInfo, DeviceState, ListDevicesRequest, ListSessionsRequest,
    ReleaseRequest, Selector, SessionInfo, Target, target,
};
use potemkin_transport::{Identity, Role};
use serde::Serialize;

pub(crate) use connect::BrokerError;

use super::agent::dash;
use crate::args::{BrokerArgs, ClaimArgs, TargetArgs};
use crate::error::CliError;
use crate::output::{Output, hex, render, table};
use crate::settings::BrokerAccess;

#[derive(Serialize)]
struct Devices {
    devices: Vec<Device>,
}

#[derive(Serialize)]
struct Device {
    device: String,
    class: String,
    labels: std::collections::BTreeMap<String, String>,
    vendor_id: u32,
    device_id: u32,
    state: &'static str,
    host: String,
    epoch: u64,
    claimed_by: String,
    claim: String,
    claim_implicit: bool,
}

pub(super) fn devices(access: BrokerAccess, output: Output) -> Result<(), CliError> {
    let reply = connect::call(&access, async |mut control| {
        control.list_devices(ListDevicesRequest {}).await
    })?;
    let mut devices: Vec<_> = reply.devices.into_iter().map(Device::from).collect();
    devices.sort_by(|a, b| a.device.cmp(&b.device));
    output.print(&Devices { devices }, devices_table)
}

/// A platform function has none, and all-ones in its place.
fn pci_id(device: &Device) -> String {
    match (device.vendor_id, device.device_id) {
        (0xffff, 0xffff) => "platform".to_owned(),
        (vendor, id) => format!("{vendor:04x}:{id:04x}"),
    }
}

fn devices_table(reply: &Devices) -> String {
    let mut table = table(&[
        "DEVICE",
        "CLASS",
        "PCI ID",
        "STATE",
        ">EPOCH",
        "HOST",
        "CLAIMED BY",
        "CLAIM",
        "LABELS",
    ]);
    for d in &reply.devices {
        let labels: Vec<_> = d.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let implicit = if d.claim_implicit { " (implicit)" } else { "" };
        table.add_row([
            d.device.clone(),
            d.class.clone(),
            pci_id(d),
            d.state.to_owned(),
            d.epoch.to_string(),
            d.host.clone(),
            dash(&d.claimed_by).to_owned(),
            format!("{}{implicit}", dash(&d.claim)),
            dash(&labels.join(",")).to_owned(),
        ]);
    }
    render(
        &table,
        "no devices: no host has registered one that this identity may see",
    )
}

impl From<DeviceInfo> for Device {
    fn from(info: DeviceInfo) -> Self {
        Self {
            state: match info.state() {
                DeviceState::Free => "free",
                DeviceState::Claimed => "claimed",
                DeviceState::Attached => "attached",
                DeviceState::Away => "away",
                DeviceState::Unspecified => "unknown",
            },
            device: info.device_id,
            class: info.class,
            labels: info.labels.into_iter().collect(),
            vendor_id: info.vendor_id,
            device_id: info.device_code,
            host: info.host,
            epoch: info.epoch,
            claimed_by: info.claimed_by,
            claim: hex(&info.claim_id),
            claim_implicit: info.claim_implicit,
        }
    }
}

#[derive(Serialize)]
struct Sessions {
    sessions: Vec<Session>,
}

#[derive(Serialize)]
struct Session {
    session: String,
    device: String,
    agent: String,
    host: String,
    epoch: u64,
    attach_number: u32,
    connected: bool,
    agent_transport: String,
    host_transport: String,
    frames_forward: u64,
    frames_reverse: u64,
    bytes_forward: u64,
    bytes_reverse: u64,
}

pub(super) fn sessions(access: BrokerAccess, output: Output) -> Result<(), CliError> {
    let reply = connect::call(&access, async |mut control| {
        control.list_sessions(ListSessionsRequest {}).await
    })?;
    let mut sessions: Vec<_> = reply.sessions.into_iter().map(Session::from).collect();
    sessions.sort_by(|a, b| (&a.device, &a.session).cmp(&(&b.device, &b.session)));
    output.print(&Sessions { sessions }, sessions_table)
}

fn sessions_table(reply: &Sessions) -> String {
    let mut table = table(&[
        "SESSION",
        "DEVICE",
        ">EPOCH",
        ">ATTACH",
        "STATE",
        "LEGS",
        ">FRAMES OUT/IN",
        ">BYTES OUT/IN",
        "AGENT",
        "HOST",
    ]);
    for s in &reply.sessions {
        table.add_row([
            s.session.clone(),
            s.device.clone(),
            s.epoch.to_string(),
            s.attach_number.to_string(),
            if s.connected { "connected" } else { "away" }.to_owned(),
            format!("{}/{}", dash(&s.agent_transport), dash(&s.host_transport)),
            format!("{}/{}", s.frames_forward, s.frames_reverse),
            format!("{}/{}", s.bytes_forward, s.bytes_reverse),
            s.agent.clone(),
            s.host.clone(),
        ]);
    }
    render(&table, "no sessions that this identity may see")
}

impl From<SessionInfo> for Session {
    fn from(info: SessionInfo) -> Self {
        Self {
            session: hex(&info.session_id),
            device: info.device_id,
            agent: info.agent,
            host: info.host,
            epoch: info.epoch,
            attach_number: info.attach_number,
            connected: info.connected,
            agent_transport: info.agent_transport,
            host_transport: info.host_transport,
            frames_forward: info.frames_forward,
            frames_reverse: info.frames_reverse,
            bytes_forward: info.bytes_forward,
            bytes_reverse: info.bytes_reverse,
        }
    }
}

#[derive(Serialize)]
struct Ended {
    session: String,
    ended: bool,
}

pub(super) fn end_session(
    access: BrokerAccess,
    session: [u8; 16],
    output: Output,
) -> Result<(), CliError> {
    let request = DetachRequest {
        session_id: session.to_vec().into(),
    };
    connect::call(&access, async |mut control| control.detach(request).await)?;
    let ended = Ended {
        session: hex(&session),
        ended: true,
    };
    output.print(&ended, |e| format!("session {} has ended", e.session))
}

#[derive(Serialize)]
struct Claimed {
    device: String,
    claim: String,
    epoch: u64,
}

pub(super) fn claim(
    args: ClaimArgs,
    access: impl FnOnce(BrokerArgs) -> Result<BrokerAccess, CliError>,
    output: Output,
) -> Result<(), CliError> {
    let access = access(args.broker)?;
    let mut target = args.target;
    target.device = target.device.or(args.device_id);
    let request = ClaimRequest {
        target: Some(target.into()),
        agent: match args.agent {
            Some(agent) => whole_identity(&agent, access.tls.identity())?,
            None => String::new(),
        },
    };
    let reply = connect::call(&access, async |mut control| control.claim(request).await)?;
    let claimed = Claimed {
        device: reply.device_id,
        claim: hex(&reply.claim_id),
        epoch: reply.epoch,
    };
    output.print(&claimed, |c| {
        format!("claim {} on {}, epoch {}", c.claim, c.device, c.epoch)
    })
}

/// An agent's identity, of which perhaps only the name was given.
fn whole_identity(agent: &str, ours: &Identity) -> Result<String, CliError> {
    if agent.contains("://") {
        // The broker says what is wrong with it.
        return Ok(agent.to_owned());
    }
    Identity::new(ours.trust_domain(), Role::Agent, agent)
        .map(|identity| identity.as_str().to_owned())
        .map_err(|error| CliError::usage(format!("--for {agent}: {error}")))
}

impl From<TargetArgs> for Target {
    fn from(args: TargetArgs) -> Self {
        let kind = match (args.device, args.selector) {
            (Some(device), _) => Some(target::Kind::DeviceId(device)),
            (None, Some(selector)) => Some(target::Kind::Selector(Selector {
                class: selector.class,
                labels: selector.labels.into_iter().collect(),
            })),
            // The command line demands one.
            (None, None) => None,
        };
        Self { kind }
    }
}

#[derive(Serialize)]
struct Released {
    claim: String,
    released: bool,
}

pub(super) fn release(
    access: BrokerAccess,
    claim: [u8; 16],
    output: Output,
) -> Result<(), CliError> {
    let request = ReleaseRequest {
        claim_id: claim.to_vec().into(),
    };
    connect::call(&access, async |mut control| control.release(request).await)?;
    let released = Released {
        claim: hex(&claim),
        released: true,
    };
    output.print(&released, |r| format!("claim {} is released", r.claim))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_agent_is_named_in_short_or_whole() {
        let ours: Identity = "spiffe://lab.example/operator/o".parse().unwrap();
        let whole = "spiffe://other.example/agent/vm7";

        assert_eq!(
            whole_identity("vm7", &ours).unwrap(),
            "spiffe://lab.example/agent/vm7"
        );
        assert_eq!(whole_identity(whole, &ours).unwrap(), whole);
        assert!(whole_identity("vm/7", &ours).is_err());
    }
}
