//! The session core: two sans-I/O state machines, the front half in the agent and the host half in the device host.
//!
//! No socket, no clock, no task and no randomness of its own: frames, accesses and the time go in, frames and events come out, so that
//! every loss pattern is a unit test. The drivers stay thin.
//!
//! ```text
//!   vCPU ── read/write ──▶ Front ── frames ──▶ (transport, broker, transport) ──▶ Host ── Work ──▶ device
//!        ◀── FrontEvent ──       ◀── frames ──                                         ◀─ complete ─
//! ```
//!
//! What is sent when, and what is acknowledged when, follows the ordering rules in ARCHITECTURE.md. A session survives its path: both
//! halves keep what they sent until it is acknowledged, and send again what the other lacks when the agent has dialled anew.

pub mod access;
mod batch;
pub mod credit;
pub mod frame;
pub mod front;
pub mod gate;
pub mod host;
pub mod ids;
pub mod planted;
mod sent;
mod violation;

pub use violation::Violation;

/// The newest protocol version spoken here.
pub const VERSION: u32 = 2;
/// The oldest protocol version spoken here: without resuming.
pub const VERSION_MIN: u32 = 1;
/// From this version on a session survives its path.
pub const RESUMABLE: u32 = 2;

#[cfg(test)]
mod tests;
