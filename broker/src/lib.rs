//! potemkin-broker: accepts device hosts and front agents, decides who may have which device, and forwards the sessions'
//! frames.
//!
//! - [`core`] decides, without I/O.
//! - [`store`] keeps what must survive a restart.
//! - [`policy`] says who may do what.
//! - [`relay`] forwards frames, decoding only their headers.
//! - `control` is the gRPC service for hosts, agents and operators.
//! - [`run`] puts them together; [`cli_main`] is the process.
//!
//! Everything runs on one thread (a `current_thread` runtime), commits to the store aside.

mod broker;
mod cli;
pub mod config;
mod control;
pub mod core;
mod host_link;
pub mod ids;
mod metrics;
pub mod policy;
pub mod relay;
mod server;
pub mod store;
mod tasks;
#[cfg(test)]
mod testing;
mod watch;

pub use cli::cli_main;
pub use config::Config;
pub use server::{Addresses, RunError, run};

/// The one protocol version that this broker speaks.
pub const VERSION: u32 = 1;
