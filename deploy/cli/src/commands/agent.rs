//! `potemkin attach`, `detach`, `status`, `upgrade`: over a front agent's admin socket.

use std::path::Path;
use std::time::Duration;

use potemkin_service::admin::{AdminClient, AttachRequest, DeviceState, DeviceStatus, Status};
use serde::Serialize;

use crate::args::{AttachArgs, DetachArgs};
use crate::error::CliError;
use crate::output::{Output, render, table};

pub(super) fn attach(agent: &Path, args: AttachArgs, output: Output) -> Result<(), CliError> {
    // The agent runs elsewhere in the file system: a relative path would be relative to its folder, not to ours.
    let socket = std::path::absolute(&args.socket).unwrap_or(args.socket);
    let request = AttachRequest {
        name: args.name,
        device: args.target.device,
        selector: args.target.selector.map(|selector| selector.to_string()),
        socket,
        after_loss: args.after_loss,
    };
    let attached = AdminClient::connect(agent, args.agent.timeout)?.attach(request)?;
    output.print(&attached, |a| {
        format!(
            "{} is {} ({:04x}:{:04x}), session {}, epoch {}\nvfio-user socket: {}",
            a.name,
            a.device,
            a.vendor_id,
            a.device_id,
            a.session,
            a.epoch,
            a.socket.display()
        )
    })
}

#[derive(Serialize)]
struct Detached {
    name: String,
    detached: bool,
}

pub(super) fn detach(agent: &Path, args: DetachArgs, output: Output) -> Result<(), CliError> {
    AdminClient::connect(agent, args.agent.timeout)?.detach(&args.name)?;
    let result = Detached {
        name: args.name,
        detached: true,
    };
    output.print(&result, |result| format!("{} is detached", result.name))
}

pub(super) fn status(agent: &Path, timeout: Duration, output: Output) -> Result<(), CliError> {
    let status = AdminClient::connect(agent, timeout)?.status()?;
    output.print(&status, status_table)
}

pub(super) fn upgrade(agent: &Path, timeout: Duration, output: Output) -> Result<(), CliError> {
    let upgraded = AdminClient::connect(agent, timeout)?.upgrade()?;
    output.print(&upgraded, |upgraded| {
        format!(
            "upgraded to {}: {} devices go on, after {} ms",
            upgraded.version, upgraded.devices, upgraded.stood_ms
        )
    })
}

fn status_table(status: &Status) -> String {
    let mut table = table(&[
        "NAME",
        "DEVICE",
        "STATE",
        "BROKER",
        "TRANSPORT",
        ">EPOCH",
        ">CONFIG R/W",
        ">BAR R/W",
        ">FRAMES OUT/IN",
        ">ROUND TRIPS",
        "SOCKET",
    ]);
    for d in &status.devices {
        let c = &d.counters;
        table.add_row([
            d.name.clone(),
            d.device.clone(),
            state(d.state).to_owned(),
            dash(&d.broker).to_owned(),
            dash(&d.transport).to_owned(),
            d.epoch.to_string(),
            format!("{}/{}", c.config_reads, c.config_writes),
            format!("{}/{}", c.bar_reads, c.bar_writes),
            format!("{}/{}", c.frames_sent, c.frames_received),
            c.round_trips.to_string(),
            d.socket.display().to_string(),
        ]);
    }
    let table = render(&table, "nothing is attached: see `potemkin attach --help`");
    let notes = status.devices.iter().filter_map(note);
    std::iter::once(table)
        .chain(notes)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What does not fit into a row: why a device is not live, and since when.
fn note(device: &DeviceStatus) -> Option<String> {
    let reason = device.reason.as_ref()?;
    let age = match device.state_age_ms {
        Some(ms) => format!(" for {} s", ms / 1_000),
        None => String::new(),
    };
    let next = match device.next_try_ms {
        Some(ms) => format!(" (next try in {}.{} s)", ms / 1_000, ms % 1_000 / 100),
        None => String::new(),
    };
    Some(format!(
        "{} is {}{age}: {}{next}",
        device.name,
        state(device.state),
        reason.replace('\n', " ")
    ))
}

fn state(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Live => "live",
        DeviceState::Connecting => "connecting",
        DeviceState::Interrupted => "interrupted",
        DeviceState::Waiting => "waiting",
        DeviceState::Reattaching => "reattaching",
        DeviceState::AwaitingReset => "awaiting reset",
        DeviceState::Lost => "lost",
        _ => "unknown",
    }
}

pub(super) fn dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
