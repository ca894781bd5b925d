//! The configuration space against a model that goes bit by bit.

use proptest::prelude::*;

use crate::{Bar, BarIndex, ConfigSpace, Descriptor, DescriptorBuilder};

/// What a bit of configuration space is.
#[derive(Clone, Copy, PartialEq)]
enum Bit {
    ReadOnly,
    Writable,
    WriteOneToClear,
}

/// Bits one by one, and for each BAR and the ROM the last bytes written and the last address.
struct Model {
    bits: Vec<(Bit, bool)>,
    bars: Vec<Dword>,
}

/// A register of 4 bytes that holds an address or half of one.
struct Dword {
    offset: usize,
    mask: u32,
    written: [u8; 4],
    address: u32,
}

impl Model {
    fn new(descriptor: &Descriptor) -> Self {
        let bit = |mask: &[u8], i: usize| mask[i / 8] >> (i % 8) & 1 == 1;
        let mut bits: Vec<_> = (0..descriptor.config_image().len() * 8)
            .map(|i| {
                let class = if bit(descriptor.writable(), i) {
                    Bit::Writable
                } else if bit(descriptor.write_one_to_clear(), i) {
                    Bit::WriteOneToClear
                } else {
                    Bit::ReadOnly
                };
                (class, bit(descriptor.config_image(), i))
            })
            .collect();
        let mut bars = Vec::new();
        for (index, bar) in descriptor.bars() {
            let offset = 0x10 + 4 * index.as_usize();
            bars.push(Dword::new(offset, low(bar.size_mask())));
            if bar.is_64_bit() {
                bars.push(Dword::new(offset + 4, low(bar.size_mask() >> 32)));
            }
        }
        if let Some(rom) = descriptor.rom() {
            bars.push(Dword::new(0x30, low(!(rom.len() as u64 - 1))));
            bits[0x30 * 8].0 = Bit::Writable;
        }
        for bar in &bars {
            for i in (0..32).filter(|i| bar.mask >> i & 1 == 1) {
                bits[bar.offset * 8 + i].0 = Bit::Writable;
            }
        }
        Self { bits, bars }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        for i in 0..data.len() * 8 {
            let one = data[i / 8] >> (i % 8) & 1 == 1;
            match self.bits.get_mut(offset * 8 + i) {
                Some((Bit::Writable, value)) => *value = one,
                Some((Bit::WriteOneToClear, value)) if one => *value = false,
                _ => {}
            }
        }
        for bar in &mut self.bars {
            for (i, &byte) in data.iter().enumerate() {
                if (bar.offset..bar.offset + 4).contains(&(offset + i)) {
                    bar.written[offset + i - bar.offset] = byte;
                }
            }
            let value = u32::from_le_bytes(bar.written);
            let question = value >= 0xffff_f800 && value & bar.mask == bar.mask;
            if !question {
                bar.address = value & bar.mask;
            }
        }
    }

    fn image(&self) -> Vec<u8> {
        let byte = |bits: &[(Bit, bool)]| {
            let ones = bits.iter().enumerate().filter(|(_, bit)| bit.1);
            ones.fold(0, |byte, (i, _)| byte | 1 << i)
        };
        self.bits.chunks(8).map(byte).collect()
    }

    fn address(&self, offset: usize) -> u64 {
        let bar = self.bars.iter().find(|bar| bar.offset == offset);
        bar.map_or(0, |bar| bar.address.into())
    }
}

impl Dword {
    fn new(offset: usize, mask: u32) -> Self {
        Self {
            offset,
            mask,
            written: [0; 4],
            address: 0,
        }
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}

/// Bits of every class all over the place, in conventional and in extended space.
fn any_descriptor() -> impl Strategy<Value = Descriptor> {
    let masks = prop::collection::vec((0x40_u16..0x100, any::<[u8; 2]>(), any::<bool>()), 0..8);
    (any::<bool>(), 4..=40_u32, 4..=31_u32, 11..=14_u32, masks).prop_map(
        |(extended, log64, log32, rom, masks)| {
            let mut builder = DescriptorBuilder::new(0x1234, 0x5678)
                .bar(BarIndex::B0, Bar::memory64(1 << log64))
                .bar(BarIndex::B2, Bar::io(1 << (log64 % 7 + 2)))
                .bar(BarIndex::B3, Bar::memory32(1 << log32).prefetchable())
                .bar(BarIndex::B5, Bar::memory_below_1m(1 << (log32 % 16 + 4)))
                .rom(vec![0; 1 << rom])
                .initial(0x40, &[0xa5; 192]);
            if extended {
                builder = builder.extended_config().writable(0x800, &[0xf0; 16]);
            }
            for (offset, mask, clears) in masks {
                // Even offsets belong to one class and odd ones to the other, so that no bit has both.
                let offset = (offset & !1) | u16::from(clears);
                let mask = &mask[..1];
                builder = if clears {
                    builder.write_one_to_clear(offset, mask)
                } else {
                    builder.writable(offset, mask)
                };
            }
            builder.build().unwrap()
        },
    )
}

/// Mostly on the header, and often a value that means something to a BAR.
fn any_write() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let offset = prop_oneof![4 => 0x0c_u16..0x38, 1 => 0_u16..0x110, 1 => any::<u16>()];
    let register = (0..7_u16).prop_map(|i| if i == 6 { 0x30 } else { 0x10 + 4 * i });
    let value = prop_oneof![
        Just(u32::MAX),
        Just(0xffff_f800),
        Just(0xffff_fffe),
        Just(0),
        any::<u32>()
    ];
    prop_oneof![
        (register, value).prop_map(|(at, value)| (at, value.to_le_bytes().to_vec())),
        (offset, prop::collection::vec(any::<u8>(), 0..12)),
        (0_u16..0x20, Just(vec![0xff; 300])),
    ]
}

proptest! {
    #[test]
    fn any_sequence_of_writes_leaves_what_the_model_has(
        descriptor in any_descriptor(),
        writes in prop::collection::vec(any_write(), 0..40),
    ) {
        let mut config = ConfigSpace::new(&descriptor);
        let mut model = Model::new(&descriptor);
        for (offset, data) in writes {
            let before = addresses(&config);
            let outcome = config.write(offset, &data);
            model.write(offset.into(), &data);

            let mut image = vec![0; descriptor.config_image().len()];
            let _ = config.read(0, &mut image);
            prop_assert_eq!(image, model.image());
            let expected = [
                model.address(0x10) | model.address(0x14) << 32,
                0,
                model.address(0x18),
                model.address(0x1c),
                0,
                model.address(0x24),
            ];
            let after = addresses(&config);
            prop_assert_eq!(after, expected.map(|address| (address != 0).then_some(address)));
            prop_assert_eq!(config.rom_address().unwrap_or(0), model.address(0x30));
            for index in BarIndex::all() {
                let moved = before[index.as_usize()] != after[index.as_usize()];
                prop_assert_eq!(outcome.bars_changed.contains(index), moved);
            }
        }
    }

    #[test]
    fn a_write_in_bytes_leaves_the_same_image(
        descriptor in any_descriptor(),
        writes in prop::collection::vec(any_write(), 0..10),
    ) {
        let mut whole = ConfigSpace::new(&descriptor);
        let mut split = ConfigSpace::new(&descriptor);
        for (offset, data) in writes {
            let _ = whole.write(offset, &data);
            for (at, byte) in (usize::from(offset)..=0xffff).zip(data) {
                let _ = split.write(u16::try_from(at).unwrap(), &[byte]);
            }
        }
        let (mut one, mut other) = ([0; 4096], [0; 4096]);
        let _ = whole.read(0, &mut one);
        let _ = split.read(0, &mut other);
        prop_assert_eq!(one, other);
    }

    #[test]
    fn a_read_is_the_same_in_pieces(
        descriptor in any_descriptor(),
        offset in 0_u16..0x1100,
        length in 0_usize..400,
    ) {
        let config = ConfigSpace::new(&descriptor);
        let mut whole = vec![0; length];
        let _ = config.read(offset, &mut whole);
        for (i, expected) in (0..).zip(&whole) {
            let mut byte = [0];
            let _ = config.read(offset + i, &mut byte);
            prop_assert_eq!(byte[0], *expected);
        }
    }
}

fn addresses(config: &ConfigSpace) -> [Option<u64>; 6] {
    let mut addresses = [None; 6];
    for index in BarIndex::all() {
        addresses[index.as_usize()] = config.bar_address(index);
    }
    addresses
}
