//! A function that is not on PCI: what is forwarded, ignored and shown. Its host never answers: the session is not open.

#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use potemkin_front_core::{FrontDevice, Outcome, Session, block_on};
use potemkin_pci::{AddressKind, BarIndex, PlatformBuilder, PlatformRange, Width};
use potemkin_session::{
    front::FrontConfig,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};
use tracing_subscriber::filter::LevelFilter;

const SHOWN: u16 = 0x80;
const QUIET: u16 = 0x84;
const FORWARDED: u16 = 0x3f8;

fn device() -> FrontDevice {
    let ignored = |port: u16| PlatformRange::ignore(AddressKind::Port, port.into(), 1);
    let registers =
        PlatformRange::forward(BarIndex::B0, AddressKind::Port, FORWARDED.into(), 8).logged();
    let descriptor = PlatformBuilder::new()
        .at(ignored(SHOWN).logged())
        .at(ignored(QUIET))
        .at(registers)
        .build()
        .unwrap();
    let session = Session::new(FrontConfig {
        path: Path {
            session: SessionId::from_halves(1, 2),
            epoch: Epoch(1),
            attach_number: AttachNumber(1),
        },
        host_incarnation: Incarnation::from_bytes([3; 16]),
        deadline: Duration::from_secs(1),
    });
    session.close("there is no host");
    FrontDevice::new(descriptor, session)
}

/// Takes log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an operator sees of `body` at this level.
fn shown(level: LevelFilter, body: impl Future<Output = ()>) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || block_on(body));
    let lines = lines.0.lock().unwrap().clone();
    String::from_utf8(lines).unwrap()
}

#[test]
fn what_is_ignored_reads_as_all_ones_without_a_host() {
    let device = device();
    block_on(async {
        let mut out = [0; 3];

        assert_eq!(device.port_read(QUIET, &mut out[..1]).await, Outcome::Done);
        let string = device.port_string_read(QUIET, Width::B1, &mut out).await;

        assert_eq!(string, Outcome::Done);
        assert_eq!(out, [0xff; 3]);
        assert_eq!(device.port_write(QUIET, &[1]).await, Outcome::Done);
        // What goes to the host fails; what lies between is another's.
        assert_eq!(device.port_write(FORWARDED, &[1]).await, Outcome::Failed);
        assert_eq!(device.port_write(0x81, &[1]).await, Outcome::NotDecoded);
    });
}

#[test]
fn accesses_of_a_range_that_is_to_be_seen_are_shown() {
    let device = device();
    let accesses = async || {
        let _ = device.port_write(SHOWN, &[0x5a]).await;
        let _ = device.port_write(QUIET, &[0x77]).await;
        let _ = device.port_read(FORWARDED, &mut [0]).await;
    };

    let seen = shown(LevelFilter::DEBUG, accesses());
    let unseen = shown(LevelFilter::INFO, accesses());

    let lines: Vec<_> = seen
        .lines()
        .filter(|line| line.contains("potemkin::access"))
        .collect();
    assert_eq!(lines.len(), 2, "{seen}");
    assert!(lines[0].contains("write") && lines[0].contains("address=0x80 data=[5a]"));
    assert!(lines[1].contains("read") && lines[1].contains("address=0x3f8 data=[ff]"));
    assert!(!unseen.contains("potemkin::access"), "{unseen}");
}
