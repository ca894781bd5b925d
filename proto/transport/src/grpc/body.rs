//! The outgoing direction of a gRPC stream: a queue that the caller fills and that HTTP/2 empties as a message body.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::time::timeout;
use tonic::Status;

use crate::TransportError;
use crate::framing::{Outgoing, Prefix};

/// With no more than so many bytes in the queue it counts as flushed: HTTP/2 takes them when its windows allow.
const LOW_WATER_BYTES: usize = 64 << 10;
/// Longest wait for the peer to take what is queued when a stream ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// A sender, and the body that carries what it sends.
pub(super) fn frame_body(side: Side, max_queued_bytes: usize) -> (GrpcSender, FrameBody) {
    let queue = Arc::new(Queue(Mutex::new(State {
        frames: Outgoing::new(Prefix::Grpc, max_queued_bytes),
        phase: Phase::Open,
        body_gone: false,
        body: None,
        sender: None,
    })));
    let body = FrameBody {
        queue: Arc::clone(&queue),
        side,
    };
    (GrpcSender { queue }, body)
}

/// Whose body it is: a server's ends with a status in trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// What the sender and the body share. The sender wakes the body's task when there is something to take or to end; the body
/// wakes the sender's task when the queue has drained and when the body is gone. Neither wakes while it holds the lock.
#[derive(Debug)]
struct Queue(Mutex<State>);

#[derive(Debug)]
struct State {
    frames: Outgoing,
    phase: Phase,
    /// HTTP/2 has dropped the body: after its end, or because the stream or the connection is gone.
    body_gone: bool,
    body: Option<Waker>,
    sender: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The queue is to be sent, then the end.
    Finishing,
    /// The sender is gone without an end.
    Aborted,
    /// The body has told of the end.
    Ended,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a last phase and has the body notice.
    fn end(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase == Phase::Open || (state.phase, phase) == (Phase::Finishing, Phase::Aborted)
        {
            state.phase = phase;
        }
        let waker = state.body.take();
        drop(state);
        wake(waker);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The outgoing direction.
#[derive(Debug)]
pub(crate) struct GrpcSender {
    queue: Arc<Queue>,
}

impl GrpcSender {
    pub(crate) fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let mut state = self.queue.lock();
        if state.body_gone || state.phase != Phase::Open {
            return Err(TransportError::SendEnded);
        }
        state.frames.push(frame)?;
        let waker = state.body.take();
        drop(state);
        wake(waker);
        Ok(())
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.lock().frames.queued()
    }

    /// Below the low-water mark there is nothing to wait for: the connection's task takes the queue by itself.
    pub(crate) fn needs_flush(&self) -> bool {
        self.queued_bytes() > LOW_WATER_BYTES
    }

    pub(crate) async fn flushed(&mut self) -> Result<(), TransportError> {
        std::future::poll_fn(|context| self.poll_flushed(context)).await
    }

    fn poll_flushed(&mut self, context: &Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut state = self.queue.lock();
        if state.body_gone && state.phase != Phase::Ended {
            return Poll::Ready(Err(TransportError::SendEnded));
        }
        if state.frames.queued() <= LOW_WATER_BYTES {
            return Poll::Ready(Ok(()));
        }
        state.sender = Some(context.waker().clone());
        Poll::Pending
    }

    pub(crate) async fn finish(&mut self) {
        self.queue.end(Phase::Finishing);
        let gone = std::future::poll_fn(|context| {
            let mut state = self.queue.lock();
            if state.body_gone {
                return Poll::Ready(());
            }
            state.sender = Some(context.waker().clone());
            Poll::Pending
        });
        let _ = timeout(FINISH_TIMEOUT, gone).await;
    }
}

impl Drop for GrpcSender {
    /// Aborts, unless the end was already told. One that is still on its way behind queued frames is aborted too.
    fn drop(&mut self) {
        self.queue.end(Phase::Aborted);
    }
}

/// The queue as an HTTP body.
#[derive(Debug)]
pub(super) struct FrameBody {
    queue: Arc<Queue>,
    side: Side,
}

impl Body for FrameBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let mut state = self.queue.lock();
        match state.phase {
            Phase::Open | Phase::Finishing => {}
            Phase::Aborted => {
                state.phase = Phase::Ended;
                state.frames.clear();
                return Poll::Ready(self.side.abort());
            }
            Phase::Ended => return Poll::Ready(None),
        }
        if let Some(segment) = state.frames.pop() {
            let drained = state.frames.queued() <= LOW_WATER_BYTES;
            let waker = if drained { state.sender.take() } else { None };
            drop(state);
            wake(waker);
            return Poll::Ready(Some(Ok(Frame::data(segment))));
        }
        if state.phase == Phase::Finishing {
            state.phase = Phase::Ended;
            return Poll::Ready(self.side.end());
        }
        state.body = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for FrameBody {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.body_gone = true;
        state.frames.clear();
        let waker = state.sender.take();
        drop(state);
        wake(waker);
    }
}

impl Side {
    fn end(self) -> Option<Result<Frame<Bytes>, h2::Error>> {
        match self {
            Self::Client => None,
            Self::Server => Some(trailers(&Status::ok(""))),
        }
    }

    fn abort(self) -> Option<Result<Frame<Bytes>, h2::Error>> {
        Some(match self {
            Self::Client => Err(Reason::CANCEL.into()),
            Self::Server => trailers(&Status::aborted("the server ended the session")),
        })
    }
}

fn trailers(status: &Status) -> Result<Frame<Bytes>, h2::Error> {
    let mut trailers = HeaderMap::new();
    status
        .add_header(&mut trailers)
        .map(|()| Frame::trailers(trailers))
        .map_err(|_| Reason::INTERNAL_ERROR.into())
}
