//! Who takes part: brokers, a host, agents. One number for all.

/// Brokers that there may be.
pub(crate) const BROKERS_MAX: usize = 2;
/// Hosts.
pub(crate) const HOSTS_MAX: usize = 1;
/// Agents.
pub(crate) const AGENTS_MAX: usize = 3;
/// All.
pub(crate) const ACTORS_MAX: usize = BROKERS_MAX + HOSTS_MAX + AGENTS_MAX;

/// Names an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ActorId(pub(crate) u8);

/// What an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Broker(usize),
    Host(usize),
    Agent(usize),
}

impl ActorId {
    #[allow(clippy::cast_possible_truncation)] // There are few.
    pub(crate) const fn new(role: Role) -> Self {
        Self(match role {
            Role::Broker(n) => n,
            Role::Host(n) => BROKERS_MAX + n,
            Role::Agent(n) => BROKERS_MAX + HOSTS_MAX + n,
        } as u8)
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }

    pub(crate) fn role(self) -> Role {
        match self.index() {
            n if n < BROKERS_MAX => Role::Broker(n),
            n if n < BROKERS_MAX + HOSTS_MAX => Role::Host(n - BROKERS_MAX),
            n => Role::Agent(n - BROKERS_MAX - HOSTS_MAX),
        }
    }
}
