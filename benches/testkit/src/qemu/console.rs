//! A serial port of the guest: what it writes is kept, lines can be awaited and sent.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// What is kept at most; a guest that writes more is cut off.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A serial console.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    shared: Arc<Shared>,
    /// Where the next [`Console::wait_line`] begins to look.
    seen: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told of every change of the state.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    closed: bool,
}

impl Console {
    /// Reads the console on a thread of its own, which ends with QEMU.
    pub(super) fn start(stream: UnixStream) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let input = stream
            .try_clone()
            .map_err(Error::io("cannot share the console"))?;
        let kept = Arc::clone(&shared);
        std::thread::spawn(move || keep_reading(input, &kept));
        Ok(Self {
            stream,
            shared,
            seen: 0,
        })
    }

    /// All that was written so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().text).into_owned()
    }

    /// Waits for the next complete line that contains `needle`, after the one found before, and returns it.
    ///
    /// # Errors
    /// With the end of the console when `limit` passes or QEMU closes it first.
    pub fn wait_line(&mut self, needle: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(end) = state.text[self.seen..].iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&state.text[self.seen..self.seen + end]);
                let line = line.trim_end().to_owned();
                self.seen += end + 1;
                if line.contains(needle) {
                    return Ok(line);
                }
            }
            if state.closed {
                return Err(Error::peer(
                    "guest",
                    format!("the console ended before {needle:?}:\n{}", tail(&state)),
                ));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = tail(&state);
                return Err(Error::TimedOut {
                    who: "guest".to_owned(),
                    what: format!("a console line with {needle:?}"),
                    limit,
                    log,
                });
            }
            state = self.wait(state, left);
        }
    }

    /// Sends a line to the guest.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .map_err(Error::io("cannot write to the console"))
    }

    /// Waits until QEMU has closed the console, so that nothing of it is missing.
    pub(crate) fn wait_closed(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::peer("guest", "QEMU did not close the console"));
            }
            state = self.wait(state, left);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let waited = self.shared.changed.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn keep_reading(mut input: UnixStream, shared: &Shared) {
    let mut buffer = [0; 4096];
    loop {
        let count = input.read(&mut buffer).unwrap_or(0);
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT_BYTES_MAX - state.text.len();
        state.text.extend_from_slice(&buffer[..count.min(room)]);
        state.closed = count == 0 || room == 0;
        shared.changed.notify_all();
        if state.closed {
            return;
        }
    }
}

fn tail(state: &State) -> String {
    let from = state.text.len().saturating_sub(8 * 1024);
    String::from_utf8_lossy(&state.text[from..]).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn lines_are_found_in_order_across_partial_writes() {
        let (mut guest, kit) = UnixStream::pair().unwrap();
        let mut console = Console::start(kit).unwrap();

        guest.write_all(b"one\r\nRES").unwrap();
        guest.write_all(b"ULT a\r\nRESULT b\r\n").unwrap();

        assert_eq!(console.wait_line("RESULT", LONG).unwrap(), "RESULT a");
        assert_eq!(console.wait_line("RESULT", LONG).unwrap(), "RESULT b");
    }

    #[test]
    fn a_console_that_ends_is_an_error_with_its_text() {
        let (mut guest, kit) = UnixStream::pair().unwrap();
        let mut console = Console::start(kit).unwrap();
        guest.write_all(b"Kernel panic\n").unwrap();
        drop(guest);

        let error = console.wait_line("READY", LONG).unwrap_err();

        assert!(error.to_string().contains("Kernel panic"), "{error}");
    }

    #[test]
    fn a_line_that_does_not_come_is_an_error() {
        let (_guest, kit) = UnixStream::pair().unwrap();
        let mut console = Console::start(kit).unwrap();

        let error = console
            .wait_line("READY", Duration::from_millis(1))
            .unwrap_err();

        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    }

    #[test]
    fn what_is_sent_reaches_the_guest() {
        let (mut guest, kit) = UnixStream::pair().unwrap();
        let mut console = Console::start(kit).unwrap();

        console.send_line("go").unwrap();

        let mut got = [0; 3];
        guest.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"go\n");
    }
}
