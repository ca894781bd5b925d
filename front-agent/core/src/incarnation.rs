//! Which run of the agent's process this is.

use std::sync::OnceLock;

use potemkin_session::ids::Incarnation;

static DRAWN: OnceLock<Option<Incarnation>> = OnceLock::new();

/// By which run of the agent brokers know this process, for a program that takes its place.
pub fn agent_incarnation() -> Option<[u8; 16]> {
    of_this_process().map(Incarnation::as_bytes)
}

/// This process goes on as the run of the agent that another program began in it. False when it has shown brokers another already.
pub fn adopt_agent_incarnation(bytes: Option<[u8; 16]>) -> bool {
    let adopted = bytes.map(Incarnation::from_bytes);
    *DRAWN.get_or_init(|| adopted) == adopted
}

/// 16 random bytes, the same for as long as the process lives: by them the broker tells a restarted agent from one that asks twice,
/// and gives the restarted one its devices back at once. `None`: the system gives no random bytes; then we say nothing, and wait
/// until the broker has noticed by itself that the older process is gone.
pub(crate) fn of_this_process() -> Option<Incarnation> {
    *DRAWN.get_or_init(|| {
        let mut bytes = [0; 16];
        match getrandom::fill(&mut bytes) {
            Ok(()) => Some(Incarnation::from_bytes(bytes)),
            Err(error) => {
                tracing::warn!(%error, "no random bytes: devices of an earlier process come back late");
                None
            }
        }
    })
}
