//! A guest with memory, driving `order` by hand through its vfio-user socket. What is not as it should be panics.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::{
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    time::Duration,
};

use potemkin_vfio_user::{
    Client,
    message::{IrqAction, IrqData, IrqIndex, Protection, SetIrqs},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
};

/// Region of BAR 0, as VFIO numbers them.
pub const BAR0: u32 = 0;
/// BAR 1.
pub const PORTS: u32 = 1;
/// BAR 2 and 3.
pub const MEMORY: u32 = 2;
/// BAR 4.
pub const INTERRUPTS: u32 = 4;
/// BAR 5.
pub const LEGACY: u32 = 5;
/// The expansion ROM.
pub const ROM: u32 = 6;
/// Configuration space.
pub const CONFIG: u32 = 7;

/// Command register: I/O.
pub const IO_DECODE: u16 = 1;
/// Command register: memory.
pub const MEMORY_DECODE: u16 = 2;
/// Command register: DMA and messages.
pub const BUS_MASTER: u16 = 4;

/// Id of the capability.
pub const MSIX: u8 = 0x11;
/// Id of the capability PCI Express.
pub const EXPRESS: u8 = 0x10;

/// Where the guest's memory begins.
pub const RAM: u64 = 0x10_0000;
/// Its size.
pub const RAM_BYTES: u64 = 0x20_0000;

/// Bounds every wait of a test; nothing is timed by it.
pub const LIMIT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct Guest {
    /// The vfio-user client.
    pub client: Client,
    ram: File,
}

impl Guest {
    /// Connects to the function behind this socket. Decode and bus mastering are on, MSI-X is off.
    pub fn connect(socket: &Path) -> Self {
        let client = Client::connect(socket).unwrap();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("ram", flags).unwrap();
        rustix::fs::ftruncate(&file, RAM_BYTES).unwrap();
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let ram = File::from(file);
        let mut guest = Self { client, ram };
        guest.map(RAM, RAM_BYTES, 0);
        guest.command(IO_DECODE | MEMORY_DECODE | BUS_MASTER);
        guest
    }

    /// Maps bytes of the guest's memory, from `offset` on, there.
    pub fn map(&mut self, address: u64, bytes: u64, offset: u64) {
        let shared = Some((self.ram.as_fd(), offset));
        self.client
            .dma_map(address, bytes, Protection::READ_WRITE, shared)
            .unwrap();
    }

    /// Writes the command register.
    pub fn command(&mut self, value: u16) {
        self.write(CONFIG, 4, &value.to_le_bytes());
    }

    /// Until the function answers: after a reset it does not before its host has confirmed it.
    pub fn await_answer(&mut self) {
        let answers = (0..100_000).any(|_| self.read4(0) != u32::MAX);
        assert!(answers, "the function never answers again");
    }

    /// Reads so many bytes.
    pub fn read<const N: usize>(&mut self, region: u32, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.client.region_read(region, offset, &mut bytes).unwrap();
        bytes
    }

    /// Posted where memory is, as a VMM does it.
    pub fn write(&mut self, region: u32, offset: u64, bytes: &[u8]) {
        let posted = !matches!(region, PORTS | CONFIG);
        self.client
            .region_write(region, offset, bytes, posted)
            .unwrap();
    }

    /// A register of BAR 0.
    pub fn read4(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(BAR0, offset))
    }

    /// The same, 8 bytes.
    pub fn read8(&mut self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(BAR0, offset))
    }

    /// Writes a register of BAR 0.
    pub fn write4(&mut self, offset: u64, value: u32) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    /// The same, 8 bytes.
    pub fn write8(&mut self, offset: u64, value: u64) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    /// Where a capability is in configuration space.
    pub fn capability(&mut self, id: u8) -> u64 {
        let [mut at] = self.read(CONFIG, 0x34);
        // As many as can be there.
        for _ in 0..48 {
            let [found, next] = self.read(CONFIG, at.into());
            if found == id {
                return at.into();
            }
            at = next;
        }
        panic!("no capability {id:#x}");
    }

    /// Turns MSI-X on.
    pub fn enable_msix(&mut self) {
        let control = self.capability(MSIX) + 2;
        let [low, high] = self.read(CONFIG, control);
        self.write(CONFIG, control, &[low, high | 0x80]);
    }

    /// Connects MSI-X vectors from `start` on, in pieces that the server takes.
    pub fn listen(&mut self, start: u32, events: &[OwnedFd]) {
        let piece = self.client.max_msg_fds();
        let mut start = start;
        for events in events.chunks(piece) {
            let fds: Vec<BorrowedFd<'_>> = events.iter().map(AsFd::as_fd).collect();
            let count = u32::try_from(fds.len()).unwrap();
            self.set_irqs(start, count, IrqAction::Trigger, IrqData::Eventfd, &fds);
            start += count;
        }
    }

    /// On MSI-X vectors.
    pub fn set_irqs(
        &mut self,
        start: u32,
        count: u32,
        action: IrqAction,
        data: IrqData<'_>,
        fds: &[BorrowedFd<'_>],
    ) {
        let set = SetIrqs {
            index: IrqIndex::Msix,
            action,
            start,
            count,
            data,
        };
        self.client.set_irqs(&set, fds).unwrap();
    }

    /// Writes the guest's memory.
    pub fn poke(&self, address: u64, data: &[u8]) {
        self.ram.write_all_at(data, address - RAM).unwrap();
    }

    /// Reads the guest's memory.
    pub fn peek(&self, address: u64, out: &mut [u8]) {
        self.ram.read_exact_at(out, address - RAM).unwrap();
    }

    /// All of the guest's memory.
    pub fn memory(&self) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(RAM_BYTES).unwrap()];
        self.peek(RAM, &mut all);
        all
    }
}

/// So many eventfds.
pub fn events(count: usize) -> Vec<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    (0..count).map(|_| eventfd(0, flags).unwrap()).collect()
}

/// How often an eventfd was signalled since the last look.
pub fn take(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(event, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

/// Waits for a signal; how often it came.
pub fn await_signal(event: &OwnedFd) -> u64 {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ready = poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "no interrupt came");
    take(event)
}
