//! A vfio-user client that is not ours drives a function from end to end: the one of the crate `vfio_user`, which Cloud Hypervisor uses.
//!
//! What that client (0.1.7) cannot do, and what is therefore not shown here: posted writes, `REGION_WRITE_MULTI`, answers to
//! `DMA_READ` and `DMA_WRITE` (each window needs a descriptor), `DEVICE_GET_REGION_IO_FDS`, interrupts chosen by bytes. It does not look at
//! the error of a reply, and waits for ever for a reply of the expected length where the answer is an error: so each step is judged by
//! what it does, and each test has a limit. Its `resettable` says the contrary of what the server said.

#![allow(clippy::unwrap_used)]

use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    panic::resume_unwind,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_transport::TransportKind::{Grpc, Quic};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{MemfdFlags, memfd_create},
};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_INFO_AUTOMASKED, VFIO_IRQ_INFO_EVENTFD, VFIO_IRQ_INFO_MASKABLE,
    VFIO_IRQ_SET_ACTION_MASK, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_BAR0_REGION_INDEX,
    VFIO_PCI_BAR1_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_INTX_IRQ_INDEX,
    VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_ROM_REGION_INDEX,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::Client;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
/// Bounds every test; nothing is timed by it.
const LIMIT: Duration = Duration::from_secs(60);

const BAR0: u32 = VFIO_PCI_BAR0_REGION_INDEX;
const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;
const INTX: u32 = VFIO_PCI_INTX_IRQ_INDEX;
const MSI: u32 = VFIO_PCI_MSI_IRQ_INDEX;

/// Where the guest's memory begins, and its size, in bytes.
const RAM: u64 = 0x10_0000;
const RAM_BYTES: u64 = 0x1_0000;
/// Where that memory begins in its file.
const RAM_AT: u64 = 0x3000;

// `edu`'s registers, and its own buffer as its DMA registers address it.
const IDENTIFICATION: u64 = 0;
const LIVENESS: u64 = 4;
const CAUSES: u64 = 0x24;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const BUFFER: u64 = 0x4_0000;
const DMA_TO_DEVICE: u64 = 1;
const DMA_TO_MEMORY: u64 = 1 | 2;
const DMA_INTERRUPT: u64 = 4;
const CAUSE_DMA: u32 = 0x100;

/// A guest with memory, driving `edu`.
struct Guest {
    client: Client,
    ram: File,
}

impl Guest {
    fn new(stack: &Stack) -> Self {
        let mut client = Client::new(&stack.attach("vm").socket).unwrap();
        let ram = File::from(memfd_create("ram", MemfdFlags::CLOEXEC).unwrap());
        ram.set_len(RAM_AT + RAM_BYTES).unwrap();
        client
            .dma_map(RAM_AT, RAM, RAM_BYTES, ram.as_raw_fd())
            .unwrap();
        let mut guest = Self { client, ram };
        guest.enable();
        guest
    }

    /// Memory decode and bus mastering.
    fn enable(&mut self) {
        self.client.region_write(CONFIG, 4, &[6, 0]).unwrap();
    }

    fn config(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(CONFIG, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn read(&mut self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(BAR0, register, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, register: u64, value: u32) {
        let bytes = value.to_le_bytes();
        self.client.region_write(BAR0, register, &bytes).unwrap();
    }

    fn start_dma(&mut self, source: u64, destination: u64, count: u64, command: u64) {
        for (register, value) in [
            (0x80, source),
            (0x88, destination),
            (0x90, count),
            (0x98, command),
        ] {
            let bytes = value.to_le_bytes();
            self.client.region_write(BAR0, register, &bytes).unwrap();
        }
    }

    /// Until the start bit has gone.
    fn await_dma(&mut self) {
        let ended = (0..100_000).any(|_| self.read(0x98) & 1 == 0);
        assert!(ended, "the transfer never ends");
    }

    fn poke(&self, address: u64, data: &[u8]) {
        self.ram.write_all_at(data, address - RAM + RAM_AT).unwrap();
    }

    fn peek(&self, address: u64, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        let at = address - RAM + RAM_AT;
        self.ram.read_exact_at(&mut data, at).unwrap();
        data
    }

    /// Turns MSI on in configuration space, and connects vector 0.
    fn msi(&mut self) -> OwnedFd {
        let control = u64::from(self.config(0x34) & 0xff) + 2;
        self.client.region_write(CONFIG, control, &[1, 0]).unwrap();
        self.connect(MSI, VFIO_IRQ_SET_ACTION_TRIGGER)
    }

    /// A new eventfd for the first interrupt of a type.
    fn connect(&mut self, index: u32, action: u32) -> OwnedFd {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | action;
        self.client
            .set_irqs(index, flags, 0, 1, &[event.as_raw_fd()])
            .unwrap();
        event
    }

    fn act(&mut self, index: u32, action: u32) {
        let flags = VFIO_IRQ_SET_DATA_NONE | action;
        self.client.set_irqs(index, flags, 0, 1, &[]).unwrap();
    }
}

fn await_signal(event: &OwnedFd) {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let ready = poll(&mut [PollFd::new(event, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "no interrupt came");
    assert_ne!(take(event), 0);
}

/// How often an eventfd was signalled since the last look.
fn take(event: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    let got = rustix::io::read(event, &mut count);
    got.map_or(0, |_| u64::from_ne_bytes(count))
}

/// Runs a test on both transports; the client has no limits of its own.
fn on_both_transports(test: fn(&Stack)) {
    for kind in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let (done, ended) = channel();
        let body = thread::spawn(move || {
            test(&stack);
            let _ = done.send(());
        });
        match ended.recv_timeout(LIMIT) {
            Err(RecvTimeoutError::Timeout) => panic!("{kind}: the client waits for an answer"),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                if let Err(panic) = body.join() {
                    resume_unwind(panic);
                }
            }
        }
    }
}

#[test]
fn the_function_is_described_as_it_is() {
    on_both_transports(|stack| {
        let mut client = Client::new(&stack.attach("vm").socket).unwrap();

        let access = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
        let bar = client.region(BAR0).unwrap();
        assert_eq!((bar.size, bar.flags), (1 << 20, access));
        assert!(bar.file_offset.is_none() && bar.sparse_areas.is_empty());
        for none in VFIO_PCI_BAR1_REGION_INDEX..=VFIO_PCI_ROM_REGION_INDEX {
            assert_eq!(client.region(none).unwrap().size, 0, "region {none}");
        }
        let config = client.region(CONFIG).unwrap();
        assert_eq!((config.size, config.flags), (256, access));

        let maskable = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE;
        let intx = client.get_irq_info(INTX).unwrap();
        assert_eq!(
            (intx.count, intx.flags),
            (1, maskable | VFIO_IRQ_INFO_AUTOMASKED)
        );
        let msi = client.get_irq_info(MSI).unwrap();
        assert_eq!((msi.count, msi.flags), (1, maskable));
        let msix = client.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).unwrap();
        assert_eq!((msix.index, msix.count), (VFIO_PCI_MSIX_IRQ_INDEX, 0));
    });
}

#[test]
fn configuration_space_and_registers_are_read_and_written() {
    on_both_transports(|stack| {
        let mut guest = Guest::new(stack);

        assert_eq!(guest.config(0), 0x11e8_1234);
        guest.client.region_write(CONFIG, 0x10, &[0xff; 4]).unwrap();
        assert_eq!(guest.config(0x10), 0xfff0_0000, "the size of BAR 0");

        assert_eq!(guest.read(IDENTIFICATION), 0x0100_00ed);
        guest.write(LIVENESS, 0x1234_5678);
        assert_eq!(guest.read(LIVENESS), 0xedcb_a987);
        let wide = 0x1_2345_6789_u64.to_le_bytes();
        guest.client.region_write(BAR0, 0x80, &wide).unwrap();
        let mut got = [0; 8];
        guest.client.region_read(BAR0, 0x80, &mut got).unwrap();
        assert_eq!(got, wide);
    });
}

#[test]
fn dma_goes_both_ways_and_its_msi_comes_after_the_data() {
    on_both_transports(|stack| {
        let mut guest = Guest::new(stack);
        let msi = guest.msi();

        for round in 0..100_u8 {
            let data: Vec<u8> = (0..=255).cycle().skip(round.into()).take(4_096).collect();
            guest.poke(RAM, &data);
            guest.start_dma(RAM, BUFFER, 4_096, DMA_TO_DEVICE);
            guest.await_dma();
            let command = DMA_TO_MEMORY | DMA_INTERRUPT;
            guest.start_dma(BUFFER, RAM + 0x8123, 4_096, command);
            await_signal(&msi);
            assert_eq!(guest.peek(RAM + 0x8123, 4_096), data, "round {round}");
            assert_eq!(guest.read(CAUSES), CAUSE_DMA);
            guest.write(ACKNOWLEDGE, CAUSE_DMA);
        }

        assert_eq!(stack.status("vm").counters.interrupts, 100);
    });
}

#[test]
fn an_unmapped_window_is_not_touched_any_more() {
    on_both_transports(|stack| {
        let mut guest = Guest::new(stack);
        guest.poke(RAM, b"abcd");
        guest.start_dma(RAM, BUFFER, 4, DMA_TO_DEVICE);
        guest.await_dma();

        guest.client.dma_unmap(RAM, RAM_BYTES).unwrap();
        guest.start_dma(BUFFER, RAM + 64, 4, DMA_TO_MEMORY);
        guest.await_dma();
        guest.read(IDENTIFICATION);
        assert_eq!(guest.peek(RAM + 64, 4), [0; 4]);
        assert_eq!(stack.status("vm").counters.dma_refused, 1);

        let ram = guest.ram.as_raw_fd();
        guest.client.dma_map(RAM_AT, RAM, RAM_BYTES, ram).unwrap();
        guest.start_dma(BUFFER, RAM + 64, 4, DMA_TO_MEMORY);
        guest.await_dma();
        guest.read(IDENTIFICATION);
        assert_eq!(guest.peek(RAM + 64, 4), *b"abcd");
    });
}

#[test]
fn intx_is_masked_by_its_signal_and_comes_again_while_its_level_stands() {
    on_both_transports(|stack| {
        let mut guest = Guest::new(stack);
        let intx = guest.connect(INTX, VFIO_IRQ_SET_ACTION_TRIGGER);
        let unmask = guest.connect(INTX, VFIO_IRQ_SET_ACTION_UNMASK);

        guest.write(RAISE, 1);
        await_signal(&intx);
        // Ended by eventfd and by message without its reason being gone.
        rustix::io::write(&unmask, &1_u64.to_ne_bytes()).unwrap();
        await_signal(&intx);
        guest.act(INTX, VFIO_IRQ_SET_ACTION_UNMASK);
        await_signal(&intx);

        // While it is masked it waits.
        guest.write(ACKNOWLEDGE, 1);
        guest.act(INTX, VFIO_IRQ_SET_ACTION_UNMASK);
        guest.act(INTX, VFIO_IRQ_SET_ACTION_MASK);
        guest.write(RAISE, 2);
        assert_eq!(guest.read(CAUSES), 2);
        assert_eq!(take(&intx), 0);
        guest.act(INTX, VFIO_IRQ_SET_ACTION_UNMASK);
        await_signal(&intx);
    });
}

#[test]
fn a_reset_puts_the_device_back_and_it_works_again() {
    on_both_transports(|stack| {
        let mut guest = Guest::new(stack);
        let before = guest.msi();
        guest.write(LIVENESS, 1);
        guest.write(RAISE, 1);
        await_signal(&before);

        guest.client.reset().unwrap();
        assert_eq!(guest.config(4) & 6, 0, "decode and bus mastering are off");
        guest.enable();
        // Taken at once; until the host has confirmed it the function does not answer.
        let mut answers = (0..100_000).map(|_| guest.read(LIVENESS));
        let liveness = answers.find(|&value| value != u32::MAX);

        assert_eq!((liveness, guest.read(CAUSES)), (Some(0), 0));
        let after = guest.msi();
        guest.write(RAISE, 1);
        await_signal(&after);
        assert_eq!(take(&before), 0);
    });
}

#[test]
fn a_client_that_shuts_down_can_come_back() {
    on_both_transports(|stack| {
        let socket = stack.attach("vm").socket;
        for _ in 0..10 {
            let mut client = Client::new(&socket).unwrap();
            client.region_write(CONFIG, 4, &[6, 0]).unwrap();
            let mut identification = [0; 4];
            client
                .region_read(BAR0, IDENTIFICATION, &mut identification)
                .unwrap();
            assert_eq!(u32::from_le_bytes(identification), 0x0100_00ed);
            client.shutdown().unwrap();
        }
    });
}
