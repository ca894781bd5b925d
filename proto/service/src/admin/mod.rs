//! The front agent's admin protocol: what is said on its UNIX socket, and a client.
//!
//! One JSON object a line each way, one reply per request, in order:
//! `{"attach":{"name":"edu0","device":"edu-0","selector":null,"socket":"/run/potemkin/edu0.sock"}}` is answered by
//! `{"ok":{...}}` or `{"error":"what went wrong and what to do"}`.

mod client;

use std::{path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

pub use client::{AdminClient, AdminError};

/// The longest request, in bytes, its newline included.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The longest reply, in bytes, its newline included.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// What is asked of a front agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Attach a device and offer it on a vfio-user socket. Answered by [`Attached`].
    Attach(AttachRequest),
    /// Detach a device and remove its socket. Answered by [`Detached`].
    Detach(DetachRequest),
    /// What is attached. Answered by [`Status`].
    Status(StatusRequest),
    /// Go on in the program that stands where this one was started from. Answered by [`Upgraded`], by that program.
    Upgrade(UpgradeRequest),
}

/// One of `device` and `selector` is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// What the attached device is called at this agent: unique there.
    pub name: String,
    /// The device's id in the pool.
    #[serde(default)]
    pub device: Option<String>,
    /// Any free device that fits: `class=edu,zone=a`.
    #[serde(default)]
    pub selector: Option<String>,
    /// Where to create the vfio-user socket.
    pub socket: PathBuf,
    /// What comes after a session that is lost; without, as the agent is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_loss: Option<AfterLoss>,
}

/// What comes after a session that is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterLoss {
    /// The VMM is asked to unplug the function.
    #[default]
    Remove,
    /// The device is attached again, and the guest finds it failed until it resets it.
    Reset,
}

impl FromStr for AfterLoss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "remove" => Ok(Self::Remove),
            "reset" => Ok(Self::Reset),
            _ => Err(format!("`{text}` is neither `remove` nor `reset`")),
        }
    }
}

/// Detach by the agent's name for the device.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// As given on attach.
    pub name: String,
}

/// No parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatusRequest {}

/// No parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {}

/// A front agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply<T> {
    /// It is done.
    Ok(T),
    /// It is not: what went wrong, and what to do.
    Error(String),
}

/// A device is attached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Attached {
    /// As asked.
    pub name: String,
    /// Id in the pool of the device that was taken.
    pub device: String,
    /// The vfio-user socket.
    pub socket: PathBuf,
    /// Session id, 32 hexadecimal digits.
    pub session: String,
    /// Epoch of the claim.
    pub epoch: u64,
    /// PCI vendor id.
    pub vendor_id: u16,
    /// PCI device id.
    pub device_id: u16,
}

/// A device is detached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Detached {}

/// The agent was upgraded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Upgraded {
    /// Version of the program that runs now.
    pub version: String,
    /// Devices that go on.
    pub devices: usize,
    /// For how long their guests' accesses waited, in milliseconds.
    pub stood_ms: u64,
}

/// What a front agent has attached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Status {
    /// In order of name.
    pub devices: Vec<DeviceStatus>,
}

/// One device: attached, or to be attached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeviceStatus {
    /// As given on attach.
    pub name: String,
    /// Id in the pool; while it is waiting, what was asked for.
    pub device: String,
    /// The vfio-user socket; there is none while it is waiting.
    pub socket: PathBuf,
    /// Session id, 32 hexadecimal digits; empty while it is waiting.
    pub session: String,
    /// Epoch of the claim; 0 while it is waiting.
    pub epoch: u64,
    /// How the session does.
    pub state: DeviceState,
    /// Why it is not live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For how long it has not been, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_age_ms: Option<u64>,
    /// In how many milliseconds its attach is tried again, while it is waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try_ms: Option<u64>,
    /// The broker that its path goes through, or went last, as it was configured; empty while it is waiting.
    #[serde(default)]
    pub broker: String,
    /// What that runs on, `quic` or `grpc`; empty while it is waiting.
    pub transport: String,
    /// Counted since the attach.
    pub counters: Counters,
}

/// How an attached device's session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceState {
    /// Connected: accesses are served.
    Live,
    /// Not connected yet: accesses wait for their deadline.
    Connecting,
    /// Its path is lost, or stands still, and another one is dialled: accesses wait for their deadline.
    Interrupted,
    /// Not attached yet: the attach failed, and is tried again.
    Waiting,
    /// Its session is lost, and the device is being attached again: the guest finds it failed.
    Reattaching,
    /// Attached again: the guest finds it failed until it resets it.
    AwaitingReset,
    /// Contained: reads give all-ones, writes are dropped.
    Lost,
    /// A state of a newer agent.
    #[serde(other)]
    Unknown,
}

/// Counts of one attached device since its attach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Counters {
    /// Configuration space reads by the guest.
    pub config_reads: u64,
    /// Configuration space writes by the guest.
    pub config_writes: u64,
    /// BAR reads by the guest.
    pub bar_reads: u64,
    /// BAR writes by the guest.
    pub bar_writes: u64,
    /// Frames sent to the broker.
    pub frames_sent: u64,
    /// Frames received from the broker.
    pub frames_received: u64,
    /// Times that the guest waited for the device host.
    pub round_trips: u64,
    /// Bytes of frames sent.
    pub bytes_sent: u64,
    /// Bytes of frames received.
    pub bytes_received: u64,
    /// Bytes that the device wrote to guest memory.
    pub dma_bytes_written: u64,
    /// Bytes that the device read from guest memory.
    pub dma_bytes_read: u64,
    /// DMA that was refused: bus mastering off, no window there, not in that direction, or begun before a reset.
    pub dma_refused: u64,
    /// Interrupts that the guest got.
    pub interrupts: u64,
    /// Times that the session went on over another path.
    pub resumes: u64,
    /// Connections that were begun for that, whatever became of them.
    pub dials: u64,
}

#[cfg(test)]
mod tests;
