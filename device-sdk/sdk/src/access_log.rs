//! A device's own record of what was applied to it.

use std::fmt;
use std::io::{self, BufWriter, Write};

use potemkin_pci::{Descriptor, Space};

use crate::device::little_endian;
use crate::{AccessError, BlockMode, Device, DeviceHandle, DmaError, Register, ResetKind};

/// Bytes kept back before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Wraps a device and writes one line of JSON for each element read or written and for each reset, in the order in which the
/// device saw them:
///
/// ```json
/// {"n":1,"op":"write","space":"bar0","offset":96,"width":4,"value":1}
/// {"n":2,"op":"read","space":"bar0","offset":2,"width":1,"value":255,"error":"no register at BAR 0, offset 0x2"}
/// {"n":3,"op":"reset","kind":"function"}
/// ```
///
/// `n` counts the lines from 1, `space` is `bar0` to `bar5`, `rom` or `config`, `width` is in bytes, and `value` is what was written or
/// what the guest reads. An element of a block stands on a line of its own. `error` says that the device refused.
///
/// Lines are buffered, and written out when the buffer of 64 KiB is full, when the device is idle or reset, and when it is dropped.
/// When the writer fails, logging ends and the device goes on: see [`AccessLog::on_error`].
pub struct AccessLog<D, W: Write> {
    device: D,
    lines: Lines<W>,
}

impl<D: Device, W: Write + Send> AccessLog<D, W> {
    /// Logs what is done to `device` to `writer`, which needs no buffering of its own. A file on a disk is fine; what may block for long
    /// (a pipe, a network file system) is not.
    pub fn new(device: D, writer: W) -> Self {
        Self {
            device,
            lines: Lines {
                writer: Some(BufWriter::with_capacity(BUFFER_BYTES, writer)),
                written: 0,
                on_error: None,
            },
        }
    }

    /// Calls `report`, once at most, with the error of the writer that ended the log.
    #[must_use]
    pub fn on_error(mut self, report: impl FnOnce(io::Error) + Send + 'static) -> Self {
        self.lines.on_error = Some(Box::new(report));
        self
    }
}

impl<D: Device, W: Write + Send> Device for AccessLog<D, W> {
    fn descriptor(&self) -> &Descriptor {
        self.device.descriptor()
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        let outcome = self.device.read(at);
        let value = outcome.unwrap_or(u64::MAX) & at.width.all_ones();
        self.lines.access("read", at, value, outcome.err());
        outcome
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        let outcome = self.device.write(at, value);
        self.lines.access("write", at, value, outcome.err());
        outcome
    }

    fn reset(&mut self, kind: ResetKind) {
        self.device.reset(kind);
        self.lines.reset(kind);
        self.lines.flush();
    }

    fn read_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &mut [u8],
    ) -> Result<(), AccessError> {
        let outcome = self.device.read_block(at, mode, data);
        self.lines.block("read", at, mode, data, outcome.err());
        outcome
    }

    fn write_block(
        &mut self,
        at: Register,
        mode: BlockMode,
        data: &[u8],
    ) -> Result<(), AccessError> {
        let outcome = self.device.write_block(at, mode, data);
        self.lines.block("write", at, mode, data, outcome.err());
        outcome
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.device.attached(handle);
    }

    fn notified(&mut self) {
        self.device.notified();
    }

    fn dma_read_done(&mut self, tag: u64, outcome: Result<&[u8], DmaError>) {
        self.device.dma_read_done(tag, outcome);
    }

    fn dma_write_failed(&mut self, error: DmaError) {
        self.device.dma_write_failed(error);
    }

    fn bus_master_off(&mut self) {
        self.device.bus_master_off();
    }

    fn dma_ready(&mut self) {
        self.device.dma_ready();
    }

    fn idle(&mut self) {
        self.device.idle();
        self.lines.flush();
    }
}

impl<D: fmt::Debug, W: Write> fmt::Debug for AccessLog<D, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("device", &self.device)
            .field("lines", &self.lines.written)
            .finish_non_exhaustive()
    }
}

struct Lines<W: Write> {
    /// `None` after it failed. Flushes when it is dropped.
    writer: Option<BufWriter<W>>,
    written: u64,
    on_error: Option<Box<dyn FnOnce(io::Error) + Send>>,
}

impl<W: Write> Lines<W> {
    fn block(
        &mut self,
        op: &str,
        at: Register,
        mode: BlockMode,
        data: &[u8],
        error: Option<AccessError>,
    ) {
        for (at, element) in mode.registers(at).zip(data.chunks_exact(at.bytes())) {
            self.access(op, at, little_endian(element), error);
        }
    }

    fn access(&mut self, op: &str, at: Register, value: u64, error: Option<AccessError>) {
        let (offset, width) = (at.offset, at.bytes());
        let space = space_name(at.space);
        self.line(|n, out| {
            write!(
                out,
                r#"{{"n":{n},"op":"{op}","space":"{space}","offset":{offset},"width":{width},"value":{value}"#
            )?;
            match error {
                Some(error) => writeln!(out, r#","error":"{}"}}"#, escaped(&error.to_string())),
                None => writeln!(out, "}}"),
            }
        });
    }

    fn reset(&mut self, kind: ResetKind) {
        let kind = match kind {
            ResetKind::Function => "function",
            ResetKind::Session => "session",
        };
        self.line(|n, out| writeln!(out, r#"{{"n":{n},"op":"reset","kind":"{kind}"}}"#));
    }

    fn line(&mut self, write: impl FnOnce(u64, &mut BufWriter<W>) -> io::Result<()>) {
        let n = self.written + 1;
        self.with_writer(|writer| write(n, writer));
        self.written = n;
    }

    fn flush(&mut self) {
        self.with_writer(BufWriter::flush);
    }

    fn with_writer(&mut self, act: impl FnOnce(&mut BufWriter<W>) -> io::Result<()>) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        if let Err(error) = act(writer) {
            // Taken apart, so that what is left in the buffer is not tried again.
            if let Some(writer) = self.writer.take() {
                drop(writer.into_parts());
            }
            if let Some(report) = self.on_error.take() {
                report(error);
            }
        }
    }
}

fn space_name(space: Space) -> &'static str {
    const BARS: [&str; 6] = ["bar0", "bar1", "bar2", "bar3", "bar4", "bar5"];
    match space {
        Space::Bar(bar) => BARS[bar.as_usize()],
        Space::Rom => "rom",
        Space::Config => "config",
    }
}

/// For the inside of a JSON string: messages of devices are ASCII text in practice, but nobody holds them to it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(format!("\\u{:04x}", u32::from(c)).chars()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "access_log_tests.rs"]
mod tests;
