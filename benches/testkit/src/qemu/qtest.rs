//! QEMU's qtest protocol: a program in place of the CPU (QEMU's `system/qtest.c` documents the commands).
//!
//! Each call is one line and one answer; interrupts that an intercepted controller sees come as lines of their
//! own in between and are kept.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How long one command may take: above the 5 s that QEMU's vfio-user client waits for its server.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// The most that one `read` or `write` line carries; longer ones are split. The server's line buffer grows, this bounds it.
const CHUNK_BYTES: usize = 64 * 1024;

/// A connection to a qtest server.
#[derive(Debug)]
pub struct Qtest {
    reader: BufReader<UnixStream>,
    /// The level of each line of the intercepted controller that was heard of.
    lines: BTreeMap<u32, bool>,
    /// How often each was raised.
    raised: BTreeMap<u32, u64>,
}

impl Qtest {
    /// Speaks qtest on a connected socket.
    pub fn start(stream: UnixStream) -> Result<Self> {
        Ok(Self {
            reader: BufReader::new(stream),
            lines: BTreeMap::new(),
            raised: BTreeMap::new(),
        })
    }

    /// Reads a byte from a port.
    pub fn inb(&mut self, port: u16) -> Result<u8> {
        self.number(&format!("inb {port:#x}"))
    }

    /// Reads two bytes from a port.
    pub fn inw(&mut self, port: u16) -> Result<u16> {
        self.number(&format!("inw {port:#x}"))
    }

    /// Reads four bytes from a port.
    pub fn inl(&mut self, port: u16) -> Result<u32> {
        self.number(&format!("inl {port:#x}"))
    }

    /// Writes a byte to a port.
    pub fn outb(&mut self, port: u16, value: u8) -> Result<()> {
        self.command(&format!("outb {port:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes two bytes to a port.
    pub fn outw(&mut self, port: u16, value: u16) -> Result<()> {
        self.command(&format!("outw {port:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes four bytes to a port.
    pub fn outl(&mut self, port: u16, value: u32) -> Result<()> {
        self.command(&format!("outl {port:#x} {value:#x}"))
            .map(drop)
    }

    /// Reads a byte from a guest physical address.
    pub fn readb(&mut self, address: u64) -> Result<u8> {
        self.number(&format!("readb {address:#x}"))
    }

    /// Reads two bytes from a guest physical address.
    pub fn readw(&mut self, address: u64) -> Result<u16> {
        self.number(&format!("readw {address:#x}"))
    }

    /// Reads four bytes from a guest physical address.
    pub fn readl(&mut self, address: u64) -> Result<u32> {
        self.number(&format!("readl {address:#x}"))
    }

    /// Reads eight bytes from a guest physical address.
    pub fn readq(&mut self, address: u64) -> Result<u64> {
        self.number(&format!("readq {address:#x}"))
    }

    /// Writes a byte to a guest physical address.
    pub fn writeb(&mut self, address: u64, value: u8) -> Result<()> {
        self.command(&format!("writeb {address:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes two bytes to a guest physical address.
    pub fn writew(&mut self, address: u64, value: u16) -> Result<()> {
        self.command(&format!("writew {address:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes four bytes to a guest physical address.
    pub fn writel(&mut self, address: u64, value: u32) -> Result<()> {
        self.command(&format!("writel {address:#x} {value:#x}"))
            .map(drop)
    }

    /// Writes eight bytes to a guest physical address.
    pub fn writeq(&mut self, address: u64, value: u64) -> Result<()> {
        self.command(&format!("writeq {address:#x} {value:#x}"))
            .map(drop)
    }

    /// Reads guest memory.
    pub fn read(&mut self, address: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let size = CHUNK_BYTES.min(length - bytes.len());
            let line = format!("read {:#x} {size:#x}", offset(address, bytes.len()));
            let answer = self.command(&line)?;
            let chunk = from_hex(&answer).filter(|c| c.len() == size);
            bytes.extend(chunk.ok_or_else(|| Error::peer("qtest", format!("{line}: {answer}")))?);
        }
        Ok(bytes)
    }

    /// Writes guest memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        for (number, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let address = offset(address, number * CHUNK_BYTES);
            let mut line = format!("write {address:#x} {:#x} 0x", chunk.len());
            for byte in chunk {
                // Writing to a string cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
            self.command(&line)?;
        }
        Ok(())
    }

    /// Fills guest memory with a byte.
    pub fn fill(&mut self, address: u64, length: u64, byte: u8) -> Result<()> {
        self.command(&format!("memset {address:#x} {length:#x} {byte:#x}"))
            .map(drop)
    }

    /// From now on, tells the input lines of the interrupt controller at this QOM path (`ioapic`), and keeps
    /// their interrupts from the guest.
    pub fn irq_intercept_in(&mut self, controller: &str) -> Result<()> {
        self.command(&format!("irq_intercept_in {controller}"))
            .map(drop)
    }

    /// The same for the output lines of a device.
    pub fn irq_intercept_out(&mut self, device: &str) -> Result<()> {
        self.command(&format!("irq_intercept_out {device}"))
            .map(drop)
    }

    /// The level of an intercepted line, as far as was heard.
    pub fn line(&self, number: u32) -> bool {
        self.lines.get(&number).copied().unwrap_or(false)
    }

    /// How often an intercepted line was raised, as far as was heard.
    pub fn raised(&self, number: u32) -> u64 {
        self.raised.get(&number).copied().unwrap_or(0)
    }

    /// All intercepted lines that are raised now, as far as was heard.
    pub fn raised_lines(&self) -> impl Iterator<Item = u32> + '_ {
        self.lines
            .iter()
            .filter(|(_, level)| **level)
            .map(|(line, _)| *line)
    }

    /// Waits until some intercepted line changes, and returns it with its level.
    pub fn wait_irq(&mut self, limit: Duration) -> Result<(u32, bool)> {
        let deadline = Instant::now() + limit;
        let line = self.read_line(deadline)?;
        self.interrupt(&line)
            .ok_or_else(|| Error::peer("qtest", format!("an answer to no question: {line}")))
    }

    /// Moves the virtual clock by `step`, or to its next timer; returns the new time in ns.
    pub fn clock_step(&mut self, step: Option<Duration>) -> Result<u64> {
        let line = match step {
            Some(step) => format!("clock_step {}", step.as_nanos()),
            None => "clock_step".to_owned(),
        };
        let answer = self.command(&line)?;
        let time = answer.parse();
        time.map_err(|_| Error::peer("qtest", format!("{line}: {answer}")))
    }

    /// Sends one line and returns what follows `OK`.
    ///
    /// # Errors
    /// With QEMU's words when it answers `FAIL` or `ERR`, and when it is gone.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.reader
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .map_err(Error::io(format!("qtest {}", shortened(line))))?;
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            let answer = self.read_line(deadline)?;
            if self.interrupt(&answer).is_some() {
                continue;
            }
            return match answer.strip_prefix("OK") {
                Some(rest) => Ok(rest.trim().to_owned()),
                None => Err(Error::peer(
                    "qtest",
                    format!("{}: {answer}", shortened(line)),
                )),
            };
        }
    }

    /// A command whose answer is one number.
    fn number<T: TryFrom<u64>>(&mut self, line: &str) -> Result<T> {
        let answer = self.command(line)?;
        let value = answer
            .strip_prefix("0x")
            .and_then(|hex| u64::from_str_radix(hex, 16).ok());
        value
            .and_then(|v| T::try_from(v).ok())
            .ok_or_else(|| Error::peer("qtest", format!("{line}: {answer}")))
    }

    fn read_line(&mut self, deadline: Instant) -> Result<String> {
        let what = "qtest: waiting for a line";
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean no timeout at all.
        let timeout = left.max(Duration::from_millis(1));
        self.reader
            .get_mut()
            .set_read_timeout(Some(timeout))
            .map_err(Error::io(what))?;
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(Error::peer("qtest", "QEMU closed its socket")),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(e) => Err(Error::io(what)(e)),
        }
    }

    /// Notes a line like `IRQ raise 16`; nothing else is one.
    fn interrupt(&mut self, line: &str) -> Option<(u32, bool)> {
        let (action, number) = line.strip_prefix("IRQ ")?.split_once(' ')?;
        let number = number.trim().parse().ok()?;
        let level = match action {
            "raise" => true,
            "lower" => false,
            _ => return None,
        };
        if level {
            *self.raised.entry(number).or_default() += 1;
        }
        self.lines.insert(number, level);
        Some((number, level))
    }
}

fn offset(address: u64, by: usize) -> u64 {
    address.wrapping_add(u64::try_from(by).unwrap_or(u64::MAX))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let pair = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

/// A `write` line would fill the screen.
fn shortened(line: &str) -> &str {
    line.get(..80).unwrap_or(line)
}
