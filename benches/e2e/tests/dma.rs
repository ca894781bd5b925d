//! What the device starts itself: DMA under all checks, and interrupts, from the host to a vfio-user client's memory and eventfds.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{Arc, Mutex},
    time::Duration,
};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_service::admin::Counters;
use potemkin_transport::TransportKind::{Grpc, Quic};
use potemkin_vfio_user::{
    Client, Errno, GuestMemory,
    message::{DmaUnmap, IrqAction, IrqData, IrqIndex, Protection, SetIrqs},
};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
const BAR0: u32 = 0;
const CONFIG: u32 = 7;
/// Bounds every wait of a test; nothing is timed by it.
const LIMIT: Duration = Duration::from_secs(30);

/// Where the guest's memory begins, and its size, in bytes.
const RAM: u64 = 0x10_0000;
const RAM_BYTES: u64 = 0x1_0000;
/// `edu`'s own buffer, as its DMA registers address it.
const BUFFER: u64 = 0x4_0000;

const DMA_TO_DEVICE: u64 = 1;
const DMA_TO_MEMORY: u64 = 1 | 2;
const DMA_INTERRUPT: u64 = 4;

const MEMORY: u16 = 2;
const BUS_MASTER: u16 = 4;

/// A guest with memory, driving `edu`.
struct Guest {
    client: Client,
    ram: File,
}

impl Guest {
    /// `sealed`: as QEMU's memfd is.
    fn new(stack: &Stack, sealed: bool, protection: Protection) -> Self {
        let mut client = Client::connect(&stack.attach("vm").socket).unwrap();
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("ram", flags).unwrap();
        rustix::fs::ftruncate(&file, RAM_BYTES).unwrap();
        if sealed {
            fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        }
        client
            .dma_map(RAM, RAM_BYTES, protection, Some((file.as_fd(), 0)))
            .unwrap();
        let mut guest = Self {
            client,
            ram: File::from(file),
        };
        guest.command(MEMORY | BUS_MASTER);
        guest
    }

    fn command(&mut self, value: u16) {
        let bytes = value.to_le_bytes();
        self.client.region_write(CONFIG, 4, &bytes, false).unwrap();
    }

    /// Until the function answers: after a reset it does not before its host has confirmed it.
    fn await_answer(&mut self) {
        let answers = (0..100_000).any(|_| self.read(0) != u32::MAX);
        assert!(answers, "the function never answers again");
    }

    fn read(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(BAR0, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, offset: u64, value: u32) {
        let bytes = value.to_le_bytes();
        self.client
            .region_write(BAR0, offset, &bytes, true)
            .unwrap();
    }

    fn write_u64(&mut self, offset: u64, value: u64) {
        let bytes = value.to_le_bytes();
        self.client
            .region_write(BAR0, offset, &bytes, true)
            .unwrap();
    }

    fn start_dma(&mut self, source: u64, destination: u64, count: u64, command: u64) {
        self.write_u64(0x80, source);
        self.write_u64(0x88, destination);
        self.write_u64(0x90, count);
        self.write_u64(0x98, command);
    }

    /// Until the start bit has gone.
    fn await_dma(&mut self) {
        let mut polls = 0;
        while self.read(0x98) & 1 != 0 {
            polls += 1;
            assert!(polls < 100_000, "the transfer never ends");
        }
    }

    /// Through the device's buffer and back to another place.
    fn copy(&mut self, from: u64, to: u64, count: u64) {
        self.start_dma(from, BUFFER, count, DMA_TO_DEVICE);
        self.await_dma();
        self.start_dma(BUFFER, to, count, DMA_TO_MEMORY);
        self.await_dma();
    }

    fn poke(&self, address: u64, data: &[u8]) {
        self.ram.write_all_at(data, address - RAM).unwrap();
    }

    fn peek(&self, address: u64, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        self.ram.read_exact_at(&mut data, address - RAM).unwrap();
        data
    }

    /// Turns MSI on and gives what vector 0 signals.
    fn msi(&mut self) -> OwnedFd {
        let mut pointer = [0];
        self.client.region_read(CONFIG, 0x34, &mut pointer).unwrap();
        let control = u64::from(pointer[0]) + 2;
        self.client
            .region_write(CONFIG, control, &[1, 0], false)
            .unwrap();
        self.connect(IrqIndex::Msi, IrqAction::Trigger)
    }

    fn connect(&mut self, index: IrqIndex, action: IrqAction) -> OwnedFd {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let set = SetIrqs {
            index,
            action,
            start: 0,
            count: 1,
            data: IrqData::Eventfd,
        };
        self.client.set_irqs(&set, &[event.as_fd()]).unwrap();
        event
    }
}

/// How often an eventfd was signalled since the last look.
fn take(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(event, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

fn await_signal(event: &OwnedFd) {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ready = poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "no interrupt came");
    take(event);
}

#[test]
fn data_goes_from_guest_memory_to_the_device_and_back() {
    for kind in [Quic, Grpc] {
        for sealed in [true, false] {
            let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
            let mut guest = Guest::new(&stack, sealed, Protection::READ_WRITE);
            let data: Vec<u8> = (0..4_096_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
            guest.poke(RAM + 0x1000, &data);

            guest.copy(RAM + 0x1000, RAM + 0x8123, 4_096);

            assert_eq!(guest.peek(RAM + 0x8123, 4_096), data, "{kind} {sealed}");
            assert_eq!(guest.peek(RAM + 0x8122, 1), [0]);
            assert_eq!(guest.peek(RAM + 0x9123, 1), [0]);
        }
    }
}

#[test]
fn an_msi_finds_the_data_in_place_every_time() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
        let msi = guest.msi();

        for round in 0..500_u32 {
            guest.poke(RAM, &round.to_le_bytes());
            guest.start_dma(RAM, BUFFER, 4, DMA_TO_DEVICE);
            guest.await_dma();
            guest.start_dma(BUFFER, RAM + 64, 4, DMA_TO_MEMORY | DMA_INTERRUPT);
            await_signal(&msi);
            assert_eq!(guest.peek(RAM + 64, 4), round.to_le_bytes(), "{kind}");
            let causes = guest.read(0x24);
            guest.write(0x64, causes);
        }
    }
}

/// Windows besides [`RAM`] on the same memory, each for one direction.
const READ_ONLY: u64 = 0x20_0000;
const WRITE_ONLY: u64 = 0x30_0000;
/// Where nothing is.
const NOWHERE: u64 = 0x900_0000;

impl Guest {
    fn map_directions(&mut self) {
        for (address, read) in [(READ_ONLY, true), (WRITE_ONLY, false)] {
            let protection = Protection { read, write: !read };
            let shared = Some((self.ram.as_fd(), 0));
            self.client
                .dma_map(address, RAM_BYTES, protection, shared)
                .unwrap();
        }
    }
}

#[test]
fn what_is_not_allowed_moves_nothing_and_is_counted_and_the_session_lives() {
    const BYTES: u64 = 4096;
    let end = RAM + RAM_BYTES - BYTES / 2;
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
        guest.map_directions();
        let whole = usize::try_from(RAM_BYTES).unwrap();
        guest.poke(RAM, &[0x77; 4096]);
        guest.start_dma(RAM, BUFFER, BYTES, DMA_TO_DEVICE);
        guest.await_dma();
        guest.poke(RAM, &vec![0x5a; whole]);

        for (name, bus_master, from, to) in [
            ("out of every window, read", true, NOWHERE, BUFFER),
            ("out of every window, write", true, BUFFER, NOWHERE),
            ("across the end of a window, read", true, end, BUFFER),
            ("across the end of a window, write", true, BUFFER, end),
            ("wrong direction, read", true, WRITE_ONLY, BUFFER),
            ("wrong direction, write", true, BUFFER, READ_ONLY),
            ("bus mastering off, read", false, RAM, BUFFER),
            ("bus mastering off, write", false, BUFFER, RAM),
        ] {
            let before = stack.status("vm").counters;
            guest.command(if bus_master {
                MEMORY | BUS_MASTER
            } else {
                MEMORY
            });
            let command = if from == BUFFER {
                DMA_TO_MEMORY
            } else {
                DMA_TO_DEVICE
            };
            guest.start_dma(from, to, BYTES, command);
            guest.await_dma();

            assert_eq!(guest.read(0), 0x0100_00ed, "{kind}, {name}: it lives");
            guest.command(MEMORY | BUS_MASTER);
            let after = stack.status("vm").counters;
            assert_eq!(after.dma_refused, before.dma_refused + 1, "{kind}, {name}");
            let moved = |counters: &Counters| (counters.dma_bytes_read, counters.dma_bytes_written);
            assert_eq!(moved(&after), moved(&before), "{kind}, {name}");
            let touched = guest.peek(RAM, whole).iter().any(|byte| *byte != 0x5a);
            assert!(!touched, "{kind}, {name}: guest memory");
        }

        // The device's buffer is what it was, and what is allowed still moves, each way.
        guest.start_dma(BUFFER, WRITE_ONLY, BYTES, DMA_TO_MEMORY);
        guest.await_dma();
        guest.start_dma(READ_ONLY, BUFFER, BYTES, DMA_TO_DEVICE);
        guest.await_dma();
        assert_eq!(guest.peek(RAM, 4096), [0x77; 4096], "{kind}");
        let said = stack.front.log().unwrap();
        assert_eq!(said.matches("DMA refused").count(), 1, "logged once");
    }
}

#[test]
fn an_unmapped_window_is_not_touched_any_more() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
    guest.poke(RAM, b"abcd");
    guest.start_dma(RAM, BUFFER, 4, DMA_TO_DEVICE);
    guest.await_dma();

    let window = DmaUnmap::Range {
        address: RAM,
        size: RAM_BYTES,
    };
    guest.client.dma_unmap(window).unwrap();
    guest.start_dma(BUFFER, RAM + 64, 4, DMA_TO_MEMORY);
    guest.await_dma();
    assert_eq!(guest.peek(RAM + 64, 4), [0; 4]);

    // Mapped again it is there for what begins now.
    let ram = guest.ram.try_clone().unwrap();
    guest
        .client
        .dma_map(
            RAM,
            RAM_BYTES,
            Protection::READ_WRITE,
            Some((ram.as_fd(), 0)),
        )
        .unwrap();
    guest.start_dma(BUFFER, RAM + 64, 4, DMA_TO_MEMORY);
    guest.await_dma();
    guest.read(0);
    assert_eq!(guest.peek(RAM + 64, 4), *b"abcd");
}

#[test]
fn intx_is_a_level_that_the_guest_lowers_at_the_device() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
        let intx = guest.connect(IrqIndex::Intx, IrqAction::Trigger);
        let unmask = guest.connect(IrqIndex::Intx, IrqAction::Unmask);

        guest.write(0x60, 1);
        await_signal(&intx);
        let mut status = [0; 2];
        guest.client.region_read(CONFIG, 6, &mut status).unwrap();
        assert_eq!(status[0] & 8, 8, "the status register says so");

        // Ended without a reason being gone: it comes again.
        rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
        await_signal(&intx);

        // The write that lowers it goes before the end of the interrupt.
        guest.write(0x64, 1);
        rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!(guest.read(0x24), 0);
        guest.client.region_read(CONFIG, 6, &mut status).unwrap();
        assert_eq!(status[0] & 8, 0, "{kind}");
        assert_eq!(take(&intx), 0, "no interrupt without a reason");
    }
}

#[test]
fn a_reset_forgets_interrupts_and_transfers() {
    let stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
    let msi = guest.msi();
    guest.write(0x60, 1);
    await_signal(&msi);

    guest.client.reset().unwrap();
    guest.command(MEMORY);
    guest.await_answer();

    assert_eq!(guest.read(0x24), 0);
    guest.write(0x60, 1);
    assert_eq!(guest.read(0x24), 1);
    assert_eq!(take(&msi), 0, "neither MSI nor bus mastering is on");
}

#[test]
fn a_vmm_is_asked_to_unplug_a_device_that_is_lost_also_when_it_listens_later() {
    let mut stack = Stack::start(ROLE, &StackOptions::default()).unwrap();
    let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
    let unplug = guest.connect(IrqIndex::Req, IrqAction::Trigger);
    assert_eq!(guest.read(0), 0x0100_00ed);
    assert_eq!(take(&unplug), 0);

    stack.host.kill().unwrap();

    // Whose guest asks for nothing would be waited for longer: the path may come back.
    assert_eq!(guest.read(0), u32::MAX);
    await_signal(&unplug);
    let later = guest.connect(IrqIndex::Req, IrqAction::Trigger);
    assert_eq!(take(&later), 0, "once");
    drop(guest);
    let mut next = Client::connect(stack.dir().join("vm.sock").as_path()).unwrap();
    next.reset().unwrap();
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let set = SetIrqs {
        index: IrqIndex::Req,
        action: IrqAction::Trigger,
        start: 0,
        count: 1,
        data: IrqData::Eventfd,
    };
    next.set_irqs(&set, &[event.as_fd()]).unwrap();
    await_signal(&event);
}

/// Guest memory that only the client can access.
#[derive(Clone, Default)]
struct Private(Arc<Mutex<BTreeMap<u64, u8>>>);

impl GuestMemory for Private {
    fn read(&mut self, address: u64, out: &mut [u8]) -> Result<(), Errno> {
        let bytes = self.0.lock().unwrap();
        for (at, byte) in (address..).zip(out) {
            *byte = bytes.get(&at).copied().unwrap_or(0);
        }
        Ok(())
    }

    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), Errno> {
        let mut bytes = self.0.lock().unwrap();
        bytes.extend((address..).zip(data.iter().copied()));
        Ok(())
    }
}

#[test]
fn memory_without_a_descriptor_is_reached_by_messages() {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let mut guest = Guest::new(&stack, true, Protection::READ_WRITE);
        let private = Private::default();
        let address = RAM + 0x10_0000;
        private
            .0
            .lock()
            .unwrap()
            .extend((address..).zip(*b"message!"));
        guest.client.set_memory(private.clone());
        guest
            .client
            .dma_map(address, 0x1000, Protection::READ_WRITE, None)
            .unwrap();
        let msi = guest.msi();

        guest.start_dma(address, BUFFER, 8, DMA_TO_DEVICE | DMA_INTERRUPT);
        guest.client.serve().unwrap();
        await_signal(&msi);
        guest.write(0x64, 0x100);
        guest.start_dma(BUFFER, address + 64, 8, DMA_TO_MEMORY | DMA_INTERRUPT);
        guest.client.serve().unwrap();
        await_signal(&msi);

        let bytes = private.0.lock().unwrap();
        let written: Vec<u8> = bytes.range(address + 64..).map(|(_, b)| *b).collect();
        assert_eq!(written, *b"message!", "{kind}");
    }
}
