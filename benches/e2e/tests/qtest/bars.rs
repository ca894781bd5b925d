//! Every BAR of both devices: sized, moved while it is decoded, turned off and on; the expansion ROM.

use potemkin_testkit::qemu::{
    Qtest, Vm,
    pci::{Bar, BarKind, Function, Pci},
};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{DEVICE, ORDER, VENDOR, both_enabled, machine_with_order};

const COMMAND: u8 = 4;

fn kinds(function: &Function) -> Vec<(u8, BarKind, u64)> {
    let bars = function.bars.iter();
    bars.map(|(bar, _)| (bar.index, bar.kind, bar.size))
        .collect()
}

const PLAIN: BarKind = BarKind::Memory32 {
    prefetchable: false,
};

#[test]
fn each_bar_says_its_kind_and_size() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine_with_order(kind, 64);
        both_enabled(&mut vm);
        let before = frames(&stack);
        let mut pci = Pci::new(vm.qtest());
        let [edu, order] = [DEVICE, ORDER].map(|device| {
            let at = pci.find(0, VENDOR, device).unwrap();
            pci.enable(at).unwrap()
        });

        assert_eq!(kinds(&edu), [(0, PLAIN, 1 << 20)], "{kind}");
        let wide = BarKind::Memory64 { prefetchable: true };
        assert_eq!(
            kinds(&order),
            [
                (0, PLAIN, 4096),
                (1, BarKind::Io, 16),
                (2, wide, 1 << 20),
                (4, PLAIN, 8192),
                // Of the type below 1 MiB.
                (5, PLAIN, 4096),
                (6, BarKind::Rom, 2048),
            ],
            "{kind}"
        );
        let legacy = pci.config_read_u32(order.address, 0x24).unwrap();
        assert_eq!(legacy & 0xf, 2);
        assert_eq!(frames(&stack), before, "{kind}: the host is not asked");
    }
}

/// What a BAR's registers read after all-ones, with decoding left on; both halves of one of 64 bits.
fn sized_while_decoded(pci: &mut Pci<'_>, function: &Function, bar: Bar) -> u64 {
    let registers: &[u8] = match bar.kind {
        BarKind::Memory64 { .. } => &[0, 4],
        _ => &[0],
    };
    let mut answer = 0;
    for (half, &register) in registers.iter().enumerate() {
        let register = bar.register() + register;
        let old = pci.config_read_u32(function.address, register).unwrap();
        pci.config_write_u32(function.address, register, u32::MAX)
            .unwrap();
        let read = pci.config_read_u32(function.address, register).unwrap();
        pci.config_write_u32(function.address, register, old)
            .unwrap();
        answer |= u64::from(read) << (32 * half);
    }
    answer
}

#[test]
fn sizing_with_decoding_on_says_the_same_and_moves_nothing() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        for function in both_enabled(&mut vm) {
            let before = contents(vm.qtest(), &function);
            for (bar, _) in &function.bars {
                let answer = sized_while_decoded(&mut Pci::new(vm.qtest()), &function, *bar);
                let mask = match bar.kind {
                    BarKind::Memory64 { .. } => answer & !0xf,
                    BarKind::Io => answer & !3 | !0xffff,
                    // With the enable bit of the ROM.
                    BarKind::Rom => answer & !1 | !0xffff_ffff,
                    BarKind::Memory32 { .. } => answer & !0xf | !0xffff_ffff,
                };
                assert_eq!(mask.wrapping_neg(), bar.size, "{kind} {bar:?}");
            }
            assert_eq!(contents(vm.qtest(), &function), before, "{kind}");
        }
    }
}

/// 4 bytes of each BAR, from where its contents do not change by being read.
fn contents(qtest: &mut Qtest, function: &Function) -> Vec<u64> {
    let bars = function.bars.iter();
    bars.filter(|(bar, _)| !matches!(bar.kind, BarKind::Rom | BarKind::Io))
        .map(|(bar, _)| function.read(qtest, bar.index, 0, 4).unwrap())
        .collect()
}

/// Something in a BAR that can be written and read there: offset and a value of 4 bytes.
fn mark(function: &Function, bar: Bar) -> Option<(u64, u64)> {
    match (function.bars.len(), bar.index) {
        // edu: liveness, which gives the complement.
        (1, 0) => Some((0x04, 0x1234_5678)),
        (_, 0) => Some((0x10, 0x1234_5678)),
        (_, 2 | 5) => Some((0x100, 0x1234_5678)),
        _ => None,
    }
}

/// A place for a BAR, where nothing is.
fn elsewhere(bar: Bar, base: u64) -> u64 {
    match bar.kind {
        BarKind::Io => 0xd000,
        BarKind::Memory64 { .. } => base + 0x40_0000_0000,
        _ => 0xd000_0000 + u64::from(bar.index) * 0x100_0000,
    }
}

fn place(pci: &mut Pci<'_>, function: &mut Function, index: u8, base: u64) {
    let at = function.address;
    let found = function.bars.iter_mut().find(|(bar, _)| bar.index == index);
    let (bar, old) = found.unwrap();
    let [low, high] = [base & 0xffff_ffff, base >> 32].map(|half| u32::try_from(half).unwrap());
    pci.config_write_u32(at, bar.register(), low).unwrap();
    if matches!(bar.kind, BarKind::Memory64 { .. }) {
        pci.config_write_u32(at, bar.register() + 4, high).unwrap();
    }
    *old = base;
}

#[test]
fn a_memory_bar_that_is_moved_while_decoded_answers_at_its_new_place_only() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine_with_order(kind, 64);
        for function in both_enabled(&mut vm) {
            for (bar, base) in function.bars.clone() {
                let Some((offset, value)) = mark(&function, bar) else {
                    continue;
                };
                let mut function = function.clone();
                let old = function.clone();
                function
                    .write(vm.qtest(), bar.index, offset, 4, value)
                    .unwrap();
                let before = function.read(vm.qtest(), bar.index, offset, 4).unwrap();

                place(
                    &mut Pci::new(vm.qtest()),
                    &mut function,
                    bar.index,
                    elsewhere(bar, base),
                );

                let moved = function.read(vm.qtest(), bar.index, offset, 4).unwrap();
                assert_eq!(moved, before, "{kind} {bar:?}");
                let frames = frames(&stack);
                let gone = old.read(vm.qtest(), bar.index, offset, 4).unwrap();
                assert_ne!(gone, before, "{kind} {bar:?}");
                old.write(vm.qtest(), bar.index, offset, 4, 0).unwrap();
                assert_eq!(frames, self::frames(&stack), "{kind} {bar:?}");
                let still = function.read(vm.qtest(), bar.index, offset, 4).unwrap();
                assert_eq!(still, before, "{kind} {bar:?}");
            }
        }
    }
}

fn frames(stack: &potemkin_e2e::Stack) -> [u64; 2] {
    ["vm", "order"].map(|name| stack.status(name).counters.frames_sent)
}

#[test]
fn a_port_bar_is_moved_turned_off_and_on() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let [_, mut order] = both_enabled(&mut vm);
        let old = order.clone();
        // Each read of the ticket is a new one: no read is lost or made twice.
        assert_eq!(order.read(vm.qtest(), 1, 8, 4).unwrap(), 1);

        place(&mut Pci::new(vm.qtest()), &mut order, 1, 0xd000);
        assert_eq!(
            old.read(vm.qtest(), 1, 8, 4).unwrap(),
            0xffff_ffff,
            "{kind}"
        );
        assert_eq!(order.read(vm.qtest(), 1, 8, 4).unwrap(), 2, "{kind}");

        let mut pci = Pci::new(vm.qtest());
        pci.config_write_u16(order.address, COMMAND, 6).unwrap();
        assert_eq!(order.read(pci.qtest(), 1, 8, 4).unwrap(), 0xffff_ffff);
        assert_eq!(order.read(pci.qtest(), 0, 0, 4).unwrap(), 0x5244_524f);
        pci.config_write_u16(order.address, COMMAND, 7).unwrap();
        assert_eq!(order.read(vm.qtest(), 1, 8, 4).unwrap(), 3, "{kind}");
    }
}

#[test]
fn a_bar_of_64_bits_goes_below_4_gib_and_back() {
    for kind in [Quic, Grpc] {
        let (_stack, mut vm) = machine_with_order(kind, 64);
        let [_, mut order] = both_enabled(&mut vm);
        let value = 0x1122_3344_5566_7788;
        for base in [0xd000_0000, 0x30_0000_0000, 0x7f_c000_0000, 0xd800_0000] {
            place(&mut Pci::new(vm.qtest()), &mut order, 2, base);
            order
                .write(vm.qtest(), 2, 0xf_fff8, 8, value ^ base)
                .unwrap();
            let read = order.read(vm.qtest(), 2, 0xf_fff8, 8).unwrap();
            assert_eq!(read, value ^ base, "{kind} {base:#x}");
        }
    }
}

#[test]
fn memory_turned_off_answers_nowhere_and_keeps_what_it_has() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine_with_order(kind, 64);
        for function in both_enabled(&mut vm) {
            let marked: Vec<_> = function
                .bars
                .iter()
                .filter_map(|(bar, _)| Some((bar.index, mark(&function, *bar)?)))
                .collect();
            for (index, (offset, value)) in &marked {
                function
                    .write(vm.qtest(), *index, *offset, 4, *value)
                    .unwrap();
            }
            let read = |vm: &mut Vm| -> Vec<u64> {
                let marked = marked.iter();
                marked
                    .map(|(index, (offset, _))| {
                        function.read(vm.qtest(), *index, *offset, 4).unwrap()
                    })
                    .collect()
            };
            let before = read(&mut vm);

            // Bus mastering stays: the host hears of it when that is turned off.
            Pci::new(vm.qtest())
                .config_write_u16(function.address, COMMAND, 5)
                .unwrap();
            let frames = frames(&stack);
            let off = read(&mut vm);
            assert_eq!(frames, self::frames(&stack), "{kind}");
            assert!(
                off.iter().zip(&before).all(|(off, before)| off != before),
                "{off:x?}"
            );
            Pci::new(vm.qtest())
                .config_write_u16(function.address, COMMAND, 7)
                .unwrap();

            assert_eq!(read(&mut vm), before, "{kind}");
        }
    }
}

#[test]
fn the_rom_is_read_through_its_bar_while_its_enable_bit_is_set() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine_with_order(kind, 64);
        let [_, order] = both_enabled(&mut vm);
        let (rom, base) = order.bar(6).unwrap();
        let frames = frames(&stack);
        assert_ne!(vm.qtest().readw(base).unwrap(), 0xaa55, "it is not enabled");

        let low = u32::try_from(base).unwrap();
        let mut pci = Pci::new(vm.qtest());
        pci.config_write_u32(order.address, rom.register(), low | 1)
            .unwrap();
        let image = vm.qtest().read(base, 2048).unwrap();
        assert_eq!(image[..2], [0x55, 0xaa], "{kind}");
        assert_eq!(image[0x1c..0x24], *b"PCIR\x34\x12\x3e\x0d");
        assert_eq!(
            image.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
            0
        );

        // Moved while it is decoded, then off.
        let moved = 0xdf00_0000;
        let mut pci = Pci::new(vm.qtest());
        pci.config_write_u32(order.address, rom.register(), moved | 1)
            .unwrap();
        assert_eq!(pci.qtest().readw(moved.into()).unwrap(), 0xaa55);
        assert_ne!(pci.qtest().readw(base).unwrap(), 0xaa55);
        pci.config_write_u32(order.address, rom.register(), moved)
            .unwrap();
        assert_ne!(vm.qtest().readw(moved.into()).unwrap(), 0xaa55);
        assert_eq!(frames, self::frames(&stack), "the host is not asked");
    }
}
