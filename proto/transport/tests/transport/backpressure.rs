//! A receiver that does not read.

use bytes::Bytes;
use potemkin_transport::{
    DialOptions, FrameStream, MAX_FRAME_BYTES, TransportError, TransportKind,
};
use tokio::task::yield_now;

use crate::on_both;
use crate::support::{Pair, recv};

/// Limit of the queues in these tests.
const QUEUE_BYTES: usize = 1 << 20;
/// What may lie between the two queues: the receiver's window, and what HTTP/2 or QUIC holds before it is sent.
const TRANSPORT_BYTES: usize = 2 << 20;

on_both!(
    unread_frames_fill_the_queue_and_no_more,
    unread_server_frames_fill_the_queue_and_no_more,
    flushed_dropped_before_it_resolves_loses_nothing,
    thousands_of_unread_small_frames_do_no_harm,
);

async fn unread_frames_fill_the_queue_and_no_more(kind: TransportKind) {
    let mut pair = bounded_pair(kind).await;
    let (mut client, mut server) = pair.streams().await;

    let sent = fill(&mut client).await;
    assert!(
        sent * MAX_FRAME_BYTES <= QUEUE_BYTES + TRANSPORT_BYTES,
        "{sent} frames"
    );

    drain(&mut client, &mut server, sent).await;
}

async fn unread_server_frames_fill_the_queue_and_no_more(kind: TransportKind) {
    let mut pair = bounded_pair(kind).await;
    let (mut client, mut server) = pair.streams().await;

    let sent = fill(&mut server).await;
    assert!(
        sent * MAX_FRAME_BYTES <= QUEUE_BYTES + TRANSPORT_BYTES,
        "{sent} frames"
    );

    drain(&mut server, &mut client, sent).await;
}

async fn flushed_dropped_before_it_resolves_loses_nothing(kind: TransportKind) {
    let mut pair = bounded_pair(kind).await;
    let (mut client, mut server) = pair.streams().await;
    for number in 0..15 {
        client.sender.send(frame(number)).unwrap();
    }

    let flush = async {
        loop {
            tokio::select! {
                biased;
                flushed = client.sender.flushed() => break flushed.unwrap(),
                () = yield_now() => {}
            }
        }
    };
    let receive = async {
        for number in 0..15 {
            assert_eq!(recv(&mut server).await, frame(number));
        }
    };

    tokio::join!(flush, receive);
}

/// HTTP/2 libraries take many small unread DATA frames for an attack.
async fn thousands_of_unread_small_frames_do_no_harm(kind: TransportKind) {
    let mut pair = bounded_pair(kind).await;
    let (mut client, mut server) = pair.streams().await;

    for number in 0..5_000_u32 {
        crate::support::send(&mut client, &number.to_be_bytes()).await;
        // So that each frame travels alone.
        rounds(5).await;
    }

    for number in 0..5_000_u32 {
        assert_eq!(recv(&mut server).await, number.to_be_bytes()[..]);
    }
}

async fn bounded_pair(kind: TransportKind) -> Pair {
    let options = DialOptions {
        max_queued_bytes: QUEUE_BYTES,
        ..DialOptions::default()
    };
    Pair::with_options(kind, options, |options| {
        options.max_queued_bytes = QUEUE_BYTES;
    })
    .await
}

/// Sends until the queue refuses a frame, while everybody else runs. How many frames went in.
async fn fill(stream: &mut FrameStream) -> usize {
    for sent in 0.. {
        match stream.sender.send(frame(sent)) {
            Ok(()) => {}
            Err(TransportError::Overflow { queued, limit, .. }) => {
                assert!(queued <= limit);
                assert_eq!(queued, stream.sender.queued_bytes());
                return sent;
            }
            Err(error) => panic!("{error}"),
        }
        tokio::select! {
            biased;
            flushed = stream.sender.flushed() => flushed.unwrap(),
            () = rounds(100) => {}
        }
    }
    unreachable!()
}

/// Reads what `fill` sent.
async fn drain(from: &mut FrameStream, to: &mut FrameStream, sent: usize) {
    let receive = async {
        for number in 0..sent {
            assert_eq!(recv(to).await, frame(number));
        }
    };
    let (flushed, ()) = tokio::join!(from.sender.flushed(), receive);
    flushed.unwrap();
}

async fn rounds(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

fn frame(number: usize) -> Bytes {
    vec![u8::try_from(number % 251).unwrap(); MAX_FRAME_BYTES].into()
}
