//! A vfio-user client and its accesses. Each answer is checked, so that no server that does nothing passes for a fast one.

use std::path::Path;
use std::time::{Duration, Instant};

use super::path::GuestKind;
use super::registers::{BAR2, CONFIG, INPUT, OUTPUT, Registers, VENDOR_AND_DEVICE};
use crate::error::BenchError;
use crate::stats::Latencies;

/// Writes without a reply of one round: many times what a socket's buffer holds, so that the server's pace counts.
pub(crate) const POSTED_WRITES: u32 = 20_000;

/// A connected client, and under which name its figures go.
pub(super) struct Guest {
    path: String,
    client: Client,
    /// As they must be after all that was written.
    expected: Registers,
}

enum Client {
    Potemkin(potemkin_vfio_user::Client),
    Crate(vfio_user::Client),
}

/// What one round gave.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) reads: Latencies,
    /// Each with its reply.
    pub(super) writes: Latencies,
    pub(super) config_reads: Latencies,
    /// [`POSTED_WRITES`] writes without a reply and one read. Missing: the client cannot.
    pub(super) posted: Option<Duration>,
}

impl Guest {
    pub(super) fn connect(kind: GuestKind, path: &str, socket: &Path) -> Result<Self, BenchError> {
        let client = match kind {
            GuestKind::Potemkin => potemkin_vfio_user::Client::connect(socket)
                .map(Client::Potemkin)
                .map_err(|source| ours(path, source))?,
            GuestKind::Crate => vfio_user::Client::new(socket)
                .map(Client::Crate)
                .map_err(|source| theirs(path, source))?,
        };
        let path = path.to_owned();
        Ok(Self {
            path,
            client,
            expected: Registers::new(),
        })
    }

    /// So many accesses of each kind that has a reply, one after the other, and then those without.
    pub(super) fn round(&mut self, accesses: u32) -> Result<Round, BenchError> {
        Ok(Round {
            writes: self.writes(accesses)?,
            reads: self.reads(accesses)?,
            config_reads: self.config_reads(accesses)?,
            posted: self.posted_writes()?,
        })
    }

    fn writes(&mut self, count: u32) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        for value in values(count) {
            let start = Instant::now();
            self.write(value)?;
            latencies.record(start.elapsed());
            self.expected.output(value);
        }
        Ok(latencies)
    }

    fn reads(&mut self, count: u32) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        for _ in 0..count {
            let mut value = [0];
            let start = Instant::now();
            self.read(BAR2, INPUT, &mut value)?;
            latencies.record(start.elapsed());
            self.check_input(value)?;
        }
        Ok(latencies)
    }

    fn config_reads(&mut self, count: u32) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        for _ in 0..count {
            let mut value = [0; 4];
            let start = Instant::now();
            self.read(CONFIG, 0, &mut value)?;
            latencies.record(start.elapsed());
            self.check("the ids", u32::from_le_bytes(value), VENDOR_AND_DEVICE)?;
        }
        Ok(latencies)
    }

    fn posted_writes(&mut self) -> Result<Option<Duration>, BenchError> {
        let Client::Potemkin(client) = &mut self.client else {
            return Ok(None);
        };
        let start = Instant::now();
        for value in values(POSTED_WRITES) {
            client
                .region_write(BAR2, OUTPUT, &[value], true)
                .map_err(|source| ours(&self.path, source))?;
        }
        let mut last = [0];
        self.read(BAR2, INPUT, &mut last)?;
        let elapsed = start.elapsed();
        values(POSTED_WRITES).for_each(|value| self.expected.output(value));
        self.check_input(last)?;
        Ok(Some(elapsed))
    }

    fn read(&mut self, region: u32, offset: u64, out: &mut [u8]) -> Result<(), BenchError> {
        match &mut self.client {
            Client::Potemkin(client) => client
                .region_read(region, offset, out)
                .map_err(|source| ours(&self.path, source)),
            Client::Crate(client) => client
                .region_read(region, offset, out)
                .map_err(|source| theirs(&self.path, source)),
        }
    }

    fn write(&mut self, value: u8) -> Result<(), BenchError> {
        match &mut self.client {
            Client::Potemkin(client) => client
                .region_write(BAR2, OUTPUT, &[value], false)
                .map_err(|source| ours(&self.path, source)),
            Client::Crate(client) => client
                .region_write(BAR2, OUTPUT, &[value])
                .map_err(|source| theirs(&self.path, source)),
        }
    }

    fn check_input(&self, [found]: [u8; 1]) -> Result<(), BenchError> {
        self.check("the pins", found.into(), self.expected.input().into())
    }

    fn check(&self, register: &'static str, found: u32, expected: u32) -> Result<(), BenchError> {
        if found == expected {
            return Ok(());
        }
        Err(BenchError::Value {
            path: self.path.clone(),
            register,
            found,
            expected,
        })
    }
}

/// What is written: each value sets other pins, so that one lost write shows.
fn values(count: u32) -> impl Iterator<Item = u8> {
    (1..=count).map(|number| number.to_le_bytes()[0])
}

fn ours(path: &str, source: potemkin_vfio_user::ClientError) -> BenchError {
    BenchError::Vfio {
        path: path.to_owned(),
        source,
    }
}

fn theirs(path: &str, source: vfio_user::Error) -> BenchError {
    BenchError::VfioCrate {
        path: path.to_owned(),
        source,
    }
}
