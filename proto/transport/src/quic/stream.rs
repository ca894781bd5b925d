//! A session's QUIC stream.

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use super::error::{CODE_ABORTED, read_error, write_error};
use crate::TransportError;
use crate::framing::{Deframer, Outgoing, Prefix};

/// Chunks taken from quinn under one lock of its connection.
const CHUNKS: usize = 8;
/// Segments offered to quinn at a time.
const SEGMENTS: usize = 64;
/// Round trips that the peer's acknowledgement of a stream's end may take: enough for two losses in a row, each noticed after
/// twice the time of the one before.
const FINISH_ROUND_TRIPS: u32 = 8;
/// The least and the most that this comes to. A peer that is gone holds up nobody for longer.
const FINISH_MIN: Duration = Duration::from_millis(500);
const FINISH_MAX: Duration = Duration::from_secs(2);

/// The outgoing direction: a queue in front of quinn's stream, on the caller's task.
#[derive(Debug)]
pub(crate) struct QuicSender {
    connection: Connection,
    stream: SendStream,
    queue: Outgoing,
    /// No frames are taken any more.
    finishing: bool,
    /// quinn was told of the end, behind the last frame.
    ended: bool,
}

impl QuicSender {
    pub(super) fn new(connection: Connection, stream: SendStream, max_queued_bytes: usize) -> Self {
        Self {
            connection,
            stream,
            queue: Outgoing::new(Prefix::Quic, max_queued_bytes),
            finishing: false,
            ended: false,
        }
    }

    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        if self.finishing {
            return Err(TransportError::SendEnded);
        }
        self.queue.push(frame)
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.queued()
    }

    pub(crate) async fn flushed(&mut self) -> Result<(), TransportError> {
        while self.queue.queued() > 0 {
            let segments = self.queue.segments();
            let offered = segments.len().min(SEGMENTS);
            // A cancelled write wrote nothing, and there is no await between a write and its bookkeeping.
            let written = self
                .stream
                .write_chunks(&mut segments[..offered])
                .await
                .map_err(write_error)?;
            self.queue.taken(written.chunks, written.bytes);
        }
        Ok(())
    }

    pub(crate) async fn finish(&mut self) {
        self.finishing = true;
        let limit = (self.connection.rtt() * FINISH_ROUND_TRIPS).clamp(FINISH_MIN, FINISH_MAX);
        let graceful = async {
            self.flushed().await.ok()?;
            self.stream.finish().ok()?;
            self.ended = true;
            // Otherwise closing the connection next would discard what the peer has not got yet.
            self.stream.stopped().await.ok()
        };
        let _ = timeout(limit, graceful).await;
    }
}

impl Drop for QuicSender {
    /// Aborts a stream that was not ended: quinn would end it gracefully, and hide that frames are missing.
    fn drop(&mut self) {
        if !self.ended {
            // An error means that the peer has ended it.
            let _ = self.stream.reset(CODE_ABORTED);
        }
    }
}

/// The incoming direction.
#[derive(Debug)]
pub(crate) struct QuicReceiver {
    stream: RecvStream,
    deframer: Deframer,
    /// Chunks that were read but not yet deframed: those in `next..filled`.
    chunks: [Bytes; CHUNKS],
    next: usize,
    filled: usize,
}

impl QuicReceiver {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            deframer: Deframer::new(Prefix::Quic),
            chunks: Default::default(),
            next: 0,
            filled: 0,
        }
    }

    pub(crate) async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            if let Some(frame) = self.deframer.next()? {
                return Ok(Some(frame));
            }
            if self.next < self.filled {
                self.deframer
                    .push(std::mem::take(&mut self.chunks[self.next]));
                self.next += 1;
                continue;
            }
            match self.stream.read_chunks(&mut self.chunks).await {
                Ok(Some(filled)) => (self.next, self.filled) = (0, filled),
                Ok(None) => return self.deframer.end().map(|()| None),
                Err(error) => return Err(read_error(error)),
            }
        }
    }
}
