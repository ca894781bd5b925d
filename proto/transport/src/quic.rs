//! QUIC: one bidirectional stream per session on a connection with explicit limits.

mod accept;
mod config;
mod dial;
mod error;
mod stream;

pub(crate) use accept::serve;
pub(crate) use config::bind_server;
pub(crate) use dial::QuicConnection;
pub(crate) use stream::{QuicReceiver, QuicSender};
