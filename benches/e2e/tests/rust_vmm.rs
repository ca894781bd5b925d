//! A VMM of rust-vmm's crates, without a CPU: the function on a `vm-device` bus, its memory from `vm-memory`, and `edu` behind.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, mpsc};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_front_core::{
    BackgroundFunction, Bus, DEFAULT_DEADLINE, FrontDevice, MapError, RemoteUrl,
};
use potemkin_testkit::certs::Role;
use potemkin_transport::{
    TlsMaterial,
    TransportKind::{self, Grpc, Quic},
};
use vm_device::{
    bus::{MmioAddress, MmioRange, PioAddress, PioRange},
    device_manager::{IoManager, MmioManager, PioManager},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
/// What the host bridge gives to its functions.
const HOLE: u64 = 0xe000_0000;
const HOLE_BYTES: u64 = 0x1000_0000;
const BAR0: u64 = HOLE + 0x10_0000;
const RAM_BYTES: usize = 0x1_0000;
const HIGH_RAM: u64 = 0x10_0000;
/// `edu`'s own, as its DMA registers address it.
const BUFFER: u64 = 0x4_0000;

/// Tells a test of each vector.
struct Vectors(mpsc::Sender<u16>);

impl Bus for Vectors {
    fn set_intx(&self, _: bool) {}
    fn msi(&self, vector: u16) {
        // The test may be over.
        let _ = self.0.send(vector);
    }
    fn msix(&self, _: u16) {}
}

struct Vmm {
    buses: IoManager,
    function: BackgroundFunction,
    vectors: mpsc::Receiver<u16>,
    _stack: Stack,
}

impl Vmm {
    fn new(kind: TransportKind) -> Self {
        let stack = Stack::start(ROLE, &StackOptions::on(kind)).unwrap();
        let files = stack.certs.role(Role::Agent);
        let tls = TlsMaterial::load(&files.ca, &files.cert, &files.key).unwrap();
        let (address, device) = (stack.broker_address, Stack::DEVICE);
        let url = format!("potemkin://{address}/{device}?transport={kind}");
        let url: RemoteUrl = url.parse().unwrap();
        let options = url.options(tls, DEFAULT_DEADLINE);
        let (sender, vectors) = mpsc::channel();
        let function = BackgroundFunction::attach(options, url.target, Vectors(sender)).unwrap();
        let mut buses = IoManager::new();
        let hole = MmioRange::new(MmioAddress(HOLE), HOLE_BYTES).unwrap();
        let device = Arc::clone(function.device());
        buses.register_mmio(hole, device.clone()).unwrap();
        let ports = PioRange::new(PioAddress(0xc000), 0x100).unwrap();
        buses.register_pio(ports, device).unwrap();
        Self {
            buses,
            function,
            vectors,
            _stack: stack,
        }
    }

    fn device(&self) -> &FrontDevice {
        self.function.device()
    }

    /// Places BAR 0, and turns on memory decode, bus mastering and MSI.
    fn enable(&self) {
        let bar = u32::try_from(BAR0).unwrap().to_le_bytes();
        self.device().config_write_blocking(0x10, &bar);
        self.device().config_write_blocking(0x04, &[6, 0]);
        let mut capability = [0];
        self.device().config_read_blocking(0x34, &mut capability);
        let control = u16::from(capability[0]) + 2;
        self.device().config_write_blocking(control, &[1, 0]);
    }

    fn read(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.buses
            .mmio_read(MmioAddress(address), &mut data)
            .unwrap();
        u32::from_le_bytes(data)
    }

    fn write(&self, address: u64, data: &[u8]) {
        self.buses.mmio_write(MmioAddress(address), data).unwrap();
    }

    fn dma(&self, source: u64, destination: u64, count: u64, command: u64) {
        let registers = [0x80, 0x88, 0x90, 0x98];
        for (register, value) in registers.iter().zip([source, destination, count, command]) {
            self.write(BAR0 + register, &value.to_le_bytes());
        }
    }
}

#[test]
fn a_vm_device_bus_reaches_the_function_where_the_guest_placed_it() {
    for kind in [Quic, Grpc] {
        let vmm = Vmm::new(kind);
        assert_eq!(vmm.read(BAR0), u32::MAX, "not placed yet");
        vmm.enable();

        assert_eq!(vmm.read(BAR0), 0x0100_00ed, "{kind}");
        vmm.write(BAR0 + 4, &0x1234_5678_u32.to_le_bytes());
        assert_eq!(vmm.read(BAR0 + 4), !0x1234_5678);
        assert_eq!(vmm.read(HOLE), u32::MAX, "beside the BAR");
        let mut data = [0; 2];
        vmm.buses.pio_read(PioAddress(0xc010), &mut data).unwrap();
        assert_eq!(data, [0xff; 2], "it has no ports");
    }
}

#[test]
fn all_of_a_guests_memory_is_handed_over_in_one_call_and_taken_back() {
    for kind in [Quic, Grpc] {
        let vmm = Vmm::new(kind);
        vmm.enable();
        let regions = [0, HIGH_RAM].map(|start| (GuestAddress(start), RAM_BYTES));
        let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&regions).unwrap();
        vmm.device().map_guest_memory(&memory).unwrap();
        memory
            .write_slice(b"remote device", GuestAddress(0x100))
            .unwrap();

        vmm.dma(0x100, BUFFER, 13, 1 | 4);
        vmm.vectors.recv().unwrap();
        vmm.dma(BUFFER, HIGH_RAM + 0x123, 13, 1 | 2 | 4);
        vmm.vectors.recv().unwrap();

        let mut copy = [0; 13];
        memory
            .read_slice(&mut copy, GuestAddress(HIGH_RAM + 0x123))
            .unwrap();
        assert_eq!(&copy, b"remote device", "{kind}");

        vmm.device().unmap_guest_memory(&memory);
        vmm.dma(BUFFER, 0x100, 13, 1 | 2 | 4);
        vmm.vectors.recv().unwrap();
        assert_eq!(vmm.device().dma_counters().refused, 1);
    }
}

#[test]
fn memory_that_overlaps_a_window_adds_no_window_at_all() {
    let vmm = Vmm::new(Quic);
    let high = [(GuestAddress(HIGH_RAM), RAM_BYTES)];
    let both = [0, HIGH_RAM].map(|start| (GuestAddress(start), RAM_BYTES));
    let high: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&high).unwrap();
    let both: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&both).unwrap();
    vmm.device().map_guest_memory(&high).unwrap();

    let refused = vmm.device().map_guest_memory(&both).unwrap_err();

    assert_eq!(refused, MapError::Overlap);
    assert!(!vmm.device().unmap_window(0, RAM_BYTES as u64));
    assert!(vmm.device().unmap_window(HIGH_RAM, RAM_BYTES as u64));
}
