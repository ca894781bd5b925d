//! What a measurement asks of a path.

use std::fmt;
use std::time::Duration;

use crate::error::BenchError;
use crate::stats::Latencies;

/// Posted writes of one burst: what a driver may queue before it looks at the device again.
pub(crate) const BURST_WRITES: u32 = 1_000;
/// Posted writes of one sustained run: several times the session's window, so that the device's pace counts.
pub(crate) const SUSTAINED_WRITES: u32 = 100_000;
/// Config reads that are timed together: one takes less than reading the clock.
pub(crate) const CONFIG_READS: u32 = 10_000;

/// A path whose reads are measured.
pub(crate) trait Probe: fmt::Debug {
    /// Reads one register so often, one read after the other.
    fn read_round(&mut self, reads: u32) -> Result<Latencies, BenchError>;

    /// The same path, if its writes and local accesses are measured, too.
    fn writer(&mut self) -> Option<&mut dyn Writer> {
        None
    }
}

/// A path whose writes and local accesses are measured.
pub(crate) trait Writer {
    /// [`BURST_WRITES`] posted writes and then one read.
    fn burst(&mut self) -> Result<Burst, BenchError>;

    /// [`SUSTAINED_WRITES`] posted writes and then one read; the time for all.
    fn sustained(&mut self) -> Result<Duration, BenchError>;

    /// [`CONFIG_READS`] reads of the vendor and device id; the time for all.
    fn config_reads(&mut self) -> Result<Duration, BenchError>;
}

/// What a burst took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    /// Until the last write was issued.
    pub(crate) issued: Duration,
    /// Until the read behind them was answered.
    pub(crate) answered: Duration,
    /// Of the session, for the burst and its read.
    pub(crate) frames_sent: u64,
    /// Of the session, for the burst and its read.
    pub(crate) frames_received: u64,
    /// Times that something waited for the host.
    pub(crate) round_trips: u64,
}
