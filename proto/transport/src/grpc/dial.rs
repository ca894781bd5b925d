//! Connections that we open.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, Version, header};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::body::{FrameBody, Side, frame_body};
use super::error::stream_error;
use super::io::EndableIo;
use super::receiver::GrpcReceiver;
use super::{CONTENT_TYPE, MAX_HEADER_BYTES, MAX_HTTP2_FRAME_BYTES, SESSION_PATH, connect_tls};
use crate::options::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::{
    DialOptions, FrameReceiver, FrameSender, FrameStream, Identity, IdentityPattern, TlsMaterial,
    TransportError,
};

/// An HTTP/2 connection to a server, driven by a task of its own.
#[derive(Debug, Clone)]
pub(crate) struct GrpcConnection {
    requests: SendRequest<FrameBody>,
    authority: SocketAddr,
    max_queued_bytes: usize,
    /// Ends the connection.
    close: CancellationToken,
    /// Cancelled when the socket is closed.
    closed: CancellationToken,
}

impl GrpcConnection {
    pub(crate) async fn connect(
        tls: &TlsMaterial,
        expect: &IdentityPattern,
        options: &DialOptions,
        peer: SocketAddr,
    ) -> Result<(Self, Identity), TransportError> {
        let (stream, identity) = connect_tls(tls, expect, peer).await?;
        let close = CancellationToken::new();
        let closed = CancellationToken::new();
        let io = EndableIo::new(stream, &close, closed.clone().drop_guard());
        let (requests, driver) = builder(options)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| stream_error(error.into()))?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, %peer, "gRPC connection ended");
            }
        });
        let connection = Self {
            requests,
            authority: peer,
            max_queued_bytes: options.max_queued_bytes,
            close,
            closed,
        };
        Ok((connection, identity))
    }

    pub(crate) async fn open(&self) -> Result<FrameStream, TransportError> {
        if self.close.is_cancelled() {
            return Err(TransportError::Closed);
        }
        let mut requests = self.requests.clone();
        requests
            .ready()
            .await
            .map_err(|error| stream_error(error.into()))?;
        let (sender, body) = frame_body(Side::Client, self.max_queued_bytes);
        let response = requests.send_request(self.request(body)?);
        Ok(FrameStream {
            sender: FrameSender::grpc(sender),
            receiver: FrameReceiver::grpc(GrpcReceiver::of_call(Box::pin(response))),
        })
    }

    pub(crate) fn close(&self) {
        self.close.cancel();
    }

    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.close.is_cancelled() || self.closed.is_cancelled()
    }

    fn request(&self, body: FrameBody) -> Result<Request<FrameBody>, TransportError> {
        Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{SESSION_PATH}", self.authority))
            .version(Version::HTTP_2)
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(body)
            .map_err(|error| stream_error(error.into()))
    }
}

fn builder(options: &DialOptions) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_HTTP2_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(options.keep_alive)
        .keep_alive_timeout(reply_time(options.keep_alive, options.idle_timeout))
        .keep_alive_while_idle(true);
    builder
}

/// How long a peer may take to answer a sign of life, so that it is given up `idle_timeout` after it was last heard.
pub(super) fn reply_time(keep_alive: Option<Duration>, idle_timeout: Duration) -> Duration {
    idle_timeout.saturating_sub(keep_alive.unwrap_or_default())
}
