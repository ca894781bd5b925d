//! Peers that break the rules of DMA and interrupts: each is refused by name, and contains at most its own session.

use bytes::Bytes;
use potemkin_proto::v1::{Batch, Frame, FrameHeader};

use super::pair::{Pair, accepted, checked, path};
use crate::{
    access::{DmaError, MAX_DMA_BYTES},
    credit::MESSAGE_WINDOW,
    front::{FrontEvent, FrontState},
};

const DMA_WRITE: u8 = 1 << 5;
const DMA_READ: u8 = 2 << 5;
const MSI: u8 = 4 << 5;
const INTX: u8 = 5 << 5;
const EVENT: u8 = 7 << 5;

fn frame(counts: FrameHeader, ops: &[u8], args: &[u64], data: &[u8]) -> Bytes {
    frame_at(1, counts, ops, args, data)
}

/// With this sequence number.
fn frame_at(
    first_sequence: u64,
    counts: FrameHeader,
    ops: &[u8],
    args: &[u64],
    data: &[u8],
) -> Bytes {
    let (session_hi, session_lo) = path().session.halves();
    let header = FrameHeader {
        session_hi,
        session_lo,
        epoch: 7,
        attach_number: 1,
        first_sequence,
        ..counts
    };
    let batch = Batch {
        ops: Bytes::copy_from_slice(ops),
        args: args.to_vec(),
        data: Bytes::copy_from_slice(data),
    };
    checked(&Frame {
        header: Some(header),
        batch: Some(batch),
        ..Frame::default()
    })
}

fn interrupts(count: u32) -> FrameHeader {
    FrameHeader {
        interrupts: count,
        ..FrameHeader::default()
    }
}

fn dma_writes(count: u32) -> FrameHeader {
    FrameHeader {
        dma_writes: count,
        ..FrameHeader::default()
    }
}

fn dma_reads(count: u32) -> FrameHeader {
    FrameHeader {
        dma_reads: count,
        ..FrameHeader::default()
    }
}

/// What an agent says to a frame of the host's.
fn agent_says(frame: Bytes) -> Option<String> {
    let mut pair = Pair::live();
    let violation = pair.front.handle_frame(frame).err()?;
    assert_eq!(pair.front.state(), FrontState::Contained);
    Some(violation.to_string())
}

#[test]
fn what_a_host_may_not_send_is_refused_by_name() {
    let long = vec![0; MAX_DMA_BYTES + 1];
    let too_long = long.len() as u64;
    let half_a_kilobyte = [0; 512];
    let storm = MESSAGE_WINDOW as usize + 1;
    let greedy = 2_000;
    let cases = [
        (
            "length of DMA",
            frame(dma_writes(1), &[DMA_WRITE], &[0, 0, 0], &[]),
        ),
        (
            "length of DMA",
            frame(dma_writes(1), &[DMA_WRITE], &[0, 0, too_long], &long),
        ),
        (
            "batch.data: item 0: truncated",
            frame(dma_writes(1), &[DMA_WRITE], &[0, 0, 9], &[1]),
        ),
        (
            "header.dma_writes",
            frame(dma_writes(2), &[DMA_WRITE], &[0, 0, 1], &[1]),
        ),
        (
            "length of DMA",
            frame(dma_reads(1), &[DMA_READ], &[0, 1, 0, too_long], &[]),
        ),
        (
            "dma_read: ",
            frame(
                dma_reads(9),
                &[DMA_READ; 9],
                &[0, 1, 0, MAX_DMA_BYTES as u64].repeat(9),
                &[],
            ),
        ),
        (
            "a vector of 2,048 or more",
            frame(interrupts(1), &[MSI], &[0, 2_048], &[]),
        ),
        (
            "unknown kind of interrupt",
            frame(interrupts(1), &[MSI | 2], &[0, 1], &[]),
        ),
        (
            "a level of INTx",
            frame(interrupts(1), &[INTX | 2], &[], &[]),
        ),
        (
            "interrupts: ",
            frame(
                interrupts(u32::try_from(storm).unwrap()),
                &vec![INTX; storm],
                &[],
                &[],
            ),
        ),
        (
            "header.interrupts",
            frame(interrupts(1), &[INTX, INTX], &[], &[]),
        ),
        (
            "DMA generation 1: the newest is 0",
            frame(dma_writes(1), &[DMA_WRITE], &[1, 0, 1], &[1]),
        ),
        (
            "DMA generation 18446744073709551615",
            frame(interrupts(1), &[MSI], &[u64::MAX, 0], &[]),
        ),
    ];
    for (expected, frame) in cases {
        let found = agent_says(frame);
        assert!(
            found.as_ref().is_some_and(|text| text.contains(expected)),
            "{expected}: {found:?}"
        );
    }
    // 9 credits each, until the agent's window is used up.
    let mut pair = Pair::live();
    let refused = (1..=greedy).find_map(|sequence| {
        let (counts, args) = (dma_writes(1), [0, 0, 512]);
        let bytes = frame_at(sequence, counts, &[DMA_WRITE], &args, &half_a_kilobyte);
        pair.front.handle_frame(bytes).err()
    });
    assert!(refused.unwrap().to_string().contains("dma_write: "));
}

#[test]
fn an_agents_false_answers_are_refused_by_name() {
    let events = |count| FrameHeader {
        events: count,
        ..FrameHeader::default()
    };
    let event = events(1);
    let cases = [
        (
            "DMA read 5: not the oldest",
            frame(event, &[EVENT | 3], &[5, 0, 1], &[1]),
        ),
        (
            "unknown status of DMA",
            frame(event, &[EVENT | 3], &[0, 99, 0], &[]),
        ),
        (
            "a failed DMA read has no data",
            frame(event, &[EVENT | 3], &[0, 3, 1], &[1]),
        ),
        (
            "a failure with status ok",
            frame(event, &[EVENT | 5], &[1, 0], &[]),
        ),
        ("unknown event", frame(event, &[EVENT | 2], &[], &[])),
        (
            "DMA generation 0: the newest is 0",
            frame(event, &[EVENT], &[0], &[]),
        ),
        (
            "DMA generation 2: the newest is 3",
            frame(events(2), &[EVENT | 1, EVENT | 4], &[3, 2], &[]),
        ),
    ];
    for (expected, frame) in cases {
        let (mut host, _accept) = accepted();
        let found = host.handle_frame(frame).unwrap_err().to_string();
        assert!(host.is_closed());
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn an_answer_of_the_wrong_length_is_refused() {
    let mut pair = Pair::live();
    pair.host.dma_read(0, 0, 8, 1);
    let request = pair.host.poll_transmit().unwrap();
    pair.front.handle_frame(request).unwrap();
    let Some(FrontEvent::DmaRead(read)) = pair.front.poll_event() else {
        panic!("the request came");
    };
    let now = pair.now;
    pair.front
        .answer_dma_read(now, &read, Ok(Bytes::from_static(b"short")));

    let frames = pair.sent();
    let refused = frames
        .into_iter()
        .find_map(|frame| pair.host.handle_frame(frame).err());

    let text = refused.unwrap().to_string();
    assert!(text.contains("length of data"), "{text}");
}

#[test]
fn a_contained_agent_takes_no_dma() {
    let mut pair = Pair::live();
    pair.host.dma_write(0, 0, Bytes::from_static(b"late"));
    pair.front.abandon("test");
    pair.front
        .handle_frame(pair.host.poll_transmit().unwrap())
        .unwrap();

    let events = std::iter::from_fn(|| pair.front.poll_event());
    assert!(
        !events
            .into_iter()
            .any(|event| matches!(event, FrontEvent::DmaWrite(_)))
    );
    // What it would have said of it goes nowhere.
    let write = crate::front::DmaWrite {
        sequence: 1,
        generation: 0,
        address: 0,
        data: Bytes::from_static(b"late"),
    };
    pair.front.dma_written(&write, Err(DmaError::Range));
}
