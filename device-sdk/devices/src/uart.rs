//! A serial port as PCs have it: a 16550A at fixed ports, without PCI. Or in memory, as other machines have it.
//!
//! | region | | |
//! | --- | --- | --- |
//! | 0 | 8 ports, from 0x3f8 on unless told otherwise, or 8 bytes of memory | the registers of a 16550A, 1 byte each (vm-superio's model); an interrupt line, 4 unless told otherwise |
//! | | port 0x80 | ignored: firmware writes its progress there (not of one in memory) |
//!
//! What the guest sends comes back, as with a loop-back plug, or is appended to a file.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use potemkin_pci::BuildError;
use potemkin_sdk::{
    AccessError, AddressKind, BarIndex, Descriptor, Device, DeviceHandle, PlatformBuilder,
    PlatformRange, Register, ResetKind, Space, Width,
};
use vm_superio::{Serial, Trigger, serial::NoEvents};

const REGISTERS_BYTES: u64 = 8;

/// Where firmware writes its progress.
const PROGRESS_PORT: u64 = 0x80;

/// Interrupt identification: no interrupt is pending (16550A data sheet, section 8.6).
const NOT_PENDING: u8 = 1;

/// The device.
#[derive(Debug)]
pub struct Uart {
    descriptor: Descriptor,
    serial: Serial<Silent, NoEvents, Wire>,
    handle: Option<DeviceHandle>,
}

/// The model reports edges; the line is a level, which is looked at after each access.
#[derive(Debug)]
struct Silent;

impl Trigger for Silent {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// What hangs on the transmitter.
#[derive(Debug)]
enum Wire {
    /// Sent, and not received yet.
    Plug(Vec<u8>),
    File(File),
}

impl Write for Wire {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plug(sent) => sent.write(data),
            Self::File(file) => file.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no such serial port.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UartError {
    /// The ports do not fit, or lie where others are.
    #[error("port")]
    Port(#[from] BuildError),
    /// The file cannot be appended to.
    #[error("output: {}", path.display())]
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Uart {
    /// The first port of a PC's first serial port.
    pub const DEFAULT_PORT: u64 = 0x3f8;
    /// Its interrupt line.
    pub const DEFAULT_LINE: u32 = 4;

    /// A serial port at `port`, whose line is `line`, with a loop-back plug.
    ///
    /// # Errors
    /// There are no such ports.
    pub fn new(port: u64, line: u32) -> Result<Self, UartError> {
        let registers =
            PlatformRange::forward(BarIndex::B0, AddressKind::Port, port, REGISTERS_BYTES);
        let progress = PlatformRange::ignore(AddressKind::Port, PROGRESS_PORT, 1).logged();
        Self::of(PlatformBuilder::new().at(registers).at(progress).line(line))
    }

    /// The same in memory, at `address`.
    ///
    /// # Errors
    /// There are no such addresses.
    pub fn memory_mapped(address: u64, line: u32) -> Result<Self, UartError> {
        let kind = AddressKind::Memory;
        let registers = PlatformRange::forward(BarIndex::B0, kind, address, REGISTERS_BYTES);
        Self::of(PlatformBuilder::new().at(registers).line(line))
    }

    fn of(builder: PlatformBuilder) -> Result<Self, UartError> {
        Ok(Self {
            descriptor: builder.build()?,
            serial: Serial::new(Silent, Wire::Plug(Vec::new())),
            handle: None,
        })
    }

    /// The same serial port, but what the guest sends is appended to a regular file.
    ///
    /// # Errors
    /// It cannot be opened for that.
    pub fn output(mut self, path: &Path) -> Result<Self, UartError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| UartError::Output {
            path: path.to_owned(),
            source,
        })?;
        self.serial = Serial::new(Silent, Wire::File(file));
        Ok(self)
    }

    /// Hands what was sent to the receiver, as far as it has room.
    fn receive(&mut self) {
        let room = self.serial.fifo_capacity();
        let Wire::Plug(sent) = self.serial.writer_mut() else {
            return;
        };
        let now: Vec<u8> = sent.drain(..sent.len().min(room)).collect();
        // What does not fit is lost, as on a wire.
        sent.clear();
        if !now.is_empty() && self.serial.enqueue_raw_bytes(&now).is_err() {
            tracing::debug!("the receiver is full");
        }
    }

    fn show_level(&self) {
        if let Some(handle) = &self.handle {
            let pending = self.serial.state().interrupt_identification & NOT_PENDING == 0;
            handle.set_intx(pending);
        }
    }
}

/// The register's number, if the access is one byte of it.
fn register(at: Register) -> Result<u8, AccessError> {
    match at {
        Register {
            space: Space::Bar(BarIndex::B0),
            width: Width::B1,
            offset,
        } => u8::try_from(offset).map_err(|_| AccessError::NoRegister(at)),
        _ => Err(AccessError::Width(at)),
    }
}

impl Device for Uart {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn attached(&mut self, handle: DeviceHandle) {
        self.handle = Some(handle);
    }

    fn read(&mut self, at: Register) -> Result<u64, AccessError> {
        let value = self.serial.read(register(at)?);
        self.show_level();
        Ok(value.into())
    }

    fn write(&mut self, at: Register, value: u64) -> Result<(), AccessError> {
        let [value, ..] = value.to_le_bytes();
        let written = self.serial.write(register(at)?, value);
        self.receive();
        self.show_level();
        written.map_err(|_| AccessError::Failed("its output cannot be written"))
    }

    fn reset(&mut self, _: ResetKind) {
        let wire = match self.serial.writer_mut() {
            Wire::Plug(_) => Wire::Plug(Vec::new()),
            Wire::File(file) => match file.try_clone() {
                Ok(file) => Wire::File(file),
                // Then the guest's bytes come back, which it will notice.
                Err(error) => {
                    tracing::warn!(%error, "the serial port's output is lost");
                    Wire::Plug(Vec::new())
                }
            },
        };
        self.serial = Serial::new(Silent, wire);
        self.show_level();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use potemkin_sdk::{BlockMode, testing::Harness};

    use super::*;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const IDENTIFICATION: u64 = 2;
    const LINE_STATUS: u64 = 5;
    const SCRATCH: u64 = 7;

    fn at(offset: u64) -> Register {
        Register::new(Space::Bar(BarIndex::B0), offset, Width::B1)
    }

    fn plugged() -> Harness<Uart> {
        Harness::new(Uart::new(Uart::DEFAULT_PORT, Uart::DEFAULT_LINE).unwrap())
    }

    #[test]
    fn what_is_sent_comes_back_and_raises_the_line_until_it_is_read() {
        let mut uart = plugged();
        uart.write(at(INTERRUPT_ENABLE), 1).unwrap();

        uart.write(at(DATA), 0x41).unwrap();

        assert!(uart.intx());
        assert_eq!(uart.read(at(IDENTIFICATION)) & 0xf, 4, "data");
        assert_eq!(uart.read(at(LINE_STATUS)) & 1, 1);
        assert_eq!(uart.read(at(DATA)), 0x41);
        assert!(!uart.intx());
        assert_eq!(uart.read(at(LINE_STATUS)) & 1, 0);
    }

    #[test]
    fn a_string_of_bytes_goes_out_and_comes_back_in_order() {
        let mut uart = plugged();

        uart.write_block(at(DATA), BlockMode::Fixed, b"hello")
            .unwrap();

        assert_eq!(uart.read_block(at(DATA), BlockMode::Fixed, 5), b"hello");
    }

    #[test]
    fn registers_are_a_byte_wide() {
        let mut uart = plugged();
        let wide = Register::new(Space::Bar(BarIndex::B0), 0, Width::B2);

        assert!(matches!(uart.try_read(wide), Err(AccessError::Width(_))));
        assert!(matches!(uart.write(wide, 1), Err(AccessError::Width(_))));
    }

    #[test]
    fn a_reset_forgets_registers_bytes_and_the_line() {
        let mut uart = plugged();
        uart.write(at(INTERRUPT_ENABLE), 1).unwrap();
        uart.write(at(SCRATCH), 0x5a).unwrap();
        uart.write(at(DATA), 0x41).unwrap();

        uart.reset(ResetKind::Function);

        assert!(!uart.intx());
        assert_eq!(uart.read(at(SCRATCH)), 0);
        assert_eq!(uart.read(at(LINE_STATUS)) & 1, 0);
    }

    #[test]
    fn a_file_takes_what_is_sent_across_resets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        let uart = Uart::new(0x2f8, 3).unwrap().output(&path).unwrap();
        let mut uart = Harness::new(uart);

        uart.write(at(DATA), b'a'.into()).unwrap();
        uart.reset(ResetKind::Session);
        uart.write(at(DATA), b'b'.into()).unwrap();

        assert_eq!(std::fs::read(&path).unwrap(), b"ab");
    }

    #[test]
    fn ports_beyond_the_last_one_are_refused() {
        assert!(matches!(Uart::new(0xfffc, 4), Err(UartError::Port(_))));
    }
}
