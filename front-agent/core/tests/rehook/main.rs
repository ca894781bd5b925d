//! What a VMM has hooked, against a plain model of what a function answers.

#![allow(clippy::unwrap_used)]

mod model;
mod moves;
mod vmm;

use std::{sync::Arc, time::Duration};

use potemkin_front_core::{FrontDevice, Session};
use potemkin_pci::{Bar, BarIndex, Capability, Descriptor, DescriptorBuilder, capability::id};
use potemkin_session::{
    front::FrontConfig,
    ids::{AttachNumber, Epoch, Incarnation, Path, SessionId},
};

/// Where [`descriptor`] has power management's control register, and the byte whose bit 0 starts a function-level reset.
const POWER: usize = 0x44;
const FLR: usize = 0x4c;

/// A function whose host never answers: nothing here needs it.
fn device(descriptor: Descriptor) -> Arc<FrontDevice> {
    let session = Session::new(FrontConfig {
        path: Path {
            session: SessionId::from_halves(1, 2),
            epoch: Epoch(1),
            attach_number: AttachNumber(1),
        },
        host_incarnation: Incarnation::from_bytes([3; 16]),
        deadline: Duration::from_secs(1),
    });
    Arc::new(FrontDevice::new(descriptor, session))
}

/// BARs of every kind and a ROM of `rom` bytes. `keeps_state`: going from D3hot to D0 resets nothing.
fn descriptor(bars: &[(u8, Bar)], rom: usize, keeps_state: bool) -> Descriptor {
    let power = if keeps_state {
        Capability::power_management()
    } else {
        Capability::new(id::POWER_MANAGEMENT, &[3, 0, 0, 0, 0, 0]).writable(4, &[3])
    };
    let flr = Capability::new(id::ADVANCED_FEATURES, &[6, 3, 0, 0]);
    let mut builder = DescriptorBuilder::new(0x1234, 0x5678)
        .rom(vec![0; rom])
        .capability_at(0x40, power)
        .capability_at(0x48, flr);
    for &(index, bar) in bars {
        builder = builder.bar(BarIndex::new(index).unwrap(), bar);
    }
    builder.build().unwrap()
}
