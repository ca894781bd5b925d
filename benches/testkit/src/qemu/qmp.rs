//! QEMU's monitor: JSON lines on a socket (QEMU's docs/interop/qmp-spec).

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Error, Result};

/// How long one command may take. `device_add` of a vfio-user device waits for its server up to 5 s a request.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Events kept until asked for; older ones are dropped.
const EVENTS_MAX: usize = 1024;

/// A connection to a monitor, past its greeting.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    /// A line that a timeout cut; the next read goes on with it.
    partial: String,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Reads the greeting and leaves the negotiation mode.
    pub fn start(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self {
            reader: BufReader::new(stream),
            partial: String::new(),
            events: VecDeque::new(),
        };
        let greeting = qmp.read(Instant::now() + COMMAND_LIMIT)?;
        if greeting["QMP"].is_null() {
            return Err(Error::peer("QMP", format!("no greeting but {greeting}")));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its `return` value. Events that come meanwhile are kept.
    ///
    /// # Errors
    /// With QEMU's class and description when it refuses.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(Error::io(format!("QMP {command}")))?;
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            let mut answer = self.read(deadline)?;
            if !answer["event"].is_null() {
                self.keep(answer);
            } else if !answer["error"].is_null() {
                let error = &answer["error"];
                let message = format!(
                    "{command}: {} ({})",
                    text(&error["desc"]),
                    text(&error["class"])
                );
                return Err(Error::peer("QMP", message));
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Waits for an event of this name and returns it whole (`event`, `data`, `timestamp`). One that came
    /// before and was not asked for yet counts; other events stay.
    pub fn wait_event(&mut self, name: &str, limit: Duration) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.events.iter().position(|e| e["event"] == name);
            if let Some(event) = found.and_then(|at| self.events.remove(at)) {
                return Ok(event);
            }
            let event = self.read(deadline).map_err(|e| match e {
                Error::Io { source, .. } => Error::Io {
                    what: format!("QMP: waiting for the event {name}"),
                    source,
                },
                other => other,
            })?;
            self.keep(event);
        }
    }

    /// The events that came and were not asked for.
    pub fn events(&mut self) -> impl Iterator<Item = Value> + '_ {
        self.events.drain(..)
    }

    /// Plugs a device in while the machine runs; `device` is what `-device` takes as JSON.
    pub fn device_add(&mut self, device: Value) -> Result<()> {
        self.execute("device_add", device).map(drop)
    }

    /// Asks to unplug a device, and waits until QEMU has (`DEVICE_DELETED`); a guest may have to consent.
    pub fn device_del(&mut self, id: &str, limit: Duration) -> Result<()> {
        self.execute("device_del", json!({ "id": id }))?;
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.wait_event("DEVICE_DELETED", left)?;
            if event["data"]["device"] == id {
                return Ok(());
            }
        }
    }

    /// Lets the vCPUs run (again).
    pub fn cont(&mut self) -> Result<()> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Stops the vCPUs.
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Resets the machine.
    pub fn system_reset(&mut self) -> Result<()> {
        self.execute("system_reset", json!({})).map(drop)
    }

    /// Asks QEMU to end; wait for its process to see it do so.
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", json!({})).map(drop)
    }

    /// One line before `deadline`.
    fn read(&mut self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no timeout at all.
        let timeout = left.max(Duration::from_millis(1));
        let what = "QMP: waiting for a line";
        self.reader
            .get_mut()
            .set_read_timeout(Some(timeout))
            .map_err(Error::io(what))?;
        match self.reader.read_line(&mut self.partial) {
            Ok(_) if self.partial.ends_with('\n') => {}
            Ok(_) => return Err(Error::peer("QMP", "QEMU closed its monitor")),
            Err(e) => return Err(Error::io(what)(e)),
        }
        let line = std::mem::take(&mut self.partial);
        serde_json::from_str(&line).map_err(|e| Error::peer("QMP", format!("{e} in {line:?}")))
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
