//! One session's stream of frames, on either transport.

use bytes::Bytes;

use crate::TransportError;
use crate::grpc::{GrpcReceiver, GrpcSender};
use crate::quic::{QuicReceiver, QuicSender};

/// A bidirectional stream of frames.
#[derive(Debug)]
pub struct FrameStream {
    /// Our direction.
    pub sender: FrameSender,
    /// The peer's direction.
    pub receiver: FrameReceiver,
}

/// The outgoing direction of a stream. Dropped without [`finish`](Self::finish), it aborts: what is queued is lost, and the
/// peer's receiver gets an error.
#[derive(Debug)]
pub struct FrameSender(Sender);

#[derive(Debug)]
enum Sender {
    Quic(QuicSender),
    Grpc(GrpcSender),
}

impl FrameSender {
    pub(crate) fn quic(sender: QuicSender) -> Self {
        Self(Sender::Quic(sender))
    }

    pub(crate) fn grpc(sender: GrpcSender) -> Self {
        Self(Sender::Grpc(sender))
    }

    /// Queues a frame, without waiting. It goes out when [`flushed`](Self::flushed) is awaited; frames that were queued in
    /// between go out together.
    ///
    /// # Errors
    /// The frame is too long, the queue is full, or the stream has ended. The stream is as it was.
    pub fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        match &mut self.0 {
            Sender::Quic(sender) => sender.send(frame),
            Sender::Grpc(sender) => sender.send(frame),
        }
    }

    /// Bytes in the queue, their length prefixes included.
    pub fn queued_bytes(&self) -> usize {
        match &self.0 {
            Sender::Quic(sender) => sender.queued_bytes(),
            Sender::Grpc(sender) => sender.queued_bytes(),
        }
    }

    /// Whether [`flushed`](Self::flushed) has anything to do: a loop that selects over several things polls it only then.
    pub fn needs_flush(&self) -> bool {
        match &self.0 {
            Sender::Quic(sender) => sender.queued_bytes() > 0,
            Sender::Grpc(sender) => sender.needs_flush(),
        }
    }

    /// Hands the queue to the transport, and waits while the peer's flow control allows no more. Cancel-safe.
    ///
    /// # Errors
    /// The peer, or the loss of the connection, ended the stream.
    pub async fn flushed(&mut self) -> Result<(), TransportError> {
        match &mut self.0 {
            Sender::Quic(sender) => sender.flushed().await,
            Sender::Grpc(sender) => sender.flushed().await,
        }
    }

    /// Ends the direction: the peer gets what is queued, and then a graceful end. Waits until that is on its way, but not
    /// for long. Further frames are refused.
    pub async fn finish(&mut self) {
        match &mut self.0 {
            Sender::Quic(sender) => sender.finish().await,
            Sender::Grpc(sender) => sender.finish().await,
        }
    }
}

/// The incoming direction of a stream.
#[derive(Debug)]
pub struct FrameReceiver(Receiver);

#[derive(Debug)]
enum Receiver {
    Quic(Box<QuicReceiver>),
    Grpc(GrpcReceiver),
}

impl FrameReceiver {
    pub(crate) fn quic(receiver: QuicReceiver) -> Self {
        Self(Receiver::Quic(Box::new(receiver)))
    }

    pub(crate) fn grpc(receiver: GrpcReceiver) -> Self {
        Self(Receiver::Grpc(receiver))
    }

    /// The next frame; `None` when the peer ended its direction gracefully. Cancel-safe.
    ///
    /// # Errors
    /// What came is no frame (the message names the field), the peer aborted the stream, or the connection is lost. After an
    /// error or the end, the receiver yields nothing more of use.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        match &mut self.0 {
            Receiver::Quic(receiver) => receiver.recv().await,
            Receiver::Grpc(receiver) => receiver.recv().await,
        }
    }
}
