//! The device host: a process that serves devices to the pool.
//!
//! `potemkin-host` serves the devices of the catalog that its configuration names. A program of your own can serve
//! devices of your own: [`HostBuilder`] from any async code, or [`cli_main_with`] for the whole command line (see
//! `examples/custom_device.rs`).
//!
//! ```text
//! brokers ──Register──▶ control ──fence──▶ ┌────────┐
//!    │                     │               │ served │──▶ device
//!    └──sessions──▶ session ──admit, turn─▶└────────┘
//!                          └─▶ state (highest epochs, on disk)
//! ```
//!
//! The host dials every broker of its configuration and keeps registered there; brokers dial the host for sessions. A session is
//! served only when a broker has fenced the device for it, and a fence is confirmed only when its epoch is on disk. Everything
//! runs on one thread, devices' callbacks included.

mod builder;
mod bus;
mod cli;
mod control;
mod guarded;
mod host;
mod live;
mod meters;
mod names;
mod opening;
mod pool;
mod running;
mod served;
mod session;
mod settings;
mod state;
mod tally;
mod turn;

pub use builder::{HostBuilder, HostError, Offer};
pub use cli::{cli_main, cli_main_with};
pub use host::{Addresses, Host};
pub use names::{BadLabels, BadName};
pub use settings::{BrokerSection, DeviceSection, HostSettings, SettingValue};
pub use state::StateError;
