//! A VMM that embeds the front device, without vfio-user in between.

#![allow(clippy::unwrap_used)]

mod edu;
mod kit;
mod platform;

use std::time::Duration;

const ROLE: &str = env!("CARGO_BIN_EXE_potemkin-role");
/// Bounds every wait of a test; nothing is timed by it.
const LIMIT: Duration = Duration::from_secs(30);
