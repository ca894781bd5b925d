//! The configuration space against a model that goes bit by bit.

use proptest::prelude::*;

use crate::{
    Bar, BarIndex, Capability, ConfigSpace, Descriptor, DescriptorBuilder, capability::id,
};

/// What a bit of configuration space is.
#[derive(Clone, Copy, PartialEq)]
enum Bit {
    ReadOnly,
    Writable,
    WriteOneToClear,
}

/// Where [`any_descriptor`] puts power management's control register, and the byte that starts a function-level reset by its bit 0.
const POWER: usize = 0x44;
const FLR: usize = 0x4c;

/// Bits one by one, and for each BAR and the ROM the last bytes written, the last address and the base.
struct Model {
    bits: Vec<(Bit, bool)>,
    forwarded: Vec<u8>,
    bars: Vec<Register>,
}

/// A register of 4 bytes, or two of them, that holds an address.
struct Register {
    offset: usize,
    mask: u64,
    written: Vec<u8>,
    address: u64,
    base: u64,
    /// Bytes written since the base last counted.
    fresh: Vec<bool>,
}

/// What a write did.
#[derive(Debug, PartialEq)]
struct Expected {
    command_changed: bool,
    bus_master_cleared: bool,
    forward: bool,
    flr: bool,
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
            let length = if bar.is_64_bit() { 8 } else { 4 };
            bars.push(Register::new(offset, bar.size_mask(), length));
        }
        if let Some(rom) = descriptor.rom() {
            let mask = !(rom.len() as u64 - 1) & 0xffff_ffff;
            bars.push(Register::new(0x30, mask, 4));
            bits[0x30 * 8].0 = Bit::Writable;
        }
        for bar in &bars {
            for i in (0..64).filter(|i| bar.mask >> i & 1 == 1) {
                bits[bar.offset * 8 + i].0 = Bit::Writable;
            }
        }
        let forwarded = descriptor.forwarded().to_vec();
        Self {
            bits,
            forwarded,
            bars,
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) -> Expected {
        let (command, state) = (self.byte16(4), self.power_state());
        let decoded = self.decodes();
        for i in 0..data.len() * 8 {
            let one = data[i / 8] >> (i % 8) & 1 == 1;
            match self.bits.get_mut(offset * 8 + i) {
                Some((Bit::Writable, value)) => *value = one,
                Some((Bit::WriteOneToClear, value)) if one => *value = false,
                _ => {}
            }
        }
        // There are D0 and D3hot only.
        if let 1 | 2 = self.power_state() {
            self.bits[POWER * 8].1 = state == 3;
            self.bits[POWER * 8 + 1].1 = state == 3;
        }
        let decodes = decoded && self.decodes();
        let written = offset..(offset + data.len()).min(self.bits.len() / 8);
        for bar in self.bars.iter_mut().filter(|_| !written.is_empty()) {
            bar.write(offset, data, decodes);
        }
        let keeps_state = self.bits[POWER * 8 + 3].1;
        let flr_byte = FLR.checked_sub(offset).and_then(|i| data.get(i));
        let (after, state_after) = (self.byte16(4), self.power_state());
        Expected {
            command_changed: command != after || state != state_after,
            bus_master_cleared: command & 4 != 0
                && state == 0
                && (after & 4 == 0 || state_after != 0),
            forward: written.clone().any(|at| self.forwarded[at] != 0),
            flr: flr_byte.is_some_and(|byte| byte & 1 == 1)
                || state == 3 && state_after == 0 && !keeps_state,
        }
    }

    fn image(&self) -> Vec<u8> {
        let byte = |bits: &[(Bit, bool)]| {
            let ones = bits.iter().enumerate().filter(|(_, bit)| bit.1);
            ones.fold(0, |byte, (i, _)| byte | 1 << i)
        };
        self.bits.chunks(8).map(byte).collect()
    }

    fn byte16(&self, offset: usize) -> u16 {
        let bits = &self.bits[offset * 8..][..16];
        let ones = bits.iter().enumerate().filter(|(_, bit)| bit.1);
        ones.fold(0, |value, (i, _)| value | 1 << i)
    }

    fn power_state(&self) -> u16 {
        self.byte16(POWER) & 3
    }

    fn decodes(&self) -> bool {
        self.byte16(4) & 2 != 0 && self.power_state() == 0
    }

    fn base(&self, offset: usize) -> Option<u64> {
        let bar = self.bars.iter().find(|bar| bar.offset == offset);
        bar.map(|bar| bar.base)
    }
}

impl Register {
    fn new(offset: usize, mask: u64, length: usize) -> Self {
        Self {
            offset,
            mask,
            written: vec![0; length],
            address: 0,
            base: 0,
            fresh: vec![false; length],
        }
    }

    fn write(&mut self, offset: usize, data: &[u8], decodes: bool) {
        let mut hit = false;
        for (i, &byte) in data.iter().enumerate() {
            if (self.offset..self.offset + self.written.len()).contains(&(offset + i)) {
                self.written[offset + i - self.offset] = byte;
                self.fresh[offset + i - self.offset] = true;
                hit = true;
            }
        }
        let mut sized = false;
        for half in 0..self.written.len() / 4 {
            let bytes = self.written[4 * half..][..4].try_into().unwrap();
            let value = u32::from_le_bytes(bytes);
            if self.asks(half, value) {
                sized = true;
            } else {
                let other = self.address & !(0xffff_ffff << (32 * half));
                self.address = other | u64::from(value) << (32 * half);
            }
        }
        let whole = self.written.len() == 4 || self.fresh.iter().all(|&fresh| fresh);
        if !sized && (whole || !hit || !decodes) {
            self.base = self.address & self.mask;
            self.fresh.fill(false);
        }
    }

    /// Whether this is no address but asks for the size.
    fn asks(&self, half: usize, value: u32) -> bool {
        let mask = low(self.mask >> (32 * half));
        let ones_below_the_size = value | mask == u32::MAX;
        match (self.written.len(), half) {
            (4, _) => value >= 0xffff_0000 || ones_below_the_size,
            (_, 0) => value >= 0xffff_f800 && value & mask == mask || ones_below_the_size,
            _ => value >= 0xffff_0000,
        }
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}

/// Bits of every class all over the place, in conventional and in extended space.
fn any_descriptor() -> impl Strategy<Value = Descriptor> {
    let masks = prop::collection::vec((0x60_u16..0x100, any::<[u8; 2]>(), any::<bool>()), 0..8);
    let power = prop_oneof![
        Just(Capability::power_management()),
        Just(Capability::new(id::POWER_MANAGEMENT, &[3, 0, 0, 0, 0, 0]).writable(4, &[3])),
    ];
    (
        any::<bool>(),
        4..=40_u32,
        4..=31_u32,
        11..=14_u32,
        masks,
        power,
    )
        .prop_map(|(extended, log64, log32, rom, masks, power)| {
            let mut builder = DescriptorBuilder::new(0x1234, 0x5678)
                .bar(BarIndex::B0, Bar::memory64(1 << log64))
                .bar(BarIndex::B2, Bar::io(1 << (log64 % 7 + 2)))
                .bar(BarIndex::B3, Bar::memory32(1 << log32).prefetchable())
                .bar(BarIndex::B5, Bar::memory_below_1m(1 << (log32 % 16 + 4)))
                .rom(vec![0; 1 << rom])
                .capability_at(0x40, power)
                .capability_at(0x48, Capability::new(id::ADVANCED_FEATURES, &[6, 3, 0, 0]))
                .forwarded(0x04, &[0x40])
                .initial(0x60, &[0xa5; 160]);
            if extended {
                builder = builder.extended_config().writable(0x800, &[0xf0; 16]);
            }
            for (offset, mask, clears) in masks {
                // Even offsets belong to one class and odd ones to the other, so that no bit has both.
                let offset = (offset & !1) | u16::from(clears);
                let mask = &mask[..1];
                builder = builder.forwarded(offset, &[mask[0] & 1]);
                builder = if clears {
                    builder.write_one_to_clear(offset, mask)
                } else {
                    builder.writable(offset, mask)
                };
            }
            builder.build().unwrap()
        })
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
        (Just(0x04), (0..8_u8).prop_map(|bits| vec![bits])),
        (Just(0x44), (0..4_u8).prop_map(|state| vec![state])),
        (0x4a..0x4e_u16, Just(vec![1])),
        (0_u16..0x20, Just(vec![0xff; 300])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

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
            let expected = model.write(offset.into(), &data);
            let seen = Expected {
                command_changed: outcome.command_changed,
                bus_master_cleared: outcome.bus_master_cleared,
                forward: outcome.forward,
                flr: outcome.flr,
            };
            prop_assert_eq!(seen, expected);

            let mut image = vec![0; descriptor.config_image().len()];
            let _ = config.read(0, &mut image);
            prop_assert_eq!(image, model.image());
            let bases = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map(|at| model.base(at));
            let after = addresses(&config);
            prop_assert_eq!(after, bases);
            prop_assert_eq!(config.rom_address(), model.base(0x30));
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
