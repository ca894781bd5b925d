//! What a host counts.

use metrics::{Counter, Gauge, counter, gauge};
use potemkin_proto::v1::CloseCode;

use crate::bus::REASONS;
use crate::tally::Tally;

/// Handles of the process's metrics; made after the recorder was installed.
#[derive(Clone)]
pub(crate) struct Meters {
    sessions: Gauge,
    sessions_started: Counter,
    paths_lost: Counter,
    resumed: Counter,
    frames_received: Counter,
    frames_sent: Counter,
    bytes_received: Counter,
    bytes_sent: Counter,
    reads: Counter,
    posted_writes: Counter,
    non_posted_writes: Counter,
    resets: Counter,
    dma_written_bytes: Counter,
    dma_read_bytes: Counter,
    dma_failed: [Counter; REASONS.len()],
    msi: Counter,
    msix: Counter,
    intx: Counter,
    refused: Counter,
    out_of_bounds: Counter,
    violations: Counter,
    slow_turns: Counter,
    pub(crate) fences: Counter,
    pub(crate) registrations: Gauge,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let accesses = |kind| counter!("potemkin_host_accesses_total", "kind" => kind);
        let not_served = |why| counter!("potemkin_host_accesses_not_served_total", "why" => why);
        let dma_bytes = |way| counter!("potemkin_host_dma_bytes_total", "direction" => way);
        let dma_failed = |why| counter!("potemkin_host_dma_failed_total", "reason" => why);
        let interrupts = |kind| counter!("potemkin_host_interrupts_total", "kind" => kind);
        Self {
            sessions: gauge!("potemkin_host_sessions"),
            sessions_started: counter!("potemkin_host_sessions_started_total"),
            paths_lost: counter!("potemkin_host_paths_lost_total"),
            resumed: counter!("potemkin_host_sessions_resumed_total"),
            frames_received: counter!("potemkin_host_frames_received_total"),
            frames_sent: counter!("potemkin_host_frames_sent_total"),
            bytes_received: counter!("potemkin_host_bytes_received_total"),
            bytes_sent: counter!("potemkin_host_bytes_sent_total"),
            reads: accesses("read"),
            posted_writes: accesses("write_posted"),
            non_posted_writes: accesses("write_non_posted"),
            resets: accesses("reset"),
            dma_written_bytes: dma_bytes("write"),
            dma_read_bytes: dma_bytes("read"),
            dma_failed: REASONS.map(|(_, name)| dma_failed(name)),
            msi: interrupts("msi"),
            msix: interrupts("msix"),
            intx: interrupts("intx"),
            refused: not_served("refused_by_device"),
            out_of_bounds: not_served("out_of_bounds"),
            violations: counter!("potemkin_host_violations_total"),
            slow_turns: counter!("potemkin_host_slow_turns_total"),
            fences: counter!("potemkin_host_fences_total"),
            registrations: gauge!("potemkin_host_registrations"),
        }
    }

    pub(crate) fn session_started(&self) {
        self.sessions_started.increment(1);
        self.sessions.increment(1);
    }

    pub(crate) fn session_ended(&self) {
        self.sessions.decrement(1);
    }

    pub(crate) fn path_lost(&self) {
        self.paths_lost.increment(1);
    }

    pub(crate) fn resumed(&self) {
        self.resumed.increment(1);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.frames_received.increment(1);
        self.bytes_received.increment(bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.frames_sent.increment(1);
        self.bytes_sent.increment(bytes as u64);
    }

    pub(crate) fn executed(&self, tally: &Tally) {
        let traffic = &tally.traffic;
        let parts = [
            (&self.reads, tally.reads),
            (&self.posted_writes, tally.posted_writes),
            (&self.non_posted_writes, tally.non_posted_writes),
            (&self.resets, tally.resets),
            (&self.dma_written_bytes, traffic.written_bytes),
            (&self.dma_read_bytes, traffic.read_bytes),
            (&self.msi, traffic.msi),
            (&self.msix, traffic.msix),
            (&self.intx, traffic.intx),
            (&self.refused, tally.refused),
            (&self.out_of_bounds, tally.out_of_bounds),
        ];
        let failed = self.dma_failed.iter().zip(traffic.failed);
        for (counter, count) in parts.into_iter().chain(failed) {
            if count > 0 {
                counter.increment(count);
            }
        }
    }

    pub(crate) fn violation(&self) {
        self.violations.increment(1);
    }

    pub(crate) fn slow_turn(&self) {
        self.slow_turns.increment(1);
    }

    pub(crate) fn refused_open(&self, code: CloseCode) {
        counter!("potemkin_host_opens_refused_total", "code" => code.as_str_name()).increment(1);
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}
