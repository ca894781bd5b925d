//! DMA at the end of the address space.

use potemkin_transport::TransportKind::{Grpc, Quic};

use crate::{
    guest::{Guest, RAM, RAM_BYTES},
    start,
};

const PAGE: u64 = 4096;
const POISON: u8 = 0xa5;
const BLOCK_BYTES: u32 = 64;

/// Ends at 2^64: the device's bus master takes it, and the agent refuses it.
const TO_THE_END: u64 = u64::MAX - 63;
/// Passes 2^64: the bus master refuses it.
const PAST_THE_END: u64 = u64::MAX - 31;

/// Writes one block there, or tries to; the messenger's state then.
fn write_block(guest: &mut Guest, address: u64) -> u32 {
    guest.write8(0x100, address);
    for (register, value) in [(0x108, 0), (0x10c, 1), (0x110, BLOCK_BYTES), (0x114, 1)] {
        guest.write4(register, value);
    }
    guest.write8(0x118, 1);
    guest.write4(0x130, 1);
    guest.read4(0x130)
}

/// Reads a list as long as a block from there, or tries to; the state that the fetcher ends in.
fn read_list(guest: &mut Guest, address: u64) -> u32 {
    guest.write8(0x180, address);
    guest.write4(0x188, BLOCK_BYTES / 16);
    guest.write8(0x190, RAM);
    guest.write4(0x1a0, 1);
    let mut states = (0..100_000).map(|_| guest.read4(0x1a0));
    states
        .find(|state| state & 1 == 0)
        .expect("the fetcher never ends")
}

/// Until the device was told of a write that failed.
fn await_failed_write(guest: &mut Guest) {
    let told = (0..100_000).any(|_| guest.read4(0x20) == 8);
    assert!(told, "the device is never told");
}

#[test]
fn dma_that_reaches_the_end_of_addresses_moves_nothing_and_the_session_lives() {
    const FAILED: u32 = 2;
    for kind in [Quic, Grpc] {
        let (stack, mut guest) = start(kind, 64);
        // As near to both ends as a window can be: what wraps would come to 0.
        guest.map(0, PAGE, 0);
        guest.map(u64::MAX - 2 * PAGE + 1, PAGE, PAGE);
        let mut memory = vec![POISON; usize::try_from(RAM_BYTES).unwrap()];
        guest.poke(RAM, &memory);

        write_block(&mut guest, TO_THE_END);
        await_failed_write(&mut guest);
        let fetched = read_list(&mut guest, TO_THE_END);
        let counted = stack.status("vm").counters;
        let past = [
            write_block(&mut guest, PAST_THE_END),
            read_list(&mut guest, PAST_THE_END),
        ];

        assert_eq!((fetched, past), (FAILED, [FAILED; 2]), "{kind}");
        assert_eq!(counted.dma_refused, 2, "{kind}");
        let after = stack.status("vm").counters;
        assert_eq!(
            after.dma_refused, 2,
            "{kind}: it does not come to the agent"
        );
        let moved = (after.dma_bytes_read, after.dma_bytes_written);
        assert_eq!(moved, (0, 0), "{kind}");
        guest.peek(RAM, &mut memory);
        assert!(memory.iter().all(|byte| *byte == POISON), "{kind}");
        // The session lives, and so does DMA.
        assert_eq!(write_block(&mut guest, RAM), 0, "{kind}");
        guest.peek(RAM, &mut memory[..8]);
        assert_eq!(memory[..8], [0; 8], "{kind}");
    }
}
