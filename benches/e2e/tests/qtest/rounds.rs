//! The device writes memory and raises MSI-X: where a message is, the data must be, every time, through QEMU.
//!
//! `POTEMKIN_QTEST_ROUNDS`: rounds a transport.

use std::{
    env,
    fs::File,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use potemkin_testkit::{
    Vmm,
    qemu::{Machine, Vm, pci::Function},
};
use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    machine_with_order,
    msix::{MESSAGES, Msix, message},
    start_with_order,
};

/// As many slots as vectors: a message stands for one round.
pub(crate) const VECTORS: u16 = 256;
const SLOTS: usize = VECTORS as usize;
const RING: u64 = 0x40_0000;
const BLOCK_BYTES: usize = 64;
const DEFAULT_ROUNDS: u64 = 20_000;
/// Where each transfer is a message to QEMU and its answer.
pub(crate) const ROUNDS_BY_MESSAGE: u64 = 2_000;
/// Bounds the wait for a message; nothing is timed by it.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_message_never_comes_before_its_data() {
    let rounds = env::var("POTEMKIN_QTEST_ROUNDS").map_or(DEFAULT_ROUNDS, |text| {
        text.parse().expect("POTEMKIN_QTEST_ROUNDS is a number")
    });
    for kind in [Quic, Grpc] {
        let (_stack, vm) = machine_with_order(kind, VECTORS);
        let ram = Ram(Some(vm.memory().unwrap()));
        check(vm, &ram, rounds, &kind.to_string());
    }
}

#[test]
fn a_message_never_comes_before_data_that_goes_by_messages() {
    for kind in [Quic, Grpc] {
        let machine = Machine::qtest(&Vmm::from_env()).anonymous_memory();
        let (_stack, vm) = start_with_order(kind, VECTORS, machine);
        let name = format!("{kind}, without a descriptor");
        check(vm, &Ram(None), ROUNDS_BY_MESSAGE, &name);
    }
}

pub(crate) fn check(mut vm: Vm, ram: &Ram, rounds: u64, name: &str) {
    let msix = Msix::new(&mut vm);
    for vector in 0..VECTORS {
        msix.aim(&mut vm, vector.into(), false);
    }
    msix.enable(&mut vm);
    let begin = Instant::now();

    let early = run(&mut vm, ram, &msix.order, rounds);

    println!(
        "{name}: {rounds} rounds, {early} early, {:?}",
        begin.elapsed()
    );
    assert_eq!(early, 0, "{name}: messages before their data");
    assert_eq!(msix.order.read(vm.qtest(), 0, 0x128, 8).unwrap(), rounds);
    assert_eq!(msix.order.read(vm.qtest(), 0, 0x130, 4).unwrap(), 0);
}

/// Guest memory, in its file if it has one: a look by qtest takes so long that data which comes late might have come meanwhile.
pub(crate) struct Ram(pub(crate) Option<File>);

impl Ram {
    fn read(&self, vm: &mut Vm, address: u64, length: usize) -> Vec<u8> {
        let Some(file) = &self.0 else {
            return vm.qtest().read(address, length).unwrap();
        };
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, address).unwrap();
        bytes
    }

    fn clear(&self, vm: &mut Vm, address: u64, length: usize) {
        let zeros = vec![0; length];
        match &self.0 {
            Some(file) => file.write_all_at(&zeros, address).unwrap(),
            None => vm.qtest().write(address, &zeros).unwrap(),
        }
    }
}

/// How many messages were there without their data.
fn run(vm: &mut Vm, ram: &Ram, order: &Function, rounds: u64) -> u64 {
    start_messenger(vm, order, rounds);
    let mut early = 0;
    let mut taken = 0;
    let mut seen = [false; SLOTS];
    let mut last = Instant::now();
    while taken < rounds {
        let messages = ram.read(vm, MESSAGES, 4 * SLOTS);
        early += look(&messages, &mut seen, taken, |slot| {
            ram.read(vm, RING + (slot * BLOCK_BYTES) as u64, BLOCK_BYTES)
        });
        let next = take(vm, ram, &mut seen, taken);
        if next > taken {
            order.write(vm.qtest(), 0, 0x120, 8, next).unwrap();
            last = Instant::now();
        } else {
            thread::yield_now();
        }
        taken = next;
        assert!(last.elapsed() < LIMIT, "no message came after {taken}");
    }
    early
}

/// Marks the messages that have come, and counts those whose block is not that of their round. A block is looked at after its message.
fn look(
    messages: &[u8],
    seen: &mut [bool; SLOTS],
    taken: u64,
    mut block_in: impl FnMut(usize) -> Vec<u8>,
) -> u64 {
    let mut early = 0;
    for (slot, message_bytes) in messages.chunks_exact(4).enumerate() {
        if seen[slot] || message_bytes == [0; 4] {
            continue;
        }
        early += u64::from(!is_of(&block_in(slot), round_of(slot, taken)));
        let vector = u32::try_from(slot).unwrap();
        assert_eq!(message_bytes, message(vector).to_le_bytes(), "a message");
        seen[slot] = true;
    }
    early
}

/// The check can fail: the order reversed, in which a message finds the block of the round before in its slot, or a part of its own.
#[test]
fn a_message_whose_data_is_not_all_there_is_counted_as_early() {
    let block = |round: u64| -> Vec<u8> {
        let words = (0..BLOCK_BYTES as u64 / 8).map(|k| round + (k << 48));
        words.flat_map(u64::to_le_bytes).collect()
    };
    let mut messages = vec![0; 4 * SLOTS];
    messages[4..8].copy_from_slice(&message(1).to_le_bytes());
    // All rounds of the ring's first turn were taken.
    let taken = u64::from(VECTORS);
    let own = block(taken + 1);
    let half = [&own[..BLOCK_BYTES / 2], &block(1)[BLOCK_BYTES / 2..]].concat();
    let nothing = vec![0; BLOCK_BYTES];

    for (data, expected) in [(own, 0), (block(1), 1), (half, 1), (nothing, 1)] {
        let mut seen = [false; SLOTS];
        let early = look(&messages, &mut seen, taken, |_| data.clone());

        assert_eq!(early, expected, "{data:x?}");
        assert_eq!(seen.iter().filter(|seen| **seen).count(), 1);
        assert!(seen[1]);
    }
}

fn start_messenger(vm: &mut Vm, order: &Function, rounds: u64) {
    let mut write = |offset, width, value| {
        order.write(vm.qtest(), 0, offset, width, value).unwrap();
    };
    write(0x100, 8, RING);
    write(0x108, 4, BLOCK_BYTES as u64);
    write(0x10c, 4, VECTORS.into());
    write(0x110, 4, BLOCK_BYTES as u64);
    write(0x114, 4, VECTORS.into());
    write(0x118, 8, rounds);
    write(0x130, 4, 1);
}

/// The round that a slot stands for while the oldest that was not taken is `first`.
fn round_of(slot: usize, first: u64) -> u64 {
    let slots = u64::from(VECTORS);
    first + (slot as u64 + slots - first % slots) % slots
}

fn is_of(block: &[u8], round: u64) -> bool {
    let mut words = block.chunks_exact(8).zip(0_u64..);
    words.all(|(word, k)| *word == (round + (k << 48)).to_le_bytes())
}

/// Takes the messages of the rounds that were seen without a gap from `first` on, and gives the first round that was not.
fn take(vm: &mut Vm, ram: &Ram, seen: &mut [bool; SLOTS], first: u64) -> u64 {
    let slot = |round: u64| usize::try_from(round % u64::from(VECTORS)).unwrap();
    let mut next = first;
    while std::mem::take(&mut seen[slot(next)]) {
        next += 1;
    }
    let mut at = first;
    while at < next {
        // To the ring's end at most.
        let part = (SLOTS - slot(at)).min(usize::try_from(next - at).unwrap());
        let place = MESSAGES + 4 * slot(at) as u64;
        ram.clear(vm, place, 4 * part);
        at += part as u64;
    }
    next
}
