//! The accesses that are timed, as a front library's user makes them: each answer is checked, so that no lost session passes for
//! a fast one.

use std::time::{Duration, Instant};

use potemkin_front_core::FrontDevice;
use potemkin_pci::{BarIndex, Space};

use crate::error::BenchError;
use crate::probe::{BURST_WRITES, Burst, CONFIG_READS, SUSTAINED_WRITES};
use crate::stats::Latencies;

/// The region of a vfio-user function that is BAR 0, and the one that is its configuration space.
pub(crate) const BAR0_REGION: u32 = 0;
pub(crate) const CONFIG_REGION: u32 = 7;
/// The command register in configuration space (PCI 3.0 section 6.2.2), and its bit that turns memory decode on.
pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const COMMAND_MEMORY: [u8; 2] = [0x02, 0x00];

/// `edu`'s identification register in BAR 0: read-only, always the same.
pub(crate) const IDENTIFICATION: u64 = 0x00;
pub(crate) const IDENTIFICATION_VALUE: u32 = 0x0100_00ed;
/// `edu`'s liveness register in BAR 0: gives the complement of what was written last.
const LIVENESS: u64 = 0x04;
/// `edu`'s vendor and device id, as a config read gives them.
const VENDOR_AND_DEVICE: u32 = 0x11e8_1234;

const BAR0: Space = Space::Bar(BarIndex::B0);

/// How a front device is used.
pub(crate) trait Guest {
    fn device(&self) -> &FrontDevice;
    async fn read(&self, offset: u64, out: &mut [u8; 4]);
    async fn write(&self, offset: u64, data: &[u8; 4]);
    async fn config_read(&self, out: &mut [u8; 4]);
}

/// By the calls that wait on the caller's own runtime, which drives the session, too.
pub(crate) struct Async<'a>(pub(crate) &'a FrontDevice);

/// By the calls that block, while another thread drives the session. Its futures are ready at once.
pub(crate) struct Blocking<'a>(pub(crate) &'a FrontDevice);

/// A function that is attached, and under which name its figures go.
pub(crate) struct Accesses<'a, G> {
    pub(crate) path: &'a str,
    pub(crate) guest: G,
}

impl<G: Guest> Accesses<'_, G> {
    /// Turns memory decode on, as a guest's driver does.
    pub(crate) async fn enable(&self) {
        self.guest
            .device()
            .config_write(COMMAND, &COMMAND_MEMORY)
            .await;
    }

    pub(crate) async fn reads(&self, count: u32) -> Result<Latencies, BenchError> {
        let mut latencies = Latencies::new();
        for _ in 0..count {
            let mut value = [0; 4];
            let start = Instant::now();
            self.guest.read(IDENTIFICATION, &mut value).await;
            latencies.record(start.elapsed());
            check_identification(self.path, value)?;
        }
        Ok(latencies)
    }

    pub(crate) async fn burst(&self) -> Result<Burst, BenchError> {
        let before = self.guest.device().session().counters();
        let start = Instant::now();
        self.writes(BURST_WRITES).await;
        let issued = start.elapsed();
        self.last_write_is(BURST_WRITES).await?;
        let answered = start.elapsed();
        let after = self.guest.device().session().counters();
        Ok(Burst {
            issued,
            answered,
            frames_sent: after.frames_sent - before.frames_sent,
            frames_received: after.frames_received - before.frames_received,
            round_trips: after.round_trips - before.round_trips,
        })
    }

    pub(crate) async fn sustained(&self) -> Result<Duration, BenchError> {
        let start = Instant::now();
        self.writes(SUSTAINED_WRITES).await;
        self.last_write_is(SUSTAINED_WRITES).await?;
        Ok(start.elapsed())
    }

    pub(crate) async fn config_reads(&self) -> Result<Duration, BenchError> {
        let mut value = [0; 4];
        let start = Instant::now();
        for _ in 0..CONFIG_READS {
            self.guest
                .config_read(std::hint::black_box(&mut value))
                .await;
        }
        let elapsed = start.elapsed();
        check(
            self.path,
            "the vendor and device id",
            value,
            VENDOR_AND_DEVICE,
        )?;
        Ok(elapsed)
    }

    async fn writes(&self, count: u32) {
        for number in 1..=count {
            self.guest.write(LIVENESS, &number.to_le_bytes()).await;
        }
    }

    /// Asks the device: it must have done all writes, and the last one last.
    async fn last_write_is(&self, number: u32) -> Result<(), BenchError> {
        let mut value = [0; 4];
        self.guest.read(LIVENESS, &mut value).await;
        check(self.path, "edu's liveness", value, !number)
    }
}

impl Guest for Async<'_> {
    fn device(&self) -> &FrontDevice {
        self.0
    }

    async fn read(&self, offset: u64, out: &mut [u8; 4]) {
        self.0.region_read(BAR0, offset, out).await;
    }

    async fn write(&self, offset: u64, data: &[u8; 4]) {
        self.0.region_write(BAR0, offset, data).await;
    }

    async fn config_read(&self, out: &mut [u8; 4]) {
        self.0.config_read(0, out).await;
    }
}

impl Guest for Blocking<'_> {
    fn device(&self) -> &FrontDevice {
        self.0
    }

    async fn read(&self, offset: u64, out: &mut [u8; 4]) {
        self.0.region_read_blocking(BAR0, offset, out);
    }

    async fn write(&self, offset: u64, data: &[u8; 4]) {
        self.0.region_write_blocking(BAR0, offset, data);
    }

    async fn config_read(&self, out: &mut [u8; 4]) {
        self.0.config_read_blocking(0, out);
    }
}

pub(crate) fn check_identification(path: &str, value: [u8; 4]) -> Result<(), BenchError> {
    check(path, "edu's identification", value, IDENTIFICATION_VALUE)
}

fn check(
    path: &str,
    register: &'static str,
    value: [u8; 4],
    expected: u32,
) -> Result<(), BenchError> {
    let found = u32::from_le_bytes(value);
    if found == expected {
        return Ok(());
    }
    Err(BenchError::Value {
        path: path.to_owned(),
        register,
        found,
        expected,
    })
}
