//! What the function looks like from the guest, and its reset.

use potemkin_transport::TransportKind::{Grpc, Quic};
use potemkin_vfio_user::message::{IrqAction, IrqData};

use crate::{
    guest::{
        BUS_MASTER, CONFIG, EXPRESS, Guest, INTERRUPTS, IO_DECODE, LEGACY, MEMORY, MEMORY_DECODE,
        PORTS, RAM, ROM, events, take,
    },
    start,
};

#[test]
fn regions_have_the_sizes_of_the_bars() {
    let (_stack, mut guest) = start(Quic, 64);

    let sizes: Vec<u64> = (0..=7)
        .map(|region| guest.client.region_info(region).unwrap().size)
        .collect();

    assert_eq!(sizes, [4096, 16, 1 << 20, 0, 8192, 4096, 2048, 4096]);
}

#[test]
fn the_rom_is_read_without_the_host() {
    let (stack, mut guest) = start(Quic, 64);
    let before = stack.status("vm").counters.frames_sent;

    let rom: [u8; 2048] = guest.read(ROM, 0);

    assert_eq!(rom[..2], [0x55, 0xaa]);
    assert_eq!(rom[0x1c..0x20], *b"PCIR");
    assert_eq!(rom.iter().fold(0_u8, |sum, b| sum.wrapping_add(*b)), 0);
    assert_eq!(stack.status("vm").counters.frames_sent, before);
}

#[test]
fn configuration_space_asks_the_device_where_it_says_so_and_nowhere_else() {
    for kind in [Quic, Grpc] {
        let (stack, mut guest) = start(kind, 64);
        let serial: [u8; 12] = guest.read(CONFIG, 0x100);
        assert_eq!(serial[..2], [0x03, 0]);
        assert_eq!(serial[4..], 0x0d3e_0000_0000_1234_u64.to_le_bytes());
        let before = stack.status("vm").counters.frames_sent;
        guest.write(CONFIG, 0x10c + 8, &[1, 2, 3, 4]);
        assert_eq!(guest.read(CONFIG, 0x10c + 8), [1, 2, 3, 4]);
        assert_eq!(stack.status("vm").counters.frames_sent, before, "{kind}");

        guest.write(CONFIG, 0xc8, &0x1234_5678_u32.to_le_bytes());
        guest.write(CONFIG, 0xca, &[0xcd, 0xab]);
        guest.write(CONFIG, 0xcb, &[0xef]);

        assert_eq!(guest.read(CONFIG, 0xc4), 3_u32.to_le_bytes(), "volatile");
        assert_eq!(guest.read(CONFIG, 0xc8), 0xefcd_5678_u32.to_le_bytes());
        assert_eq!(guest.read8(0x90), 0xef);
        assert_eq!(guest.read4(0x98), 0x0001_00cb);
        assert_eq!(guest.read4(0x9c), 3);
    }
}

#[test]
fn memory_takes_every_width_and_long_blocks() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let data: Vec<u8> = (0..5000_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();

        guest.write(MEMORY, 0x8_0001, &data);
        let back: [u8; 5000] = guest.read(MEMORY, 0x8_0001);
        assert_eq!(back[..], data, "{kind}");

        for region in [MEMORY, LEGACY] {
            guest.write(region, 0, &[1]);
            guest.write(region, 1, &[2]);
            guest.write(region, 2, &[3, 4]);
            guest.write(region, 4, &[5, 6, 7, 8]);
            guest.write(region, 8, &[9, 10, 11, 12, 13, 14, 15, 16]);
            let expected: Vec<u8> = (1..=16).collect();
            assert_eq!(guest.read::<16>(region, 0)[..], expected, "{kind}");
        }
    }
}

#[test]
fn each_kind_of_decode_reaches_its_own_bars_only() {
    let (_stack, mut guest) = start(Quic, 64);
    guest.write4(0x10, 0x1122_3344);

    guest.command(MEMORY_DECODE | BUS_MASTER);
    assert_eq!(guest.read::<4>(PORTS, 8), [0xff; 4]);
    assert_eq!(guest.read4(0x10), 0x1122_3344);
    guest.command(IO_DECODE | BUS_MASTER);
    assert_eq!(guest.read::<4>(PORTS, 8), 1_u32.to_le_bytes());
    for region in [0, MEMORY, INTERRUPTS, LEGACY] {
        assert_eq!(guest.read::<8>(region, 0), [0xff; 8], "{region}");
    }
    guest.write4(0x10, 5);
    guest.command(IO_DECODE | MEMORY_DECODE | BUS_MASTER);
    assert_eq!(guest.read4(0x10), 0x1122_3344);
}

/// Starts a function-level reset by the PCI Express capability.
fn reset(guest: &mut Guest) {
    let control = guest.capability(EXPRESS) + 8;
    let [low, high] = guest.read(CONFIG, control);
    guest.write(CONFIG, control, &[low, high | 0x80]);
}

#[test]
fn a_function_level_reset_puts_everything_back_and_the_device_works_again() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let events = events(1);
        guest.enable_msix();
        guest.listen(0, &events);
        guest.set_irqs(0, 1, IrqAction::Mask, IrqData::None, &[]);
        guest.write4(0x10, 0x1122_3344);
        guest.write(MEMORY, 0, &[7]);
        guest.write(CONFIG, 0x10, &0xfe00_0000_u32.to_le_bytes());
        guest.write4(0x4c, 0);
        guest.read4(0);
        assert_eq!(
            guest.read::<8>(INTERRUPTS, 0x1000),
            [1, 0, 0, 0, 0, 0, 0, 0]
        );

        reset(&mut guest);

        assert_eq!(guest.read::<2>(CONFIG, 4), [0, 0], "the command register");
        assert_eq!(guest.read::<4>(CONFIG, 0x10), [0; 4], "a base address");
        let control = guest.capability(0x11) + 2;
        assert_eq!(guest.read::<2>(CONFIG, control), [63, 0], "MSI-X is off");
        guest.command(IO_DECODE | MEMORY_DECODE | BUS_MASTER);
        assert_eq!(guest.read::<8>(INTERRUPTS, 0x1000), [0; 8], "{kind}");
        guest.await_answer();
        assert_eq!(guest.read4(0x10), 0);
        assert_eq!(guest.read::<1>(MEMORY, 0), [0]);

        guest.set_irqs(0, 1, IrqAction::Unmask, IrqData::None, &[]);
        guest.read4(0);
        assert_eq!(take(&events[0]), 0, "an interrupt from before the reset");
        guest.enable_msix();
        guest.write4(0x4c, 0);
        guest.read4(0);
        assert_eq!(take(&events[0]), 1);
    }
}

#[test]
fn the_fetcher_sums_what_a_list_in_guest_memory_points_to() {
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, 64);
        let vector = events(1);
        guest.enable_msix();
        guest.listen(9, &vector);
        let mut list = Vec::new();
        let mut expected = 0;
        for piece in 0..20_u64 {
            let (address, length) = (RAM + 0x1_0001 * piece + 0x1000, 1000 * piece + 1);
            let byte = piece.to_le_bytes()[0] + 1;
            guest.poke(address, &vec![byte; usize::try_from(length).unwrap()]);
            expected += length * u64::from(byte);
            list.extend(address.to_le_bytes());
            list.extend(length.to_le_bytes());
        }
        guest.poke(RAM, &list);

        guest.write8(0x180, RAM);
        guest.write4(0x188, 20);
        guest.write4(0x18c, 9);
        guest.write8(0x190, RAM + 0x800);
        guest.write4(0x1a0, 1);
        crate::guest::await_signal(&vector[0]);

        let mut sum = [0; 8];
        guest.peek(RAM + 0x800, &mut sum);
        assert_eq!(u64::from_le_bytes(sum), expected, "{kind}");
        assert_eq!(guest.read8(0x198), expected);
        assert_eq!(guest.read4(0x1a0), 0);
    }
}
