//! `edu` by ports of the VMM's address map, DMA and messages.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use potemkin_e2e::{Stack, StackOptions};
use potemkin_front_core::{FileMemory, FrontDevice, VcpuAccess, Window};
use potemkin_pci::{
    Message,
    capability::{capabilities, id},
};
use potemkin_transport::TransportKind::{Grpc, Quic};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::{
    LIMIT, ROLE,
    kit::{Signal, embed},
};

const BAR0: u64 = 0xe000_0000;
const RAM: u64 = 0x10_0000;
const RAM_BYTES: u64 = 0x1_0000;
/// `edu`'s own buffer, as its DMA registers address it.
const BUFFER: u64 = 0x4_0000;
const DMA_TO_DEVICE: u64 = 1 | 4;
const DMA_TO_MEMORY: u64 = 1 | 2 | 4;

const INTERRUPT: Message = Message {
    address: 0xfee0_1000,
    data: 0x31,
};

/// Places BAR 0, turns everything on, and has MSI write [`INTERRUPT`].
fn start(device: &FrontDevice) {
    let image = device.descriptor().config_image();
    let mut found = capabilities(image).map(Result::unwrap);
    let msi = found.find(|found| found.id == id::MSI).unwrap();
    let msi = u16::try_from(msi.offset).unwrap();
    device.config_write_blocking(0x10, &u32::try_from(BAR0).unwrap().to_le_bytes());
    device.config_write_blocking(msi + 4, &INTERRUPT.address.to_le_bytes());
    device.config_write_blocking(msi + 12, &INTERRUPT.data.to_le_bytes()[..2]);
    device.config_write_blocking(msi + 2, &[1]);
    device.config_write_blocking(4, &[6]);
}

fn dma(device: &FrontDevice, source: u64, destination: u64, count: u64, command: u64) {
    let registers = [
        (0x80, source),
        (0x88, destination),
        (0x90, count),
        (0x98, command),
    ];
    for (register, value) in registers {
        assert!(device.mmio_write(BAR0 + register, &value.to_le_bytes()));
    }
}

#[test]
fn a_vmm_drives_edu_and_gives_it_back() {
    for transport in [Quic, Grpc] {
        let stack = Stack::start(ROLE, &StackOptions::on(transport)).unwrap();
        let (function, vmm, signals) = embed(&stack, transport, Stack::DEVICE);
        let device = function.device();
        start(device);
        assert_eq!(vmm.mapped.lock().unwrap()[0].address, BAR0);
        let mut identification = [0; 4];
        assert!(device.mmio_read(BAR0, &mut identification));
        assert_eq!(u32::from_le_bytes(identification), 0x0100_00ed);

        let ram = memfd_create("ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&ram, RAM_BYTES).unwrap();
        fcntl_add_seals(&ram, SealFlags::SHRINK).unwrap();
        let memory = FileMemory::new(ram.try_clone().unwrap(), 0, RAM_BYTES, true).unwrap();
        let window = Window {
            address: RAM,
            size: RAM_BYTES,
            readable: true,
            writable: true,
            memory: Some(Arc::new(memory)),
        };
        device.map_window(window).unwrap();
        let ram = File::from(ram);
        let data: Vec<u8> = (0..=255).cycle().take(4096).collect();
        ram.write_all_at(&data, 0).unwrap();

        let came = Signal::Message(INTERRUPT);
        dma(device, RAM, BUFFER, 4096, DMA_TO_DEVICE);
        assert_eq!(signals.recv_timeout(LIMIT).unwrap(), came);
        dma(device, BUFFER, RAM + 0x8000, 4096, DMA_TO_MEMORY);
        assert_eq!(signals.recv_timeout(LIMIT).unwrap(), came);

        let mut copied = vec![0; 4096];
        ram.read_exact_at(&mut copied, 0x8000).unwrap();
        assert_eq!(copied, data);
        drop(function);
        assert!(vmm.mapped.lock().unwrap().is_empty());
        // The device is another's to have.
        let (again, _, _) = embed(&stack, transport, Stack::DEVICE);
        drop(again);
    }
}
