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
//! What is sent when, and what is acknowledged when, follows the ordering rules in ARCHITECTURE.md. This version ends a session when its
//! path is lost; the schema's fields for resuming are filled in and checked, so that a later version can.

pub mod access;
mod batch;
pub mod credit;
pub mod frame;
pub mod front;
pub mod host;
pub mod ids;
mod violation;

pub use violation::Violation;

/// The protocol version spoken here.
pub const VERSION: u32 = 1;

#[cfg(test)]
mod tests;
