//! The device writes memory and raises MSI-X: whoever sees the interrupt must find the data, every time.
//!
//! `POTEMKIN_MSIX_ROUNDS`: rounds a transport. `POTEMKIN_MSIX_ROUNDS_REPORT`: a file for the results, JSON.

use std::{collections::BTreeMap, env, fs, os::fd::OwnedFd, time::Instant};

use potemkin_transport::TransportKind::{Grpc, Quic};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use serde_json::{Value, json};

use crate::{
    guest::{Guest, LIMIT, RAM, events, take},
    start,
};

/// As many slots as vectors: an interrupt stands for one round.
const VECTORS: u16 = 256;
const BLOCK_BYTES: usize = 64;
const STRIDE: u32 = 128;
const DEFAULT_ROUNDS: u64 = 2_000;

#[test]
fn an_interrupt_never_comes_before_its_data() {
    let rounds = env::var("POTEMKIN_MSIX_ROUNDS").map_or(DEFAULT_ROUNDS, |text| {
        text.parse().expect("POTEMKIN_MSIX_ROUNDS is a number")
    });
    let mut results = BTreeMap::new();
    for kind in [Quic, Grpc] {
        let (_stack, mut guest) = start(kind, VECTORS);
        let begin = Instant::now();
        let tally = run(&mut guest, rounds);
        let seconds = begin.elapsed().as_secs_f64();
        let result = json!({
            "rounds": tally.rounds, "interrupts": tally.interrupts, "early": tally.early,
            "seconds": seconds, "debug": cfg!(debug_assertions),
        });
        println!("{kind}: {result}");
        results.insert(kind.to_string(), result);
        report(&results);

        assert_eq!(tally.early, 0, "{kind}: interrupts before their data");
        assert_eq!((tally.rounds, tally.interrupts), (rounds, rounds), "{kind}");
        assert_eq!(guest.read8(0x128), rounds);
        assert_eq!(guest.read4(0x130), 0, "the messenger has ended");
    }
}

#[derive(Default)]
struct Tally {
    rounds: u64,
    interrupts: u64,
    /// Interrupts whose block was not there yet.
    early: u64,
}

fn run(guest: &mut Guest, rounds: u64) -> Tally {
    let events = events(VECTORS.into());
    let watch = watch(&events);
    guest.enable_msix();
    guest.listen(0, &events);
    start_messenger(guest, rounds);

    let mut tally = Tally::default();
    // Rounds that were seen, from `tally.rounds` on, by vector.
    let mut seen = [false; VECTORS as usize];
    let mut ready = Vec::with_capacity(VECTORS.into());
    let limit = Timespec::try_from(LIMIT).unwrap();
    while tally.rounds < rounds {
        epoll::wait(&watch, spare_capacity(&mut ready), Some(&limit)).unwrap();
        assert!(
            !ready.is_empty(),
            "no interrupt came after {}",
            tally.rounds
        );
        for event in ready.drain(..) {
            let vector = event.data.u64();
            let round = round_of(vector, tally.rounds);
            if !is_there(guest, round) {
                tally.early += 1;
            }
            let index = usize::try_from(vector).unwrap();
            tally.interrupts += take(&events[index]);
            seen[index] = true;
        }
        let before = tally.rounds;
        while std::mem::take(&mut seen[usize::try_from(tally.rounds % u64::from(VECTORS)).unwrap()])
        {
            tally.rounds += 1;
        }
        if tally.rounds > before {
            guest.write8(0x120, tally.rounds);
        }
    }
    tally
}

/// The round that a vector stands for while the oldest that was not taken is `first`.
fn round_of(vector: u64, first: u64) -> u64 {
    let vectors = u64::from(VECTORS);
    first + (vector + vectors - first % vectors) % vectors
}

fn is_there(guest: &Guest, round: u64) -> bool {
    let slot = round % u64::from(VECTORS);
    let mut block = [0; BLOCK_BYTES];
    guest.peek(RAM + slot * u64::from(STRIDE), &mut block);
    let words = block.chunks_exact(8).zip(0_u64..);
    words
        .into_iter()
        .all(|(word, k)| *word == (round + (k << 48)).to_le_bytes())
}

fn start_messenger(guest: &mut Guest, rounds: u64) {
    guest.write8(0x100, RAM);
    guest.write4(0x108, STRIDE);
    guest.write4(0x10c, VECTORS.into());
    guest.write4(0x110, u32::try_from(BLOCK_BYTES).unwrap());
    guest.write4(0x114, VECTORS.into());
    guest.write8(0x118, rounds);
    guest.write4(0x130, 1);
}

/// Each eventfd by its vector.
fn watch(events: &[OwnedFd]) -> OwnedFd {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    for (event, vector) in events.iter().zip(0..) {
        let data = epoll::EventData::new_u64(vector);
        epoll::add(&watch, event, data, epoll::EventFlags::IN).unwrap();
    }
    watch
}

fn report(results: &BTreeMap<String, Value>) {
    if let Some(path) = env::var_os("POTEMKIN_MSIX_ROUNDS_REPORT") {
        let text = serde_json::to_string(results).unwrap();
        fs::write(path, text + "\n").unwrap();
    }
}
