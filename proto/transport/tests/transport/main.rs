//! The transports end to end, over loopback.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod backpressure;
mod connections;
mod control;
mod frames;
mod handshakes;
mod material;
mod replacing;
mod strangers;

/// Runs a test of one argument, a `TransportKind`, on both.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use potemkin_transport::TransportKind;

            #[tokio::test]
            async fn quic() {
                super::$name(TransportKind::Quic).await;
            }

            #[tokio::test]
            async fn grpc() {
                super::$name(TransportKind::Grpc).await;
            }
        }
    )+};
}
use on_both;
