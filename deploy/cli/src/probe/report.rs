//! What a probe found.

use potemkin_service::admin::DeviceStatus;
use serde::Serialize;

use super::bars::{Kind, SizedBar};
use super::checks::Checks;
use super::counters::Remote;
use super::enumerate::FunctionReport;
use super::function::Accesses;
use super::measure::Latency;
use crate::output::{render, table};

/// All that a probe found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) function: FunctionReport,
    /// What the front agent says of the device; none: no agent was given.
    pub(crate) agent: Option<Agent>,
    pub(crate) stages: Vec<Stage>,
    /// Of the registers given by `--read`.
    pub(crate) values: Vec<Value>,
    pub(crate) checks: Checks,
}

#[derive(Debug, Serialize)]
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) device: String,
    pub(crate) session: String,
    pub(crate) epoch: u64,
    pub(crate) transport: String,
}

impl From<DeviceStatus> for Agent {
    fn from(status: DeviceStatus) -> Self {
        Self {
            name: status.name,
            device: status.device,
            session: status.session,
            epoch: status.epoch,
            transport: status.transport,
        }
    }
}

/// One thing that the probe did.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Counted here.
    pub(crate) accesses: Accesses,
    /// Counted by the agent; none: no agent was given.
    pub(crate) remote: Option<Remote>,
    /// Of single accesses; none: not measured.
    pub(crate) latency: Option<Latency>,
}

impl Stage {
    /// Accesses that caused no round trip; posted writes wait for none, so a stage with BAR writes has no such number.
    fn local(&self) -> Option<u64> {
        let remote = self.remote.filter(|_| self.accesses.bar_writes == 0)?;
        Some(self.accesses.total().saturating_sub(remote.round_trips))
    }
}

/// A register that was read.
#[derive(Debug, Serialize)]
pub(crate) struct Value {
    pub(crate) register: String,
    pub(crate) value: u64,
}

/// The report for people.
pub(crate) fn report_text(report: &Report) -> String {
    let mut parts = vec![function_text(&report.function)];
    if let Some(agent) = &report.agent {
        parts.push(format!(
            "Device {} as {}, session {}, epoch {}, over {}",
            agent.device, agent.name, agent.session, agent.epoch, agent.transport
        ));
    }
    parts.push(stages_text(&report.stages));
    if report.agent.is_none() {
        parts.push(
            "Pass --agent PATH (the front agent's admin socket) to see what was remote.".into(),
        );
    }
    for value in &report.values {
        parts.push(format!("{} = {:#x}", value.register, value.value));
    }
    parts.push(checks_text(&report.checks));
    parts.join("\n\n")
}

fn function_text(f: &FunctionReport) -> String {
    let pin = match f.interrupt_pin {
        0 => "no interrupt pin".to_owned(),
        pin => format!("interrupt pin {}", char::from(b'@'.saturating_add(pin))),
    };
    let mut lines = vec![format!(
        "Function {:04x}:{:04x} revision {:02x}, class {:06x}, subsystem {:04x}:{:04x}, {pin}, {} bytes of configuration space",
        f.vendor_id,
        f.device_id,
        f.revision,
        f.class,
        f.subsystem_vendor_id,
        f.subsystem_id,
        f.config_size
    )];
    lines.extend(f.bars.iter().map(|bar| format!("  {}", bar_text(bar))));
    if f.rom_size != 0 {
        lines.push(format!("  expansion ROM: {}", size_text(f.rom_size)));
    }
    for c in &f.capabilities {
        let details = match c.details.as_str() {
            "" => String::new(),
            details => format!(": {details}"),
        };
        lines.push(format!(
            "  capability [{:02x}] {}{details}",
            c.offset, c.name
        ));
    }
    lines.join("\n")
}

fn bar_text(bar: &SizedBar) -> String {
    let kind = match bar.kind {
        Kind::Io => "I/O ports",
        Kind::Memory32 => "memory, 32-bit",
        Kind::Memory64 => "memory, 64-bit",
        Kind::MemoryBelow1M => "memory below 1 MiB",
    };
    let prefetchable = if bar.prefetchable {
        ", prefetchable"
    } else {
        ""
    };
    let place = bar.address.map_or_else(
        || "fits nowhere".to_owned(),
        |a| format!("placed at {a:#x}"),
    );
    format!(
        "BAR {}: {kind}{prefetchable}, {}, {place}",
        bar.index,
        size_text(bar.size)
    )
}

fn size_text(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

    UNITS
        .iter()
        .find(|(_, shift)| bytes >= 1 << shift)
        .map_or_else(
            || format!("{bytes} bytes"),
            |(unit, shift)| format!("{} {unit}", bytes >> shift),
        )
}

fn stages_text(stages: &[Stage]) -> String {
    let mut table = table(&[
        "WHAT THE GUEST DID",
        ">ACCESSES",
        ">LOCAL",
        ">ROUND TRIPS",
        ">FRAMES OUT",
        ">FRAMES IN",
        ">P50 us",
        ">P90",
        ">P99",
        ">P99.9",
        ">MAX",
    ]);
    for s in stages {
        let remote = |field: fn(&Remote) -> u64| count(s.remote.as_ref().map(field));
        let time = |field: fn(&Latency) -> u64| microseconds(s.latency.as_ref().map(field));
        table.add_row([
            s.name.clone(),
            s.accesses.total().to_string(),
            count(s.local()),
            remote(|r| r.round_trips),
            remote(|r| r.frames_sent),
            remote(|r| r.frames_received),
            time(|l| l.p50_ns),
            time(|l| l.p90_ns),
            time(|l| l.p99_ns),
            time(|l| l.p999_ns),
            time(|l| l.max_ns),
        ]);
    }
    render(&table, "")
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Nanoseconds as microseconds, rounded to a tenth.
fn microseconds(ns: Option<u64>) -> String {
    ns.map_or_else(
        || "-".to_owned(),
        |ns| {
            let tenths = ns.saturating_add(50) / 100;
            format!("{}.{}", tenths / 10, tenths % 10)
        },
    )
}

fn checks_text(checks: &Checks) -> String {
    let total = checks.all().len();
    let mut lines: Vec<_> = checks
        .failed()
        .map(|check| format!("FAILED: {}: {}", check.what, check.found))
        .collect();
    lines.push(format!("{} of {total} checks passed", total - lines.len()));
    lines.join("\n")
}
