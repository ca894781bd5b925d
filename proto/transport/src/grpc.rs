//! gRPC: one call of `/potemkin.v1.Data/Session` per session. Messages are framed here, not by a gRPC library, so that frames
//! are neither copied nor decoded on their way.

mod accept;
mod body;
mod dial;
mod error;
mod io;
mod receiver;
mod service;
mod tls;

pub(crate) use accept::{Accepted, serve};
pub(crate) use body::GrpcSender;
pub(crate) use dial::GrpcConnection;
pub(crate) use error::{is_lost, reason};
pub(crate) use receiver::GrpcReceiver;
pub(crate) use tls::connect_tls;

/// The service that sessions use.
const SERVICE: &str = "potemkin.v1.Data";
/// The path of its method.
const SESSION_PATH: &str = "/potemkin.v1.Data/Session";
/// `content-type` of requests and responses.
const CONTENT_TYPE: &str = "application/grpc";
/// Largest HTTP/2 DATA frame that we take, in bytes: a whole frame of ours and small ones before it, so that it need not be
/// put together again.
pub(crate) const MAX_HTTP2_FRAME_BYTES: u32 = 96 << 10;
/// Largest header list that we take, in bytes.
pub(crate) const MAX_HEADER_BYTES: u32 = 16 << 10;
