//! The broker as its peers meet it: over loopback, with real TLS, on both transports.

#![allow(clippy::unwrap_used)]

mod control;
mod hosts;
mod kit;
mod moving;
mod process;
mod relay;
mod restart;
mod services;
mod violations;
