//! Masks and signals at the same time: after a mask nothing comes, and nothing is lost.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use potemkin_front_core::{Bus, FrontDevice, Interrupts, MessageInterrupts, Session};
use potemkin_pci::{Bar, BarIndex, Capability, DescriptorBuilder, Message, Space};
use potemkin_session::{
    front::FrontConfig,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};

const SIGNALS: u64 = 500_000;

/// A VMM that looks whether the vector is masked when its message comes.
#[derive(Default)]
struct Vmm {
    masked: AtomicBool,
    /// How many the device had signalled, or was about to, when the last message came.
    seen: AtomicU64,
    signalled: AtomicU64,
    late: AtomicU64,
}

impl Interrupts for Vmm {
    fn set_intx(&self, _: bool) {}

    fn message(&self, _: Message) {
        if self.masked.load(SeqCst) {
            self.late.fetch_add(1, SeqCst);
        }
        self.seen.store(self.signalled.load(SeqCst), SeqCst);
    }
}

/// One MSI-X vector, unmasked, and maskable MSI.
fn function(vmm: &Arc<Vmm>) -> Arc<FrontDevice> {
    let msix = Capability::msix(1, (BarIndex::B0, 0), (BarIndex::B0, 0x800)).unwrap();
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .capability_at(0x40, Capability::msi(1, true).unwrap())
        .capability_at(0x60, msix)
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
    let device = FrontDevice::embedded(descriptor, session, vmm.clone());
    device.config_write_blocking(4, &[6]);
    Arc::new(device)
}

/// The device fires while the guest masks and unmasks.
fn race(vmm: &Vmm, fire: impl Fn() + Sync, mask: impl Fn(bool)) {
    let done = AtomicBool::new(false);
    let start = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for _ in 0..SIGNALS {
                vmm.signalled.fetch_add(1, SeqCst);
                fire();
            }
            done.store(true, SeqCst);
        });
        start.wait();
        while !done.load(SeqCst) {
            mask(true);
            vmm.masked.store(true, SeqCst);
            thread::yield_now();
            vmm.masked.store(false, SeqCst);
            mask(false);
        }
    });
    assert_eq!(vmm.late.load(SeqCst), 0, "messages after the mask");
    assert_eq!(vmm.seen.load(SeqCst), SIGNALS, "the last signal came out");
}

#[test]
fn msix() {
    let vmm = Arc::new(Vmm::default());
    let device = function(&vmm);
    let control = |bits: u32| {
        let space = Space::Bar(BarIndex::B0);
        device.region_write_blocking(space, 12, &bits.to_le_bytes());
    };
    control(0);
    device.config_write_blocking(0x63, &[0x80]);
    let bus = MessageInterrupts::new(device.clone());
    race(&vmm, || bus.msix(0), |masked| control(masked.into()));
}

#[test]
fn function_mask() {
    let vmm = Arc::new(Vmm::default());
    let device = function(&vmm);
    device.region_write_blocking(Space::Bar(BarIndex::B0), 12, &[0; 4]);
    let control = |bits| device.config_write_blocking(0x63, &[bits]);
    control(0x80);
    let bus = MessageInterrupts::new(device.clone());
    race(
        &vmm,
        || bus.msix(0),
        |masked| {
            control(if masked { 0xc0 } else { 0x80 });
        },
    );
}

#[test]
fn msi() {
    let vmm = Arc::new(Vmm::default());
    let device = function(&vmm);
    device.config_write_blocking(0x42, &[1]);
    let bus = MessageInterrupts::new(device.clone());
    let mask = |masked| {
        device.config_write_blocking(0x50, &[u8::from(masked)]);
    };
    race(&vmm, || bus.msi(0), mask);
}
