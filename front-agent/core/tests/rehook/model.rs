//! Random config writes: what is hooked is what a plain model of the function says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use potemkin_pci::{AddressKind, Bar, BarKind, Descriptor, Mapping, Space};
use proptest::prelude::*;

use crate::{
    FLR, POWER, descriptor, device,
    vmm::{Range, Vmm, overlap},
};

/// Sequences of writes in a run.
const SEQUENCES: u32 = 100_000;

/// Two functions with, between them, BARs of all kinds and of the smallest and largest sizes.
const FUNCTIONS: [&[(u8, Bar)]; 2] = [
    &[
        (0, Bar::memory32(4096)),
        (1, Bar::io(16)),
        (2, Bar::memory64(1 << 20).prefetchable()),
        (4, Bar::memory_below_1m(4096)),
        (5, Bar::memory32(16 << 10).prefetchable()),
    ],
    &[
        (0, Bar::memory64(1 << 40)),
        (2, Bar::memory64(64 << 10)),
        (4, Bar::io(256)),
        (5, Bar::memory32(16)),
    ],
];
const ROM: usize = 2048;

/// What the VMM has other uses for.
const TAKEN: [Range; 4] = [
    (AddressKind::Memory, 0, 0x1000),
    (AddressKind::Memory, 0xe000_1000, 0x800),
    (AddressKind::Memory, 0x1_e000_0000, 0x10),
    (AddressKind::Port, 0xc010, 4),
];

/// Registers and what is hooked, as simple as can be.
struct Model {
    command: u8,
    power: u8,
    keeps_state: bool,
    registers: Vec<Register>,
    taken: Vec<Range>,
    /// What was answered when something was last hooked.
    answered: BTreeMap<u8, Range>,
    live: BTreeMap<u8, Range>,
}

/// A base register of 4 or 8 bytes.
struct Register {
    offset: usize,
    space: Space,
    kind: AddressKind,
    size: u64,
    written: Vec<u8>,
    fresh: Vec<bool>,
    address: u64,
    base: u64,
    enabled: bool,
}

impl Model {
    fn new(bars: &[(u8, Bar)], keeps_state: bool) -> Self {
        let mut registers = Vec::new();
        for &(index, bar) in bars {
            let kind = match bar.kind {
                BarKind::Io => AddressKind::Port,
                _ => AddressKind::Memory,
            };
            let length = if bar.is_64_bit() { 8 } else { 4 };
            let space = Space::from_code(index).unwrap();
            let offset = 0x10 + 4 * usize::from(index);
            registers.push(Register::new(offset, length, space, kind, bar.size));
        }
        let (rom, kind) = (ROM as u64, AddressKind::Memory);
        registers.push(Register::new(0x30, 4, Space::Rom, kind, rom));
        Self {
            command: 0,
            power: 0,
            keeps_state,
            registers,
            taken: Vec::new(),
            answered: BTreeMap::new(),
            live: BTreeMap::new(),
        }
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        let decoded = self.decodes(AddressKind::Memory);
        let mut reset = false;
        for (at, &byte) in (offset..).zip(data) {
            match at {
                4 => self.command = byte & 3,
                FLR => reset |= byte & 1 == 1,
                POWER if byte & 3 == 0 => {
                    reset |= self.power == 3 && !self.keeps_state;
                    self.power = 0;
                }
                POWER if byte & 3 == 3 => self.power = 3,
                _ => {}
            }
        }
        let decodes = decoded && self.decodes(AddressKind::Memory);
        if offset < 256 {
            for register in &mut self.registers {
                register.write(offset, data, decodes);
            }
        }
        if reset {
            self.reset();
        }
        self.rehook();
    }

    fn reset(&mut self) {
        (self.command, self.power) = (0, 0);
        for register in &mut self.registers {
            *register = register.powered_on();
        }
    }

    fn decodes(&self, kind: AddressKind) -> bool {
        let bit = match kind {
            AddressKind::Port => 1,
            AddressKind::Memory => 2,
        };
        self.command & bit != 0 && self.power == 0
    }

    /// What the function answers; of two at one place the lower.
    fn answered(&self) -> BTreeMap<u8, Range> {
        let mut answered: BTreeMap<u8, Range> = BTreeMap::new();
        for register in self.registers.iter().filter(|register| register.enabled) {
            let range = (register.kind, register.base, register.size);
            let port = register.kind == AddressKind::Port;
            let hidden = answered.values().any(|&lower| overlap(range, lower));
            if self.decodes(register.kind) && !hidden && !(port && register.base > 0xffff) {
                answered.insert(register.space.to_code(), range);
            }
        }
        answered
    }

    /// The VMM puts something of its own there, if it can, or takes it away.
    fn toggle(&mut self, range: Range) {
        if self.taken.contains(&range) {
            self.taken.retain(|&other| other != range);
        } else if !self.live.values().any(|&live| overlap(range, live)) {
            self.taken.push(range);
        }
    }

    /// What is answered is hooked where it can be, and else stays where it was, if nothing of the function's has come there.
    fn rehook(&mut self) {
        let answered = self.answered();
        if answered == self.answered {
            return;
        }
        self.answered.clone_from(&answered);
        let free = |range: Range| !self.taken.iter().any(|&taken| overlap(range, taken));
        let mut live: BTreeMap<u8, Range> = answered.clone();
        live.retain(|_, range| free(*range));
        for (space, range) in &answered {
            if let Some(&old) = self.live.get(space).filter(|_| !free(*range))
                && !live.values().any(|&new| overlap(old, new))
            {
                live.insert(*space, old);
            }
        }
        self.live = live;
    }

    fn hooked(&self) -> BTreeSet<Mapping> {
        let mapping = |(&code, &(kind, address, size))| Mapping {
            kind,
            address,
            size,
            space: Space::from_code(code).unwrap(),
        };
        self.live.iter().map(mapping).collect()
    }
}

impl Register {
    fn new(offset: usize, length: usize, space: Space, kind: AddressKind, size: u64) -> Self {
        Self {
            offset,
            space,
            kind,
            size,
            written: vec![0; length],
            fresh: vec![false; length],
            address: 0,
            base: 0,
            enabled: space != Space::Rom,
        }
    }

    fn powered_on(&self) -> Self {
        let length = self.written.len();
        Self::new(self.offset, length, self.space, self.kind, self.size)
    }

    fn write(&mut self, offset: usize, data: &[u8], decodes: bool) {
        let mut elsewhere = true;
        for (at, &byte) in (offset..).zip(data) {
            if let Some(i) = at
                .checked_sub(self.offset)
                .filter(|&i| i < self.written.len())
            {
                self.written[i] = byte;
                self.fresh[i] = true;
                elsewhere = false;
            }
        }
        let mut sized = false;
        for half in 0..self.written.len() / 4 {
            let bytes = self.written[4 * half..][..4].try_into().unwrap();
            let value = u32::from_le_bytes(bytes);
            if self.asks(half, value) {
                sized = true;
            } else {
                self.address &= !(0xffff_ffff << (32 * half));
                self.address |= u64::from(value) << (32 * half);
            }
        }
        let all = self.written.len() == 4 || self.fresh.iter().all(|&fresh| fresh);
        if !sized && (all || elsewhere || !decodes) {
            self.base = self.address / self.size * self.size;
            self.fresh.fill(false);
            if self.space == Space::Rom {
                self.enabled = self.address & 1 == 1;
            }
        }
    }

    fn asks(&self, half: usize, value: u32) -> bool {
        let below = u64::from(value) % self.size.min(1 << 32);
        let ones_below = below == self.size.min(1 << 32) - 1;
        let all_above = u64::from(value) >> 11 == 0x1f_ffff
            && (self.size > 1 << 32 || (u64::from(value) + self.size) >> 32 == 1);
        match (self.written.len(), half) {
            (4, _) => value >= 0xffff_0000 || ones_below,
            (_, 0) => all_above || ones_below,
            _ => value >= 0xffff_0000,
        }
    }
}

/// What happens.
#[derive(Debug)]
enum Step {
    Write(usize, Vec<u8>),
    /// The VMM takes that of [`TAKEN`], or gives it back.
    Toggle(usize),
}

/// One step, made of random bits: mostly a whole value to a register that matters, sometimes a part of one or anything anywhere.
fn step(mut random: u64) -> Step {
    let mut pick = |among: u64| {
        let picked = random % among;
        random /= among;
        usize::try_from(picked).unwrap()
    };
    if pick(16) == 0 {
        return Step::Toggle(pick(TAKEN.len() as u64));
    }
    let registers = [
        0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x10, 0x18, 0x1c, 4, 4, POWER, FLR, 0x3c, 0,
    ];
    let register = registers[pick(16)];
    let value = match register {
        4 => [3, 3, 2, 1, 0, 7][pick(6)],
        POWER => [3, 0, 1, 2][pick(4)],
        FLR => [1, 0, 0, 0][pick(4)],
        _ if pick(2) == 0 => VALUES[pick(4)],
        _ => VALUES[pick(VALUES.len() as u64)],
    };
    let bytes = u64::to_le_bytes(value);
    match pick(8) {
        0 => Step::Write(register, bytes[..1].to_vec()),
        1 => Step::Write(register + 2, bytes[2..4].to_vec()),
        2 => Step::Write(register, bytes[..2].to_vec()),
        3 => Step::Write(register, bytes.to_vec()),
        4 => {
            let (offset, width) = (pick(0x110), [1, 2, 4][pick(3)]);
            Step::Write(offset, vec![[0, 0xff, 0x10][pick(3)]; width])
        }
        _ => Step::Write(register, bytes[..4].to_vec()),
    }
}

/// Bases near one another and of what is taken (the first ones often), questions for the size, and upper halves.
const VALUES: [u64; 24] = [
    0,
    0xe000_0000,
    0xe000_1000,
    0xe000_2000,
    0xe000_3000,
    0xe010_0000,
    0x000d_0000,
    0xfeb0_0001,
    0xe000_0001,
    0xe000_1800,
    0xc000,
    0xc010,
    0xc021,
    0xfff0,
    0x1_0000,
    0xffff_ffff,
    0xffff_fff0,
    0xffff_f800,
    0xffff_fffe,
    u64::MAX,
    1,
    0x1_e000_0000,
    0x300_0000_0000,
    0xffff_f000,
];

/// Each function, without and with a reset on its way to D0: made once.
static DESCRIPTORS: LazyLock<[[Descriptor; 2]; 2]> =
    LazyLock::new(|| FUNCTIONS.map(|bars| [false, true].map(|keeps| descriptor(bars, ROM, keeps))));

proptest! {
    #![proptest_config(ProptestConfig {
        cases: SEQUENCES,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_hooked_is_what_the_model_answers(
        steps in prop::collection::vec(any::<u64>(), 1..32),
        which in 0_usize..2,
        keeps_state in any::<bool>(),
    ) {
        let device = device(DESCRIPTORS[which][usize::from(keeps_state)].clone());
        let vmm = Vmm::with_taken(&[]);
        let mut model = Model::new(FUNCTIONS[which], keeps_state);
        device.hook(vmm.clone());
        for step in steps.into_iter().map(step) {
            match &step {
                Step::Toggle(which) => {
                    model.toggle(TAKEN[*which]);
                    vmm.taken.lock().unwrap().clone_from(&model.taken);
                }
                Step::Write(offset, data) => {
                    device.config_write_blocking(u16::try_from(*offset).unwrap(), data);
                    model.write(*offset, data);
                }
            }
            prop_assert_eq!(vmm.live(), model.hooked(), "after {:x?}", step);
        }
        drop(device);
        prop_assert!(vmm.live().is_empty());
    }
}
