//! A connection's bytes, until somebody wants it to end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::tls::explain_read;

/// A stream that fails when a token is cancelled. HTTP/2 libraries drive a connection in tasks of their own: this is how
/// one is ended at once. `K` is dropped with the stream.
pub(crate) struct EndableIo<S, K> {
    stream: S,
    kept: K,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The end was noticed; the next read tells.
    ending: bool,
}

impl<S, K> EndableIo<S, K> {
    pub(super) fn new(stream: S, end: &CancellationToken, kept: K) -> Self {
        Self {
            stream,
            kept,
            ended: Box::pin(end.clone().cancelled_owned()),
            ending: false,
        }
    }

    pub(super) fn kept(&self) -> &K {
        &self.kept
    }

    /// Whether reading is to fail. Not the first time that it is asked after the end: HTTP/2 reads before it writes, so that
    /// turn writes what was handed over before the end.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> bool {
        if self.ending {
            return true;
        }
        if self.ended.as_mut().poll(context).is_ready() {
            self.ending = true;
            context.waker().wake_by_ref();
        }
        false
    }
}

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for EndableIo<S, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() && self.poll_ended(context) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was closed by this end",
            )));
        }
        // HTTP/2 keeps an error's words only.
        read.map_err(explain_read)
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for EndableIo<S, K> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};
    use tokio_util::sync::CancellationToken;

    use super::EndableIo;

    #[tokio::test]
    async fn end_fails_a_waiting_read() {
        let end = CancellationToken::new();
        let (ours, _theirs) = duplex(16);
        let mut io = EndableIo::new(ours, &end, ());
        let read = tokio::spawn(async move { io.read_u8().await });
        tokio::task::yield_now().await;

        end.cancel();

        let error = read.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn bytes_that_came_before_the_end_are_read() {
        let end = CancellationToken::new();
        let (ours, mut theirs) = duplex(16);
        let mut io = EndableIo::new(ours, &end, ());
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"x")
            .await
            .unwrap();

        end.cancel();

        assert_eq!(io.read_u8().await.unwrap(), b'x');
        io.read_u8().await.unwrap_err();
    }
}
