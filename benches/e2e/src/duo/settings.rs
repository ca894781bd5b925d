//! What the four are told.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use potemkin_testkit::certs::TlsFiles;
use potemkin_transport::TransportKind;

use crate::{End, Link, Stack};

const BROKER_PORT: u16 = 7640;
const RELAY_PORT: u16 = 7641;
const HOST_PORT: u16 = 7650;

/// What a [`Duo`](crate::Duo) is like. Times are short, so that a fault can last beyond all but the deadline.
#[derive(Debug, Clone)]
pub struct DuoOptions {
    /// What the agent's leg runs on, as long as that goes.
    pub agent_leg: TransportKind,
    /// What the hosts' legs run on.
    pub host_leg: TransportKind,
    /// The agent's deadline.
    pub deadline: Duration,
    /// How long brokers wait for a host's heartbeat.
    pub lease: Duration,
    /// A sign of life on each wire.
    pub keep_alive: Duration,
    /// A peer that was not heard for so long is gone.
    pub idle_timeout: Duration,
    /// MSI-X vectors of the `order`.
    pub vectors: u16,
    /// What all log.
    pub log_filter: String,
}

impl Default for DuoOptions {
    fn default() -> Self {
        Self {
            agent_leg: TransportKind::Quic,
            host_leg: TransportKind::Quic,
            deadline: Duration::from_secs(1),
            lease: Duration::from_secs(2),
            keep_alive: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(2),
            vectors: 64,
            log_filter: "info".to_owned(),
        }
    }
}

impl DuoOptions {
    pub(super) fn broker(&self, addresses: &Addresses, broker: usize, tls: &TlsFiles) -> String {
        let grants = broker == 0;
        format!(
            "log.filter = \"{}\"\nlisten = \"{}\"\nmetrics_listen = \"127.0.0.1:0\"\nstate_dir = \"broker{broker}\"\n{}\
             [pool]\ngrants = {grants}\n\
             [hosts]\ntransport = \"{}\"\nlease = \"{}ms\"\n\
             [connections]\nkeep_alive = \"{}ms\"\nidle_timeout = \"{}ms\"\n\
             [[policy.offer]]\nhost = \"spiffe://potemkin.dev/host/*\"\ndevices = [\"*\"]\n\
             [[policy.claim]]\nagent = \"spiffe://potemkin.dev/agent/*\"\ndevices = [\"*\"]\n",
            self.log_filter,
            addresses.listen_broker(broker),
            tls.toml(),
            self.host_leg,
            self.lease.as_millis(),
            self.keep_alive.as_millis(),
            self.idle_timeout.as_millis(),
        )
    }

    pub(super) fn host(&self, addresses: &Addresses, tls: &TlsFiles) -> String {
        let brokers = [0, 1].map(|broker| {
            let address = addresses.broker(Link::new(End::Host, broker));
            format!("[[brokers]]\naddr = \"{address}\"\n")
        });
        format!(
            "log.filter = \"{}\"\nlisten = \"{}\"\nmetrics_listen = \"127.0.0.1:0\"\nstate_dir = \"host\"\n{}{}\
             [[devices]]\nid = \"{}\"\nkind = \"order\"\noptions = {{ vectors = {} }}\n",
            self.log_filter,
            addresses.listen_host(),
            tls.toml(),
            brokers.concat(),
            Stack::ORDER,
            self.vectors,
        )
    }

    pub(super) fn front(&self, addresses: &Addresses, tls: &TlsFiles) -> String {
        let brokers = [0, 1].map(|broker| addresses.broker(Link::new(End::Agent, broker)));
        format!(
            "log.filter = \"{}\"\nadmin_socket = \"admin.sock\"\nmetrics_listen = \"127.0.0.1:0\"\n{}\
             [broker]\naddrs = [\"{}\", \"{}\"]\ntransport = \"{}\"\n\
             [session]\ndeadline = \"{}ms\"\nkeep_alive = \"{}ms\"\nidle_timeout = \"{}ms\"\n",
            self.log_filter,
            tls.toml(),
            brokers[0],
            brokers[1],
            self.agent_leg,
            self.deadline.as_millis(),
            self.keep_alive.as_millis(),
            self.idle_timeout.as_millis(),
        )
    }
}

/// Who listens where: known beforehand, so that who is started again is found where it was.
#[derive(Debug)]
pub(super) enum Addresses {
    /// In namespaces of their own.
    Ways,
    /// On an address of the loopback network that nobody else uses.
    Loopback(Ipv4Addr),
}

impl Addresses {
    pub(super) fn new(ways: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if ways {
            return Self::Ways;
        }
        // 127.0.0.0/8 has room for four of each process: ids have at most 22 bits (proc_sys_kernel(5)).
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) & 3;
        let own = std::process::id() << 2 | number;
        Self::Loopback(Ipv4Addr::from_bits(127 << 24 | own & 0x00ff_ffff))
    }

    /// A broker as it is found by a link.
    pub(super) fn broker(&self, link: Link) -> SocketAddr {
        match self {
            Self::Ways => SocketAddr::new(link.broker_address().into(), BROKER_PORT),
            Self::Loopback(_) => self.listen_broker(link.broker),
        }
    }

    /// In a namespace both have one number.
    fn listen_broker(&self, broker: usize) -> SocketAddr {
        match (self, broker) {
            (Self::Loopback(_), 1) => SocketAddr::new(self.listen_ip(), RELAY_PORT),
            _ => SocketAddr::new(self.listen_ip(), BROKER_PORT),
        }
    }

    fn listen_host(&self) -> SocketAddr {
        SocketAddr::new(self.listen_ip(), HOST_PORT)
    }

    fn listen_ip(&self) -> IpAddr {
        match self {
            Self::Ways => Ipv4Addr::UNSPECIFIED.into(),
            Self::Loopback(own) => (*own).into(),
        }
    }
}
