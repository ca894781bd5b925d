//! What a device starts is bounded at the host, whatever the agent does.

use bytes::Bytes;
use potemkin_proto::v1::{CloseCode, Frame};
use prost::Message as _;

use super::pair::{Pair, at};
use crate::{
    access::{Extent, Vector},
    credit::{DMA_WRITE_WINDOW, MESSAGE_WINDOW, NON_POSTED_WINDOW},
    front::{FrontEvent, Revocation},
};

#[test]
fn short_transfers_count_more_than_their_data() {
    let mut pair = Pair::live();
    assert_eq!(pair.host.dma_backlog(), 0);

    for n in 0..100 {
        pair.host.dma_write(0, n, Bytes::from_static(&[1]));
        pair.host.dma_read(0, n, 1, n);
    }

    assert!(pair.host.dma_backlog() >= 200 * 64);
}

#[test]
fn coalesced_vector_fires_once_whatever_the_generations() {
    let mut pair = Pair::live();
    for _ in 0..MESSAGE_WINDOW {
        pair.host.raise(0, Vector::Msi(0));
    }

    // An agent that changes its memory all the time, and takes no interrupt meanwhile.
    for _ in 0..10 {
        pair.front.revoke(pair.now, Revocation::Unmapped);
        pair.write(0, 1);
        pair.front.push();
        let frames = pair.sent();
        for frame in frames {
            pair.host.handle_frame(frame).unwrap();
        }
        pair.work();
        let newest = pair.host.generations().newest;
        pair.host.raise(newest, Vector::Msi(1));
    }
    let newest = pair.host.generations().newest;
    assert!(newest > 1);

    let mut fired = Vec::new();
    for _ in 0..4 {
        let frames: Vec<_> = std::iter::from_fn(|| pair.host.poll_transmit()).collect();
        for frame in frames {
            pair.front.handle_frame(frame).unwrap();
        }
        for event in pair.settle() {
            if let FrontEvent::Interrupt {
                generation,
                vector: Vector::Msi(1),
            } = event
            {
                fired.push(generation);
            }
        }
        pair.write(0, 1);
    }
    assert_eq!(fired, [newest]);
}

#[test]
fn answers_that_cannot_go_keep_their_credit() {
    let mut pair = Pair::live();
    // An agent that takes no DMA: answers wait behind it.
    let window = usize::try_from(DMA_WRITE_WINDOW).unwrap() * 64;
    pair.host.dma_write(0, 0, vec![1; 64 * window].into());
    while pair.host.poll_transmit().is_some() {}
    for _ in 0..10 {
        pair.front
            .read(pair.now, at(0), Extent::Consecutive(1_024))
            .unwrap();
    }

    let frames = pair.sent();
    assert!(pair.deliver(frames).is_empty(), "nothing can go");

    // What it is allowed does not grow with what was executed.
    pair.host.close(CloseCode::Normal, String::new());
    let last = Frame::decode(pair.host.poll_transmit().unwrap()).unwrap();
    assert_eq!(last.header.unwrap().non_posted_limit, NON_POSTED_WINDOW);
}
