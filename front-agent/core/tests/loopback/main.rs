//! The front device over real transports, against a host half that runs a device of 1 MiB of memory.

#![allow(clippy::unwrap_used)]

mod accesses;
mod attach;
mod embedded;
mod grants;
mod latch;
mod messages;
mod pool;
mod resume;
mod rig;
