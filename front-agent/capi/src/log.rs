//! What the library has to say to an operator.
#![allow(unsafe_code, reason = "an exported function")]

use std::{
    ffi::{CString, c_char, c_void},
    fmt::{self, Write as _},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    layer::{Context, Layer, SubscriberExt as _},
    registry,
};

use crate::{
    boundary::{call, callback},
    status::Status,
};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LogLevel {
    /// Something was lost.
    Error = 1,
    /// Something is not as it should be, and all goes on.
    Warning = 2,
    /// Something changed its state.
    Info = 3,
    /// For whoever looks for a fault; among it accesses that a device's description wants shown.
    Debug = 4,
}

type Log = extern "C" fn(user: *mut c_void, level: LogLevel, line: *const c_char);

/// From here on `log` gets what the library has to say, of all functions of the process: lines of UTF-8 without an end, of `level`
/// (a `potemkin_log_level`) and those that matter more. Without this call nothing is said. It can be made once a process.
///
/// A line comes on whichever thread it concerns, several at a time, and is valid during the call only. As for the other callbacks: it
/// returns soon, calls nothing of this library, takes no lock that a thread holds inside a call.
///
/// # Safety
/// `user` may be used on any thread until the process ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn potemkin_set_log(
    level: u32,
    log: Option<extern "C" fn(user: *mut c_void, level: LogLevel, line: *const c_char)>,
    user: *mut c_void,
) -> Status {
    call(|| {
        let level = match level {
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => return Err(Status::InvalidArgument),
        };
        let log = log.ok_or(Status::InvalidArgument)?;
        let lines = registry().with(Lines { level, log, user });
        tracing::subscriber::set_global_default(lines).map_err(|_| Status::InvalidArgument)
    })
}

/// Hands events to the VMM.
struct Lines {
    level: LevelFilter,
    log: Log,
    user: *mut c_void,
}

// SAFETY: a function, and a pointer that we only hand back. `potemkin_set_log` asks its caller for one that any thread may use.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

impl<S: Subscriber> Layer<S> for Lines {
    /// Ours only: the libraries beneath tell of their own inner life.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("potemkin")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line(format!("{}:", metadata.target()));
        event.record(&mut line);
        // A peer's words may have a zero byte.
        let line = CString::new(line.0.replace('\0', " ")).unwrap_or_default();
        callback(|| (self.log)(self.user, level(*metadata.level()), line.as_ptr()));
    }
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warning,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

/// The message, then what belongs to it, in one line.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
