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

/// The registers of a BAR: both halves of one of 64 bits.
fn registers(bar: Bar) -> Vec<u8> {
    let halves: &[u8] = match bar.kind {
        BarKind::Memory64 { .. } => &[0, 4],
        _ => &[0],
    };
    halves.iter().map(|half| bar.register() + half).collect()
}

/// Where a BAR is while one of its registers holds `answer` to all-ones and another, if there is one, what it held before.
/// QEMU decodes only there, and nowhere what reaches the end of the address space of its kind.
fn decoded_at(bar: Bar, base: u64, half: usize, answer: u32) -> Option<u64> {
    let at = match (bar.kind, half) {
        (BarKind::Memory64 { .. }, 0) => base >> 32 << 32 | u64::from(answer & !0xf),
        (BarKind::Memory64 { .. }, _) => base & 0xffff_ffff | u64::from(answer) << 32,
        _ => return None,
    };
    Some(at)
}

#[test]
fn sizing_with_decoding_on_says_the_same_and_moves_nothing_else() {
    for kind in [Quic, Grpc] {
        let (stack, mut vm) = machine_with_order(kind, 64);
        for function in both_enabled(&mut vm) {
            fill(&mut vm, &function);
            let before = contents(vm.qtest(), &function);
            for (number, (bar, base)) in function.bars.iter().enumerate() {
                let mut answers = 0;
                for (half, register) in registers(*bar).into_iter().enumerate() {
                    let mut pci = Pci::new(vm.qtest());
                    let old = pci.config_read_u32(function.address, register).unwrap();
                    pci.config_write_u32(function.address, register, u32::MAX)
                        .unwrap();
                    let answer = pci.config_read_u32(function.address, register).unwrap();
                    answers |= u64::from(answer) << (32 * half);

                    // All-ones still stand there: nothing of its old place comes to the host, and the others stay where they are.
                    let frames = frames(&stack);
                    let gone = function.read(vm.qtest(), bar.index, look_at(&function, *bar), 4);
                    assert_ne!(gone.unwrap(), before[number], "{kind} {bar:?}");
                    assert_eq!(frames, self::frames(&stack), "{kind} {bar:?}");
                    let mut during = contents(vm.qtest(), &function);
                    during[number] = before[number];
                    assert_eq!(during, before, "{kind} {bar:?}");
                    if let Some(at) = decoded_at(*bar, *base, half, answer) {
                        let there = vm.qtest().readl(at + look_at(&function, *bar)).unwrap();
                        assert_eq!(u64::from(there), before[number], "{kind} {bar:?} {at:#x}");
                    }

                    Pci::new(vm.qtest())
                        .config_write_u32(function.address, register, old)
                        .unwrap();
                    assert_eq!(contents(vm.qtest(), &function), before, "{kind} {bar:?}");
                }
                let mask = match bar.kind {
                    BarKind::Memory64 { .. } => answers & !0xf,
                    BarKind::Io => answers & !3 | !0xffff,
                    // With the enable bit of the ROM.
                    BarKind::Rom => answers & !1 | !0xffff_ffff,
                    BarKind::Memory32 { .. } => answers & !0xf | !0xffff_ffff,
                };
                assert_eq!(mask.wrapping_neg(), bar.size, "{kind} {bar:?}");
            }
        }
    }
}

/// Has every BAR hold something to look at, and enables the ROM.
fn fill(vm: &mut Vm, function: &Function) {
    for (bar, base) in &function.bars {
        if let Some((offset, value)) = mark(function, *bar) {
            function
                .write(vm.qtest(), bar.index, offset, 4, value)
                .unwrap();
        }
        if bar.kind == BarKind::Rom {
            let low = u32::try_from(*base).unwrap();
            Pci::new(vm.qtest())
                .config_write_u32(function.address, bar.register(), low | 1)
                .unwrap();
        }
    }
}

/// 4 bytes of each BAR.
fn contents(qtest: &mut Qtest, function: &Function) -> Vec<u64> {
    let bars = function.bars.iter();
    bars.map(|(bar, _)| {
        let offset = look_at(function, *bar);
        function.read(qtest, bar.index, offset, 4).unwrap()
    })
    .collect()
}

/// Where 4 bytes of a BAR are which a read does not change, and which are not what reads where nothing is.
fn look_at(function: &Function, bar: Bar) -> u64 {
    match (bar.kind, mark(function, bar)) {
        (_, Some((offset, _))) => offset,
        // The status, which says nothing.
        (BarKind::Io, None) => 0xc,
        (_, None) => 0,
    }
}

/// Something in a memory BAR that can be written and read there: offset and a value of 4 bytes.
fn mark(function: &Function, bar: Bar) -> Option<(u64, u64)> {
    match (function.bars.len(), bar.index) {
        // edu: liveness, which gives the complement.
        (1, 0) => Some((0x04, 0x1234_5678)),
        (_, 0) => Some((0x10, 0x1234_5678)),
        (_, 2 | 5) => Some((0x100, 0x1234_5678)),
        // The address of an MSI-X vector.
        (_, 4) => Some((0x10, 0x1234_5678)),
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

/// Moves a BAR.
pub(crate) fn place(pci: &mut Pci<'_>, function: &mut Function, index: u8, base: u64) {
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
