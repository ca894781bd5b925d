//! A client of the vfio-user server that sends anything: bytes, messages with true headers and any payload, descriptors of any kind.
//!
//! Whatever it sends, its connection ends in time when it stops sending, and the server serves the next client.

#![no_main]

use std::{
    cell::RefCell,
    io::{ErrorKind, IoSlice, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use potemkin_pci::{BarIndex, Space};
use potemkin_vfio_server::{
    ClientControl, DmaWindow, Function, FunctionInfo, Options, Region, Server,
};
use potemkin_vfio_user::{
    Client, Command, Errno, Header, MessageType, fdpass,
    message::{Capabilities, Version},
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, ftruncate, memfd_create},
};
use tokio::task::LocalSet;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    negotiate: bool,
    parts: Vec<Part<'a>>,
}

#[derive(Debug, Arbitrary)]
enum Part<'a> {
    Bytes(&'a [u8]),
    Message(Message<'a>),
    /// A write that has the function do something: interrupts, DMA by message.
    Poke {
        what: u8,
        value: u8,
    },
}

#[derive(Debug, Arbitrary)]
struct Message<'a> {
    id: u16,
    command: u8,
    no_reply: bool,
    reply: bool,
    /// Added to the true length.
    length_off: i8,
    payload: &'a [u8],
    descriptors: [Descriptor; 2],
}

#[derive(Debug, Arbitrary)]
enum Descriptor {
    None,
    Event,
    /// So many pages.
    Memory(u8),
    Socket,
}

impl Message<'_> {
    fn encode(&self) -> Vec<u8> {
        let length = self.payload.len() as u32;
        let length = length.saturating_add_signed(self.length_off.into());
        let mut header = Header::command(self.id, Command::Version, length);
        // 1 to 15 are known.
        header.command = u16::from(self.command % 24);
        header.no_reply = self.no_reply;
        if self.reply {
            header.message_type = MessageType::Reply;
        }
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes.extend_from_slice(self.payload);
        bytes
    }

    fn descriptors(&self) -> Vec<OwnedFd> {
        self.descriptors
            .iter()
            .filter_map(Descriptor::open)
            .collect()
    }
}

impl Descriptor {
    fn open(&self) -> Option<OwnedFd> {
        match self {
            Self::None => None,
            Self::Event => eventfd(0, EventfdFlags::CLOEXEC).ok(),
            Self::Memory(pages) => {
                let memory = memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?;
                ftruncate(&memory, u64::from(*pages) * 4096).ok()?;
                Some(memory)
            }
            Self::Socket => UnixStream::pair().ok().map(|(one, _)| one.into()),
        }
    }
}

/// A function that does with its client what a device may.
#[derive(Default)]
struct Busy {
    control: RefCell<Option<ClientControl>>,
}

impl Busy {
    fn poke(&self, what: u64, value: u8) {
        let Some(control) = self.control.borrow().clone() else {
            return;
        };
        match what {
            0 => drop(control.trigger_msix(value.into())),
            1 => drop(control.trigger_msi(value.into())),
            2 => control.set_intx(value & 1 != 0),
            3 => drop(control.request_unplug()),
            4 => drop(control.report_fatal_error()),
            5 => drop(tokio::task::spawn_local(async move {
                let _ = control
                    .dma_read(0, &mut vec![0; usize::from(value) << 4], || true)
                    .await;
            })),
            6 => drop(tokio::task::spawn_local(async move {
                let _ = control
                    .dma_write(0, &vec![1; usize::from(value) << 4], || true)
                    .await;
            })),
            _ => drop((
                control.msix_pending(value.into()),
                control.msi_pending(value.into()),
            )),
        }
    }
}

impl Function for Busy {
    fn info(&self) -> FunctionInfo {
        let mut bars = [Region::NONE; BarIndex::COUNT];
        bars[0] = Region::read_write(4096);
        bars[2] = Region::read_write(1 << 40);
        FunctionInfo {
            bars,
            rom: Region::read_only(2048),
            config_size: 4096,
            intx: true,
            msi_vectors: 32,
            msix_vectors: 2048,
        }
    }

    async fn config_read(&self, _: u16, out: &mut [u8]) {
        out.fill(0x5a);
    }

    async fn config_write(&self, _: u16, _: &[u8], _: bool) {}

    async fn region_read(&self, _: Space, _: u64, out: &mut [u8]) {
        out.fill(0xa5);
    }

    async fn region_write(&self, _: Space, offset: u64, data: &[u8], _: bool) {
        if let [value] = data {
            self.poke(offset, *value);
        }
    }

    fn end_of_input(&self) {}

    fn reset(&self) {}

    fn dma_map(&self, _: DmaWindow) -> Result<(), Errno> {
        Ok(())
    }

    fn dma_unmap(&self, _: u64, _: u64) {}

    fn connected(&self, control: ClientControl) {
        *self.control.borrow_mut() = Some(control);
    }

    fn disconnected(&self) {
        self.control.take();
    }
}

/// The socket of the one server.
fn server() -> &'static PathBuf {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let path = tempfile::tempdir()
            .expect("a folder")
            .keep()
            .join("fuzz.sock");
        let server = Server::bind(&path, Options::default()).expect("a socket");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            let function = Busy::default();
            let serving = server.serve(&function, std::future::pending());
            LocalSet::new()
                .block_on(&runtime, serving)
                .expect("no client can end it");
        });
        path
    })
}

fn negotiate(socket: &mut UnixStream) {
    let mut payload = Vec::new();
    let version = Version {
        major: 0,
        minor: 2,
        capabilities: Capabilities::ours(8),
    };
    version.encode(&mut payload);
    let mut bytes = Vec::new();
    Header::command(1, Command::Version, payload.len() as u32).encode(&mut bytes);
    bytes.extend(payload);
    let _ = socket.write_all(&bytes);
}

fn send(socket: &mut UnixStream, part: &Part<'_>) {
    // An error means that the server has ended the connection.
    match part {
        Part::Bytes(bytes) => drop(socket.write_all(bytes)),
        Part::Message(message) => {
            let descriptors = message.descriptors();
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            let bytes = message.encode();
            let _ = fdpass::send(&*socket, &[IoSlice::new(&bytes)], &borrowed);
        }
        Part::Poke { what, value } => {
            let mut payload = Vec::new();
            payload.extend(u64::from(what % 8).to_le_bytes());
            payload.extend([0, 0, 0, 0, 1, 0, 0, 0, *value]);
            let mut bytes = Vec::new();
            Header::command(2, Command::RegionWrite, payload.len() as u32).encode(&mut bytes);
            bytes.extend(payload);
            drop(socket.write_all(&bytes));
        }
    }
}

/// Until the server closes; a minute is for ever.
fn drain(socket: &mut UnixStream) {
    let limit = Some(Duration::from_secs(60));
    socket.set_read_timeout(limit).expect("a time limit");
    let mut out = [0; 4096];
    loop {
        match socket.read(&mut out) {
            Ok(0) => return,
            Ok(_) => {}
            // The fuzzer's own clock.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it hangs");
                return;
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let path = server();
    let mut socket = UnixStream::connect(path).expect("the server listens");
    // What it answers is not read meanwhile; a server whose client does not read must not need it to.
    socket.set_nonblocking(true).expect("a flag");
    if input.negotiate {
        negotiate(&mut socket);
    }
    for part in &input.parts {
        send(&mut socket, part);
    }
    socket.set_nonblocking(false).expect("a flag");
    let _ = socket.shutdown(std::net::Shutdown::Write);
    drain(&mut socket);
    drop(socket);

    let mut next = Client::connect(path).expect("the next client is served");
    let mut back = [0; 4];
    next.region_read(0, 0, &mut back).expect("an answer");
    assert_eq!(back, [0xa5; 4]);
});
