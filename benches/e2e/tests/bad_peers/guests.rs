//! VMMs that lie about sizes, counts, offsets and descriptors. A socket serves one client at a time.

use std::{
    fs::File,
    io::{ErrorKind, IoSlice, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use potemkin_vfio_user::{
    Command, HEADER_LEN, Header, MAX_MESSAGE, fdpass,
    message::{Capabilities, DmaMap, Protection, RegionAccess, Version},
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, memfd_create},
};

use crate::{
    dice::Dice,
    kind::{Kind, Verdict, Who},
    scene::Scene,
};

const LIMIT: Duration = Duration::from_secs(30);

type Act = fn(&mut Vmm, &Dice) -> Verdict;

pub(crate) fn kinds() -> Vec<Kind> {
    let kinds: [(&str, bool, Act, &[&str]); 12] = [
        (
            "speaks another protocol",
            false,
            another_protocol,
            &["client disconnected", "fault="],
        ),
        (
            "does not begin with VERSION",
            false,
            no_version,
            &["client disconnected", "VERSION has to come first"],
        ),
        (
            "another major version",
            false,
            another_version,
            &["client disconnected", "major version"],
        ),
        (
            "lies about the size of a message",
            true,
            sizes,
            &["client disconnected", "fault="],
        ),
        (
            "leaves in the middle of a message",
            true,
            leaves,
            &["in the middle of a message"],
        ),
        (
            "unknown command",
            true,
            unknown_command,
            &["request refused"],
        ),
        (
            "regions that are not there",
            true,
            regions,
            &["request refused", "REGION_READ"],
        ),
        (
            "offsets and counts beyond a region",
            true,
            offsets,
            &["request refused", "REGION_READ"],
        ),
        (
            "data other than counted",
            true,
            data,
            &["request refused", "REGION_WRITE"],
        ),
        (
            "memory that is not there",
            true,
            memory,
            &["request refused", "DMA_MAP"],
        ),
        (
            "interrupts that are not there",
            true,
            interrupts,
            &["request refused", "SET_IRQS"],
        ),
        (
            "descriptors where none belong",
            true,
            descriptors,
            &["request refused"],
        ),
    ];
    kinds
        .into_iter()
        .map(|(name, negotiates, act, words)| {
            Kind::blocking(format!("vmm: {name}"), move |scene, dice| {
                visit(scene, negotiates, act, &dice)
            })
            .at_a_time(1)
            .logged(Who::Front, words)
        })
        .collect()
}

fn visit(scene: &Scene, negotiates: bool, act: Act, dice: &Dice) -> Verdict {
    let socket = UnixStream::connect(&scene.hostile_socket).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut vmm = Vmm { socket };
    if negotiates {
        vmm.negotiate()?;
    }
    act(&mut vmm, dice)
}

/// A client that sends whatever it is told to.
struct Vmm {
    socket: UnixStream,
}

impl Vmm {
    fn negotiate(&mut self) -> Verdict {
        let mut payload = Vec::new();
        Version {
            major: 0,
            minor: 2,
            capabilities: Capabilities::ours(1),
        }
        .encode(&mut payload);
        self.send(&message(Command::Version, &payload), &[]);
        match self.reply()? {
            Some(header) if !header.failed => Ok(()),
            other => Err(format!("VERSION is answered by {other:?}")),
        }
    }

    /// An error means that the server has hung up, which is found out by reading.
    fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        if fds.is_empty() {
            let _ = self.socket.write_all(bytes);
        } else {
            let _ = fdpass::send(&self.socket, &[IoSlice::new(bytes)], fds);
        }
    }

    /// The next reply's header; none when the server has hung up.
    fn reply(&mut self) -> Result<Option<Header>, String> {
        let mut bytes = [0; HEADER_LEN];
        if !self.fill(&mut bytes)? {
            return Ok(None);
        }
        let header = Header::decode(&bytes)
            .map_err(|e| e.to_string())?
            .ok_or("half a header")?;
        let mut payload = vec![0; header.payload_len()];
        Ok(self.fill(&mut payload)?.then_some(header))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<bool, String> {
        match self.socket.read_exact(out) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Ok(false),
                _ => Err(format!("neither a reply nor the end: {error}")),
            },
        }
    }

    /// A request is answered by an error, and the connection goes on.
    fn refused(&mut self, command: Command, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Verdict {
        self.send(&message(command, payload), fds);
        match self.reply()? {
            Some(header) if header.failed => Ok(()),
            other => Err(format!("{} is answered by {other:?}", command.name())),
        }
    }

    /// The server hangs up, with or without a reply.
    fn sent_away(&mut self) -> Verdict {
        while self.reply()?.is_some() {}
        Ok(())
    }
}

fn message(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header::command(7, command, u32::try_from(payload.len()).unwrap()).encode(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

/// A header that announces this size, and no payload.
fn announcing(size: u32) -> Vec<u8> {
    let mut bytes = message(Command::RegionWrite, &[]);
    bytes[4..8].copy_from_slice(&size.to_ne_bytes());
    bytes
}

fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    RegionAccess {
        offset,
        region,
        count,
    }
    .encode(&mut payload);
    payload
}

fn another_protocol(vmm: &mut Vmm, _: &Dice) -> Verdict {
    vmm.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[]);
    vmm.sent_away()
}

fn no_version(vmm: &mut Vmm, _: &Dice) -> Verdict {
    vmm.send(&message(Command::RegionRead, &access(0, 0, 4)), &[]);
    vmm.sent_away()
}

fn another_version(vmm: &mut Vmm, _: &Dice) -> Verdict {
    vmm.send(&message(Command::Version, &[9, 0, 0, 0]), &[]);
    vmm.sent_away()
}

fn sizes(vmm: &mut Vmm, dice: &Dice) -> Verdict {
    let size = *dice.in_turn(&[0, 15, MAX_MESSAGE + 1, u32::MAX]);
    vmm.send(&announcing(size), &[]);
    vmm.sent_away()
}

fn leaves(vmm: &mut Vmm, _: &Dice) -> Verdict {
    vmm.send(&announcing(MAX_MESSAGE), &[]);
    vmm.send(&[0; 5000], &[]);
    Ok(())
}

fn unknown_command(vmm: &mut Vmm, _: &Dice) -> Verdict {
    let mut bytes = message(Command::DeviceReset, &[]);
    bytes[2..4].copy_from_slice(&0xfffe_u16.to_ne_bytes());
    vmm.send(&bytes, &[]);
    match vmm.reply()? {
        Some(header) if header.failed => Ok(()),
        other => Err(format!("an unknown command is answered by {other:?}")),
    }
}

fn regions(vmm: &mut Vmm, _: &Dice) -> Verdict {
    for region in [1, 8, 9, u32::MAX] {
        vmm.refused(Command::RegionRead, &access(region, 0, 4), &[])?;
    }
    Ok(())
}

fn offsets(vmm: &mut Vmm, _: &Dice) -> Verdict {
    for (offset, count) in [
        (0, 0),
        (0, u32::MAX),
        (0, (1 << 16) + 1),
        (1 << 20, 4),
        (u64::MAX, 1),
    ] {
        vmm.refused(Command::RegionRead, &access(0, offset, count), &[])?;
    }
    Ok(())
}

fn data(vmm: &mut Vmm, _: &Dice) -> Verdict {
    for length in [0, 3, 5] {
        let payload = [access(0, 0, 4), vec![0; length]].concat();
        vmm.refused(Command::RegionWrite, &payload, &[])?;
    }
    for count in [0_u64, 2, 1 << 61, u64::MAX] {
        let payload = [count.to_ne_bytes().to_vec(), access(0, 0, 8), vec![0; 8]].concat();
        vmm.refused(Command::RegionWriteMulti, &payload, &[])?;
    }
    Ok(())
}

fn memory(vmm: &mut Vmm, _: &Dice) -> Verdict {
    let page = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    page.set_len(4096).unwrap();
    for (offset, size) in [
        (0, 1 << 40),
        (4096, 4096),
        (1 << 62, 4096),
        (u64::MAX - 1, 4096),
    ] {
        vmm.refused(Command::DmaMap, &dma_map(offset, size), &[page.as_fd()])?;
    }
    let null = File::open("/dev/null").unwrap();
    vmm.refused(Command::DmaMap, &dma_map(0, 4096), &[null.as_fd()])?;
    vmm.refused(Command::DmaMap, &dma_map(0, 4096), &[page.as_fd(); 16])
}

fn dma_map(offset: u64, size: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    DmaMap {
        protection: Protection::READ_WRITE,
        offset,
        address: 0,
        size,
    }
    .encode(&mut payload);
    payload
}

fn interrupts(vmm: &mut Vmm, _: &Dice) -> Verdict {
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let null: OwnedFd = File::open("/dev/null").unwrap().into();
    // index, start, count and flags (DATA_* | ACTION_*) of the message; MSI is index 1.
    let lies = [
        (1, 0, u32::MAX, 0x24),
        (1, u32::MAX, 1, 0x24),
        (1, 0, 1, 0),
        (1, 0, 1, 0x3f),
        (77, 0, 1, 0x24),
    ];
    for (index, start, count, flags) in lies {
        let payload = set_irqs(index, start, count, flags);
        vmm.refused(Command::DeviceSetIrqs, &payload, &[])?;
        vmm.refused(Command::DeviceSetIrqs, &payload, &[event.as_fd()])?;
    }
    vmm.refused(
        Command::DeviceSetIrqs,
        &set_irqs(1, 0, 1, 0x24),
        &[null.as_fd()],
    )
}

fn set_irqs(index: u32, start: u32, count: u32, flags: u32) -> Vec<u8> {
    let fields = [20, flags, index, start, count];
    fields.into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn descriptors(vmm: &mut Vmm, _: &Dice) -> Verdict {
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    vmm.refused(Command::DeviceReset, &[], &[event.as_fd()])?;
    vmm.refused(Command::RegionRead, &access(0, 0, 4), &[event.as_fd(); 16])?;
    // Descriptors without a whole message, again and again.
    vmm.send(&announcing(4096), &[]);
    for _ in 0..40 {
        vmm.send(&[0], &[event.as_fd(); 16]);
    }
    vmm.sent_away()
}
