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

/// The newest protocol version that this broker speaks.
pub const VERSION: u32 = 2;
/// The oldest one.
pub const VERSION_MIN: u32 = 1;

/// From this version on a session survives its path.
pub(crate) const RESUMABLE: u32 = 2;

/// The highest version that this broker shares with a peer that speaks `min` to `max`.
pub(crate) fn common_version(min: u32, max: u32) -> Option<u32> {
    let highest = max.min(VERSION);
    (min <= highest && highest >= VERSION_MIN).then_some(highest)
}

#[cfg(test)]
mod tests {
    use super::common_version;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(common_version(1, 1), Some(1));
        assert_eq!(common_version(1, 2), Some(2));
        assert_eq!(common_version(2, 9), Some(2));
        assert_eq!(common_version(3, 4), None);
        assert_eq!(common_version(0, 0), None);
        assert_eq!(common_version(2, 1), None);
    }
}
