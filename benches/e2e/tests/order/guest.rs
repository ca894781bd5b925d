//! A guest with memory, driving `order` by hand.

use std::{
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    time::Duration,
};

use potemkin_e2e::Stack;
use potemkin_vfio_user::{
    Client,
    message::{IrqAction, IrqData, IrqIndex, Protection, SetIrqs},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
};

/// Regions, as VFIO numbers them.
pub(crate) const BAR0: u32 = 0;
pub(crate) const PORTS: u32 = 1;
pub(crate) const MEMORY: u32 = 2;
pub(crate) const INTERRUPTS: u32 = 4;
pub(crate) const LEGACY: u32 = 5;
pub(crate) const ROM: u32 = 6;
pub(crate) const CONFIG: u32 = 7;

/// Bits of the command register.
pub(crate) const IO_DECODE: u16 = 1;
pub(crate) const MEMORY_DECODE: u16 = 2;
pub(crate) const BUS_MASTER: u16 = 4;

/// Ids of capabilities.
pub(crate) const MSIX: u8 = 0x11;
pub(crate) const EXPRESS: u8 = 0x10;

/// Where the guest's memory begins, and its size, in bytes.
pub(crate) const RAM: u64 = 0x10_0000;
pub(crate) const RAM_BYTES: u64 = 0x20_0000;

/// Bounds every wait of a test; nothing is timed by it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Guest {
    pub(crate) client: Client,
    ram: File,
}

impl Guest {
    /// Decode and bus mastering are on, MSI-X is off.
    pub(crate) fn new(stack: &Stack) -> Self {
        let socket = stack.attach_device("vm", Stack::ORDER).socket;
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
    pub(crate) fn map(&mut self, address: u64, bytes: u64, offset: u64) {
        let shared = Some((self.ram.as_fd(), offset));
        self.client
            .dma_map(address, bytes, Protection::READ_WRITE, shared)
            .unwrap();
    }

    pub(crate) fn command(&mut self, value: u16) {
        self.write(CONFIG, 4, &value.to_le_bytes());
    }

    /// Until the function answers: after a reset it does not before its host has confirmed it.
    pub(crate) fn await_answer(&mut self) {
        let answers = (0..100_000).any(|_| self.read4(0) != u32::MAX);
        assert!(answers, "the function never answers again");
    }

    pub(crate) fn read<const N: usize>(&mut self, region: u32, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.client.region_read(region, offset, &mut bytes).unwrap();
        bytes
    }

    /// Posted where memory is, as a VMM does it.
    pub(crate) fn write(&mut self, region: u32, offset: u64, bytes: &[u8]) {
        let posted = !matches!(region, PORTS | CONFIG);
        self.client
            .region_write(region, offset, bytes, posted)
            .unwrap();
    }

    /// A register of BAR 0.
    pub(crate) fn read4(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(BAR0, offset))
    }

    pub(crate) fn read8(&mut self, offset: u64) -> u64 {
        u64::from_le_bytes(self.read(BAR0, offset))
    }

    pub(crate) fn write4(&mut self, offset: u64, value: u32) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    pub(crate) fn write8(&mut self, offset: u64, value: u64) {
        self.write(BAR0, offset, &value.to_le_bytes());
    }

    /// Where a capability is in configuration space.
    pub(crate) fn capability(&mut self, id: u8) -> u64 {
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

    pub(crate) fn enable_msix(&mut self) {
        let control = self.capability(MSIX) + 2;
        let [low, high] = self.read(CONFIG, control);
        self.write(CONFIG, control, &[low, high | 0x80]);
    }

    /// Connects MSI-X vectors from `start` on, in pieces that the server takes.
    pub(crate) fn connect(&mut self, start: u32, events: &[OwnedFd]) {
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
    pub(crate) fn set_irqs(
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

    pub(crate) fn poke(&self, address: u64, data: &[u8]) {
        self.ram.write_all_at(data, address - RAM).unwrap();
    }

    pub(crate) fn peek(&self, address: u64, out: &mut [u8]) {
        self.ram.read_exact_at(out, address - RAM).unwrap();
    }
}

pub(crate) fn events(count: usize) -> Vec<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    (0..count).map(|_| eventfd(0, flags).unwrap()).collect()
}

/// How often an eventfd was signalled since the last look.
pub(crate) fn take(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(event, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

/// Waits for a signal; how often it came.
pub(crate) fn await_signal(event: &OwnedFd) -> u64 {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ready = poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "no interrupt came");
    take(event)
}
