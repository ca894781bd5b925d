//! What reads are compared with: blocking sockets, a message of 32 bytes there and one of 32 back, one outstanding.
//!
//! | yardstick | way |
//! | --- | --- |
//! | relay | client, plain TCP, a process that copies bytes (a blocking thread for each direction), plain TCP, echo server |
//! | tcp | client, plain TCP, echo server |
//! | unix | client, UNIX stream socket, echo server |
//!
//! The relay is the floor for anything that passes a broker: two hops, no encryption, no routing. All sockets are on the loopback
//! device and send at once (`TCP_NODELAY`).

mod client;
mod echo;
mod relay;

pub(crate) use client::{Echo, Yardsticks, start_unix};
pub(crate) use echo::serve as serve_echo;
pub(crate) use relay::serve as serve_relay;

/// Bytes of a message, either way: about what a register access takes.
pub(crate) const MESSAGE_BYTES: usize = 32;
