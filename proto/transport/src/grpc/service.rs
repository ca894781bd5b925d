//! The service `potemkin.v1.Data` as a server sees it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Request, Response, header};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::body::{Side, frame_body};
use super::receiver::GrpcReceiver;
use super::{CONTENT_TYPE, SERVICE, SESSION_PATH};
use crate::listen::{Server, SessionHandler};
use crate::{FrameReceiver, FrameSender, FrameStream, PeerIdentity, TransportKind};

/// Starts a session for each call.
pub(super) struct DataService<H>(Arc<Server<H>>);

impl<H> DataService<H> {
    pub(super) fn new(server: Arc<Server<H>>) -> Self {
        Self(server)
    }
}

impl<H> Clone for DataService<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> NamedService for DataService<H> {
    const NAME: &'static str = SERVICE;
}

impl<H: SessionHandler> Service<Request<Body>> for DataService<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    /// Answers at once, so that the client has its response's head and frames may flow both ways.
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(self
            .start(request)
            .unwrap_or_else(|status| status.into_http())))
    }
}

impl<H: SessionHandler> DataService<H> {
    fn start(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        check(&request)?;
        let server = &self.0;
        let peer = request
            .extensions_mut()
            .remove::<PeerIdentity>()
            .ok_or_else(|| Status::unauthenticated("the caller's identity is not known"))?;
        let permit = server
            .session_permit(&peer.sessions, peer.remote, TransportKind::Grpc)
            .ok_or_else(|| Status::resource_exhausted("too many sessions on this connection"))?;
        let (sender, body) = frame_body(Side::Server, server.options.max_queued_bytes);
        let stream = FrameStream {
            sender: FrameSender::grpc(sender),
            receiver: FrameReceiver::grpc(GrpcReceiver::of_request(request.into_body())),
        };
        server.start_session(
            peer.identity,
            TransportKind::Grpc,
            peer.remote,
            stream,
            permit,
        );
        Ok(response(body))
    }
}

fn check(request: &Request<Body>) -> Result<(), Status> {
    if request.uri().path() != SESSION_PATH {
        return Err(Status::unimplemented(format!(
            "no such method: the service has {SESSION_PATH} only"
        )));
    }
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented(
            "grpc-encoding: frames are never compressed, use identity",
        ));
    }
    Ok(())
}

fn response(body: super::body::FrameBody) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}
