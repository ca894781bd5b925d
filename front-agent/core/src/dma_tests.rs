//! What the device started before a reset, carried out at any moment around it.

#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};
use std::{thread, time::Duration};

use potemkin_pci::{Bar, BarIndex, Capability, DescriptorBuilder, Message, Space};
use potemkin_session::{
    access::Vector,
    front::FrontConfig,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};

use super::Upstream;
use crate::{FrontDevice, Interrupts, MessageInterrupts, Session};

const RESETS: u64 = 5_000;

/// A VMM that counts what comes, and what comes although nothing may.
#[derive(Default)]
struct Vmm {
    quiet: AtomicBool,
    messages: AtomicU64,
    late: AtomicU64,
    level: AtomicBool,
}

impl Interrupts for Vmm {
    fn set_intx(&self, level: bool) {
        self.level.store(level, SeqCst);
    }

    fn message(&self, _: Message) {
        self.messages.fetch_add(1, SeqCst);
        self.late
            .fetch_add(u64::from(self.quiet.load(SeqCst)), SeqCst);
    }
}

/// With one MSI-X vector and INTx.
fn function(vmm: &Arc<Vmm>) -> Arc<FrontDevice> {
    let msix = Capability::msix(1, (BarIndex::B0, 0), (BarIndex::B0, 0x800)).unwrap();
    let descriptor = DescriptorBuilder::new(1, 1)
        .bar(BarIndex::B0, Bar::memory32(4096))
        .capability_at(0x60, msix)
        .intx_pin(1)
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
    Arc::new(FrontDevice::embedded(descriptor, session, vmm.clone()))
}

/// Memory decode and bus mastering, MSI-X, and the vector unmasked.
fn enable(device: &FrontDevice) {
    device.config_write_blocking(4, &[6]);
    device.config_write_blocking(0x63, &[0x80]);
    device.region_write_blocking(Space::Bar(BarIndex::B0), 12, &[0; 4]);
}

#[test]
fn vector_of_before_a_reset_never_comes_after_it() {
    let vmm = Arc::new(Vmm::default());
    let device = function(&vmm);
    let bus = MessageInterrupts::new(device.clone());
    enable(&device);
    let (generation, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let upstream = Upstream::Interrupt {
                    generation: generation.load(SeqCst),
                    vector: Vector::Msix(0),
                };
                device.carry_out(&device.session(), upstream, &bus);
            }
        });
        for now in 1..=RESETS {
            device.reset();
            vmm.quiet.store(true, SeqCst);
            // What waited would come now.
            enable(&device);
            vmm.quiet.store(false, SeqCst);
            let before = vmm.messages.load(SeqCst);
            generation.store(now, SeqCst);
            while vmm.messages.load(SeqCst) == before {
                thread::yield_now();
            }
        }
        done.store(true, SeqCst);
    });

    assert_eq!(vmm.late.load(SeqCst), 0);
}

#[test]
fn level_of_before_a_reset_is_not_shown_after_it() {
    let vmm = Arc::new(Vmm::default());
    let device = function(&vmm);
    let bus = MessageInterrupts::new(device.clone());
    device.carry_out(&device.session(), Upstream::Intx(true), &bus);
    assert!(vmm.level.load(SeqCst));

    device.reset();
    device.carry_out(&device.session(), Upstream::Intx(true), &bus);

    assert!(!vmm.level.load(SeqCst));
    assert!(!device.with_config(|config| {
        let mut status = [0];
        let _ = config.read(6, &mut status);
        status[0] & 8 != 0
    }));
}
