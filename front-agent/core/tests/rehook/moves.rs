//! Single moves, in the order in which the VMM sees them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Barrier},
    thread,
};

use potemkin_front_core::{FrontDevice, HookCounters, Outcome, Rehook, RehookError};
use potemkin_pci::{AddressKind, Bar, Mapping};

use crate::{
    descriptor, device,
    vmm::{Call, Vmm},
};

const PAGE: u64 = 4096;
const A: u64 = 0xe000_0000;
const B: u64 = 0xe000_1000;
const C: u64 = 0xe000_2000;

/// Two BARs of a page at A and B, decoding, hooked by the VMM.
fn two_pages(vmm: &Arc<Vmm>) -> Arc<FrontDevice> {
    let page = Bar::memory32(PAGE);
    let device = device(descriptor(&[(0, page), (1, page)], 2048, true));
    place(&device, 0x10, A);
    place(&device, 0x14, B);
    device.hook(vmm.clone());
    device.config_write_blocking(4, &[2]);
    assert_eq!(vmm.calls(), [Call::Map(A), Call::Map(B)]);
    device
}

fn place(device: &FrontDevice, offset: u16, address: u64) {
    device.config_write_blocking(offset, &address.to_le_bytes()[..4]);
}

fn places(vmm: &Vmm) -> Vec<(u8, u64)> {
    let live = vmm.live();
    let place = |mapping: &Mapping| (mapping.space.to_code(), mapping.address);
    let mut places: Vec<_> = live.iter().map(place).collect();
    places.sort_unstable();
    places
}

#[test]
fn the_new_range_is_mapped_before_the_old_one_is_unmapped() {
    let vmm = Vmm::with_taken(&[]);
    let device = two_pages(&vmm);

    place(&device, 0x10, C);

    assert_eq!(vmm.calls(), [Call::Map(C), Call::Unmap(A)]);
}

#[test]
fn a_refused_move_leaves_the_old_range_and_is_counted() {
    let vmm = Vmm::with_taken(&[(AddressKind::Memory, C, 16)]);
    let device = two_pages(&vmm);

    place(&device, 0x10, C);

    assert_eq!(vmm.calls(), [Call::Refuse(C)]);
    assert_eq!(places(&vmm), [(0, A), (1, B)]);
    let counters = HookCounters {
        mapped: 2,
        failed: 1,
    };
    assert_eq!(device.hook_counters(), counters);
    let mut register = [0; 4];
    device.config_read_blocking(0x10, &mut register);
    assert_eq!(u64::from(u32::from_le_bytes(register)), C);
}

#[test]
fn a_refused_move_leaves_the_device_at_its_old_address() {
    const ROM: u16 = 0x30;
    let vmm = Vmm::with_taken(&[(AddressKind::Memory, C, 16)]);
    let device = two_pages(&vmm);
    let found = |address| device.memory_read_blocking(address, &mut [0; 4]);
    let rom = |address| place(&device, ROM, address | 1);
    rom(C + PAGE);
    assert_eq!(found(C + PAGE), Outcome::Done);

    rom(C);

    assert_eq!(found(C + PAGE), Outcome::Done);
    assert_eq!(found(C), Outcome::NotDecoded);
    assert!(!device.retry_hooks(), "it is still taken");
    vmm.taken.lock().unwrap().clear();
    assert!(device.retry_hooks());
    assert_eq!(found(C), Outcome::Done);
    assert_eq!(found(C + PAGE), Outcome::NotDecoded);
    device.unhook();
    assert_eq!(found(C), Outcome::Done, "by its registers");
}

#[test]
fn a_refused_range_is_tried_again_when_decode_comes_back() {
    let vmm = Vmm::with_taken(&[(AddressKind::Memory, C, 16)]);
    let device = two_pages(&vmm);
    place(&device, 0x10, C);
    vmm.taken.lock().unwrap().clear();

    device.config_write_blocking(0x3c, &[7]);
    assert_eq!(places(&vmm), [(0, A), (1, B)]);
    device.config_write_blocking(4, &[0]);
    assert_eq!(places(&vmm), []);
    device.config_write_blocking(4, &[2]);

    assert_eq!(places(&vmm), [(0, C), (1, B)]);
}

#[test]
fn a_range_that_stayed_behind_gives_way_to_a_bar_that_is_placed_there() {
    let vmm = Vmm::with_taken(&[(AddressKind::Memory, C, 16)]);
    let device = two_pages(&vmm);
    place(&device, 0x10, C);

    place(&device, 0x14, A);

    assert_eq!(places(&vmm), [(1, A)]);
}

#[test]
fn a_range_that_gave_way_for_nothing_is_mapped_back() {
    let vmm = Vmm::with_taken(&[(AddressKind::Memory, C, 16)]);
    let device = two_pages(&vmm);
    place(&device, 0x10, C);
    vmm.refuse(1, A);
    let _ = vmm.calls();

    place(&device, 0x14, A);

    let calls = [
        Call::Refuse(C),
        Call::Unmap(A),
        Call::Refuse(A),
        Call::Map(A),
    ];
    assert_eq!(vmm.calls(), calls);
    assert_eq!(places(&vmm), [(0, A), (1, B)]);
}

#[test]
fn bars_that_change_places_in_one_write_are_unmapped_first() {
    let vmm = Vmm::with_taken(&[]);
    let device = two_pages(&vmm);
    let swapped = (B | A << 32).to_le_bytes();

    device.config_write_blocking(0x10, &swapped);

    assert_eq!(places(&vmm), [(0, B), (1, A)]);
}

#[test]
fn bars_that_change_places_one_by_one_end_where_they_should() {
    for order in [[(0x10, B), (0x14, A)], [(0x14, A), (0x10, B)]] {
        let vmm = Vmm::with_taken(&[]);
        let device = two_pages(&vmm);
        for (offset, address) in order {
            place(&device, offset, address);
        }
        assert_eq!(places(&vmm), [(0, B), (1, A)]);
    }
}

#[test]
fn bars_that_cannot_change_places_are_mapped_back_where_there_is_room() {
    let vmm = Vmm::with_taken(&[]);
    let device = two_pages(&vmm);
    vmm.refuse(1, A);
    device.config_write_blocking(0x10, &(B | A << 32).to_le_bytes());
    assert_eq!(places(&vmm), [(0, B)], "its old place is the other's now");

    let vmm = Vmm::with_taken(&[]);
    let device = two_pages(&vmm);
    vmm.refuse(0, B);
    vmm.refuse(1, A);
    device.config_write_blocking(0x10, &(B | A << 32).to_le_bytes());
    assert_eq!(places(&vmm), [(0, A), (1, B)]);
}

#[test]
fn a_second_vmm_takes_over_what_the_first_one_had() {
    let (first, second) = (Vmm::with_taken(&[]), Vmm::with_taken(&[]));
    let device = two_pages(&first);

    device.hook(second.clone());

    assert_eq!(places(&first), []);
    assert_eq!(places(&second), [(0, A), (1, B)]);
    assert_eq!(device.hooked().len(), 2);
    device.unhook();
    assert_eq!(places(&second), []);
    place(&device, 0x10, C);
    assert_eq!(device.hooked(), []);
}

#[test]
fn a_reset_unmaps_everything() {
    let vmm = Vmm::with_taken(&[]);
    let device = two_pages(&vmm);

    device.reset();

    assert_eq!(places(&vmm), []);
}

/// A VMM that looks into the function while it is called.
struct Curious {
    device: Arc<FrontDevice>,
    vmm: Arc<Vmm>,
}

impl Rehook for Curious {
    fn map(&self, mapping: Mapping) -> Result<(), RehookError> {
        let mut command = [0; 2];
        self.device.config_read_blocking(4, &mut command);
        assert_eq!(command, [2, 0]);
        let mut bytes = [0; 4];
        self.device
            .region_read_blocking(mapping.space, 0, &mut bytes);
        self.vmm.map(mapping)
    }

    fn unmap(&self, mapping: Mapping) {
        self.vmm.unmap(mapping);
    }
}

#[test]
fn a_vmm_may_look_into_the_function_while_it_maps() {
    let vmm = Vmm::with_taken(&[]);
    let device = device(descriptor(&[(0, Bar::memory32(PAGE))], 2048, true));
    device.session().close("no host is needed");
    let curious = Curious {
        device: device.clone(),
        vmm: vmm.clone(),
    };
    device.hook(Arc::new(curious));

    device.config_write_blocking(4, &[2]);

    assert_eq!(places(&vmm), [(0, 0)]);
    device.unhook();
}

#[test]
fn two_vcpus_that_write_at_once_leave_what_the_registers_say() {
    let vmm = Vmm::with_taken(&[]);
    let device = two_pages(&vmm);
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for (offset, first) in [(0x10, 0), (0x14, 1)] {
            let (device, start) = (&device, &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..2_000 {
                    place(device, offset, A + PAGE * ((first + n) % 5));
                }
            });
        }
    });

    let wanted: BTreeSet<_> = device.with_config(|config| config.mappings().collect());
    assert_eq!(vmm.live(), wanted);
}
