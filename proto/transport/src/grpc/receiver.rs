//! The incoming direction of a gRPC stream.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::CONTENT_TYPE;
use super::error::stream_error;
use crate::TransportError;
use crate::framing::{Deframer, Prefix};

/// A response that is not there yet.
type Opening = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

/// The incoming direction.
pub(crate) struct GrpcReceiver {
    source: Source,
    deframer: Deframer,
}

/// Where bytes come from.
enum Source {
    /// A client's, before the response.
    Opening(Opening),
    /// A client's.
    Response(Incoming),
    /// A server's.
    Request(tonic::body::Body),
    /// Nothing more comes.
    Ended,
}

/// What a source yields.
enum Event {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The end of the body, and whether the peer ended its direction in order.
    End {
        graceful: bool,
    },
}

impl GrpcReceiver {
    /// A client's. The response is awaited with the first frame.
    pub(super) fn of_call(response: Opening) -> Self {
        Self::new(Source::Opening(response))
    }

    /// A server's.
    pub(super) fn of_request(body: tonic::body::Body) -> Self {
        Self::new(Source::Request(body))
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            deframer: Deframer::new(Prefix::Grpc),
        }
    }

    pub(crate) async fn recv(&mut self) -> Result<Option<Bytes>, TransportError> {
        let received = self.receive().await;
        if !matches!(received, Ok(Some(_))) {
            self.source = Source::Ended;
        }
        received
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            if let Some(frame) = self.deframer.next()? {
                return Ok(Some(frame));
            }
            match self.source.next().await? {
                Event::Data(data) => self.deframer.push(data),
                Event::Trailers(trailers) => return self.end(&trailers),
                Event::End { graceful: true } => return self.deframer.end().map(|()| None),
                Event::End { graceful: false } => return Err(self.source.broken_off()),
            }
        }
    }

    /// The end of a response: its status is in the trailers.
    fn end(&self, trailers: &HeaderMap) -> Result<Option<Bytes>, TransportError> {
        match Status::from_header_map(trailers) {
            Some(status) if status.code() == Code::Ok => self.deframer.end().map(|()| None),
            Some(status) => Err(rpc(status.code(), status.message())),
            None => Err(rpc(Code::Unknown, "no grpc-status in the trailers")),
        }
    }
}

impl Source {
    /// Cancel-safe: nothing is taken out before it is returned.
    async fn next(&mut self) -> Result<Event, TransportError> {
        match self {
            Self::Opening(response) => {
                let response = response.await.map_err(|error| stream_error(error.into()))?;
                self.open(response)
            }
            Self::Response(body) => match next_frame(body).await? {
                Some(frame) => Ok(frame),
                // A response ends with trailers.
                None => Ok(Event::End { graceful: false }),
            },
            Self::Request(body) => match next_frame(body).await? {
                Some(frame) => Ok(frame),
                // hyper ends a body quietly when the peer cancelled it.
                None => Ok(Event::End {
                    graceful: body.is_end_stream(),
                }),
            },
            Self::Ended => Ok(Event::End { graceful: true }),
        }
    }

    /// Takes a response's head.
    fn open(&mut self, response: Response<Incoming>) -> Result<Event, TransportError> {
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let message = format!("HTTP status {}", head.status);
            return Err(rpc(Code::Unknown, &message));
        }
        if head.headers.contains_key(Status::GRPC_STATUS) {
            return Ok(Event::Trailers(head.headers));
        }
        let content_type = head.headers.get(http::header::CONTENT_TYPE);
        if !content_type.is_some_and(|value| value.as_bytes().starts_with(CONTENT_TYPE.as_bytes()))
        {
            return Err(rpc(
                Code::Unknown,
                "response is not gRPC: see its content-type",
            ));
        }
        *self = Self::Response(body);
        Ok(Event::Data(Bytes::new()))
    }

    fn broken_off(&self) -> TransportError {
        match self {
            Self::Request(_) => TransportError::Reset {
                code: u32::from(h2::Reason::CANCEL).into(),
            },
            _ => rpc(Code::Unknown, "the stream ended without a status"),
        }
    }
}

/// The body's next data or trailers.
async fn next_frame<B>(body: &mut B) -> Result<Option<Event>, TransportError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<crate::error::BoxError>,
{
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(stream_error(error.into())),
            None => return Ok(None),
        };
        let frame = match frame.into_data() {
            Ok(data) => return Ok(Some(Event::Data(data))),
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            return Ok(Some(Event::Trailers(trailers)));
        }
    }
}

fn rpc(code: Code, message: &str) -> TransportError {
    TransportError::Rpc {
        code,
        message: message.to_owned(),
    }
}

impl fmt::Debug for GrpcReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcReceiver")
            .field("deframer", &self.deframer)
            .finish_non_exhaustive()
    }
}
