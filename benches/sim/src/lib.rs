//! Deterministic simulation of sessions.
//!
//! Agents with guests, brokers and a device host, each driving the real sans-I/O cores, on a network that is moved by hand: no
//! socket, no thread, no clock. One seed decides everything: sizes, times, what the guests do, which faults come when. The same seed gives the
//! same run, event for event ([`Outcome::trace_hash`]).
//!
//! An oracle sees both ends: what guests issue and are shown, what the device does and in which order. It checks the clauses
//! of [`Clause`] all the time, and at the end.
//!
//! ```text
//!   guest ─ Front ══ stream ══ relay ══ stream ══ Host ─ device
//!     │        agent    └─ faults ─┘ broker           │
//!     └──────────────────▶ oracle ◀───────────────────┘
//! ```

mod actor;
mod agent;
mod batch;
mod broker;
mod clock;
mod ctx;
mod device;
mod fault;
mod host;
mod message;
mod net;
mod oracle;
mod plan;
pub mod planted;
mod queue;
mod rng;
mod run;
mod trace;
mod world;

pub use batch::{Summary, Until, run_all};
pub use fault::{Fault, Faults};
pub use oracle::{Clause, Finding};
pub use run::{Options, Outcome, run};
