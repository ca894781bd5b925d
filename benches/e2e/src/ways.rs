//! Four machines: an agent and a host, each joined to each of two brokers by a link of its own.

use std::net::Ipv4Addr;

use potemkin_testkit::{Result, netns::Netns};

/// The network of a [`Duo`](crate::Duo); needs root.
#[derive(Debug)]
pub struct Ways {
    /// Where the front agent (and the VMM) runs.
    pub agent: Netns,
    /// Where the brokers run.
    pub brokers: [Netns; 2],
    /// Where the device host runs.
    pub host: Netns,
}

/// Which end of a session's way a link belongs to; the other is a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The agent's.
    Agent,
    /// The host's.
    Host,
}

/// A link: the end that it belongs to, and the broker that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whose.
    pub end: End,
    /// Which of the brokers.
    pub broker: usize,
}

impl Link {
    /// Each of them.
    pub const ALL: [Self; 4] = [
        Self::new(End::Agent, 0),
        Self::new(End::Host, 0),
        Self::new(End::Agent, 1),
        Self::new(End::Host, 1),
    ];

    /// The link of an end to a broker.
    #[must_use]
    pub const fn new(end: End, broker: usize) -> Self {
        Self { end, broker }
    }

    fn at_end(self) -> &'static str {
        ["broker0", "broker1"][self.broker]
    }

    fn at_broker(self) -> &'static str {
        match self.end {
            End::Agent => "agents",
            End::Host => "hosts",
        }
    }

    fn subnet(self) -> (u8, u8) {
        let broker = if self.broker == 0 { 71 } else { 72 };
        let end = if self.end == End::Agent { 1 } else { 2 };
        (broker, end)
    }

    /// The broker's address on it.
    pub(crate) fn broker_address(self) -> Ipv4Addr {
        let (broker, end) = self.subnet();
        Ipv4Addr::new(10, broker, end, 1)
    }
}

impl Ways {
    /// Makes the namespaces and their links.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new() -> Result<Self> {
        let ways = Self {
            agent: Netns::new("agent")?,
            brokers: [Netns::new("broker0")?, Netns::new("broker1")?],
            host: Netns::new("host")?,
        };
        for link in Link::ALL {
            let (broker, end) = link.subnet();
            let cidr = |last: u8| format!("10.{broker}.{end}.{last}/24");
            let peer = &ways.brokers[link.broker];
            ways.end(link)
                .join(link.at_end(), &cidr(2), peer, link.at_broker(), &cidr(1))?;
        }
        Ok(ways)
    }

    /// Takes a link down, at its end.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn take_down(&self, link: Link) -> Result<()> {
        self.end(link).link_down(link.at_end())
    }

    /// Takes it up again.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn take_up(&self, link: Link) -> Result<()> {
        self.end(link).link_up(link.at_end())
    }

    /// Drops what goes to the broker by a link, in silence.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn cut_towards_broker(&self, link: Link) -> Result<()> {
        self.broker(link).drop_incoming(link.at_broker())
    }

    /// Drops what comes from the broker by a link, in silence.
    ///
    /// # Errors
    /// What `nft` said.
    pub fn cut_from_broker(&self, link: Link) -> Result<()> {
        self.end(link).drop_incoming(link.at_end())
    }

    /// Ends [`Ways::cut_towards_broker`].
    ///
    /// # Errors
    /// What `nft` said.
    pub fn mend_towards_broker(&self, link: Link) -> Result<()> {
        self.broker(link).accept_incoming(link.at_broker())
    }

    /// Ends [`Ways::cut_from_broker`].
    ///
    /// # Errors
    /// What `nft` said.
    pub fn mend_from_broker(&self, link: Link) -> Result<()> {
        self.end(link).accept_incoming(link.at_end())
    }

    /// Limits what goes by a link, in each direction.
    ///
    /// # Errors
    /// What `tc` said.
    pub fn slow_down(&self, link: Link, kilobits_per_second: u32) -> Result<()> {
        self.end(link)
            .limit_rate(link.at_end(), kilobits_per_second)?;
        self.broker(link)
            .limit_rate(link.at_broker(), kilobits_per_second)
    }

    /// Ends [`Ways::slow_down`].
    ///
    /// # Errors
    /// What `tc` said.
    pub fn speed_up(&self, link: Link) -> Result<()> {
        self.end(link).unlimit_rate(link.at_end())?;
        self.broker(link).unlimit_rate(link.at_broker())
    }

    fn end(&self, link: Link) -> &Netns {
        match link.end {
            End::Agent => &self.agent,
            End::Host => &self.host,
        }
    }

    fn broker(&self, link: Link) -> &Netns {
        &self.brokers[link.broker]
    }
}
