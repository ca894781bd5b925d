//! A Potemkin with two brokers, of which the second only relays: what one loses goes on through the other.

mod settings;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use potemkin_service::admin::{AdminClient, AttachRequest, DeviceStatus};
use potemkin_testkit::{
    Error, Result,
    certs::{DevCerts, Role},
    netns::Netns,
};

use crate::{
    End, Link, Part, Stack, Ways,
    part::Recipe,
    stack::{LIMIT, scrape},
};

use settings::Addresses;
pub use settings::DuoOptions;

/// Between two looks at what nobody tells of.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a broker's metrics say can be so old: it counts once a second.
const COUNTED_EVERY: Duration = Duration::from_millis(1_100);

/// Two brokers, a device host that is registered with both, a front agent that knows both; running.
#[derive(Debug)]
pub struct Duo {
    /// The brokers; the second relays and grants nothing.
    pub brokers: [Part; 2],
    /// The device host.
    pub host: Part,
    /// The front agent.
    pub front: Part,
    /// The network between them; none on loopback.
    pub ways: Option<Ways>,
    /// The brokers, as the agent knows them.
    addresses: [SocketAddr; 2],
    /// Holds what the configurations name.
    _certs: DevCerts,
    dir: tempfile::TempDir,
}

/// The parts of a [`Duo`], by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// One of the brokers.
    Broker(usize),
    /// The device host.
    Host,
    /// The front agent.
    Front,
}

impl Duo {
    /// The name of the device at the agent.
    const NAME: &'static str = "vm";

    /// Starts all four. `program`: the path of `potemkin-role`.
    ///
    /// # Errors
    /// Which did not come up, with the end of its log.
    pub fn start(program: &str, options: &DuoOptions, ways: Option<Ways>) -> Result<Self> {
        let certs = DevCerts::new()?;
        let dir = tempfile::Builder::new()
            .prefix("pk-")
            .tempdir()
            .map_err(Error::io("cannot make a folder"))?;
        let addresses = Addresses::new(ways.is_some());
        let launch = Launch {
            program: program.as_ref(),
            dir: dir.path(),
            ways: ways.as_ref(),
        };
        let relay = certs.issue(Role::Broker, "relay")?;
        let granting = options.broker(&addresses, 0, &certs.role(Role::Broker));
        let relaying = options.broker(&addresses, 1, &relay);
        let host = options.host(&addresses, &certs.role(Role::Host));
        let front = options.front(&addresses, &certs.role(Role::Agent));
        let duo = Self {
            brokers: [
                launch.start(Who::Broker(0), &granting)?,
                launch.start(Who::Broker(1), &relaying)?,
            ],
            host: launch.start(Who::Host, &host)?,
            front: launch.start(Who::Front, &front)?,
            addresses: [0, 1].map(|broker| addresses.broker(Link::new(End::Agent, broker))),
            ways,
            _certs: certs,
            dir,
        };
        duo.settle(0)?;
        Ok(duo)
    }

    /// Starts a part again, as it was, once it has ended.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, who: Who) -> Result<()> {
        let netns = self.ways.as_ref().map(|ways| who.place(ways));
        let part = match who {
            Who::Broker(broker) => &mut self.brokers[broker],
            Who::Host => &mut self.host,
            Who::Front => &mut self.front,
        };
        part.restart(netns)
    }

    /// The same with a broker while a session lives: waits until it knows that.
    ///
    /// # Errors
    /// When it does not come up, or does not learn of it.
    pub fn restart_broker(&mut self, broker: usize) -> Result<()> {
        let before = self.brokers[broker].process.log_len()?;
        self.restart(Who::Broker(broker))?;
        let process = &mut self.brokers[broker].process;
        process
            .wait_log_from(before, "session adopted", LIMIT)
            .map(drop)
    }

    /// Waits until both brokers know the host and just so many sessions.
    ///
    /// # Errors
    /// With what they know when it takes too long.
    pub fn settle(&self, sessions: u32) -> Result<()> {
        let right = [1.0, f64::from(sessions)];
        self.await_known(|known| known == [right; 2])
    }

    /// Waits until both brokers know the host.
    ///
    /// # Errors
    /// With what they know when it takes too long.
    pub fn await_hosts(&self) -> Result<()> {
        self.await_known(|known| known.map(|[hosts, _]| hosts) == [1.0; 2])
    }

    /// Brokers tell nobody what they know: this looks again and again.
    fn await_known(&self, right: impl Fn([[f64; 2]; 2]) -> bool) -> Result<()> {
        let begin = Instant::now();
        let mut since = begin;
        loop {
            let known = [self.known_by(0)?, self.known_by(1)?];
            if !right(known) {
                since = Instant::now();
            } else if since.elapsed() > COUNTED_EVERY {
                return Ok(());
            }
            if begin.elapsed() > LIMIT {
                let problem = format!("brokers know {known:?} (hosts, sessions) after {LIMIT:?}");
                return Err(Error::Usage(problem));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Hosts and sessions that a broker knows.
    fn known_by(&self, broker: usize) -> Result<[f64; 2]> {
        let address = self.brokers[broker].metrics()?;
        let text = match &self.ways {
            None => scrape(address),
            Some(ways) => ways.brokers[broker].enter(|| scrape(address))?,
        };
        let value = |name: &str| {
            let samples = text.lines().filter_map(|line| line.strip_prefix(name));
            samples
                .filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Ok([
            value("potemkin_broker_hosts"),
            value("potemkin_broker_sessions"),
        ])
    }

    /// Attaches the `order`, as soon as it can be had; gives its vfio-user socket.
    ///
    /// # Panics
    /// When it cannot be had for long.
    pub fn attach(&self) -> PathBuf {
        let begin = Instant::now();
        loop {
            let attached = self.admin().attach(AttachRequest {
                name: Self::NAME.to_owned(),
                device: Some(Stack::ORDER.to_owned()),
                selector: None,
                socket: self.dir.path().join("vm.sock"),
                after_loss: None,
            });
            match attached {
                Ok(attached) => return attached.socket,
                Err(error) => assert!(begin.elapsed() < LIMIT, "not attached: {error}"),
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Gives it back.
    ///
    /// # Panics
    /// When the agent says no.
    pub fn detach(&self) {
        self.admin().detach(Self::NAME).expect("it was attached");
    }

    /// What the agent says of the device.
    ///
    /// # Panics
    /// When it is not attached.
    pub fn status(&self) -> DeviceStatus {
        let status = self.admin().status().expect("the agent answers");
        let mut devices = status.devices.into_iter();
        devices
            .find(|device| device.name == Self::NAME)
            .expect("it was attached")
    }

    /// The broker that the session's path goes through, or went last.
    ///
    /// # Panics
    /// When the device is not attached.
    pub fn in_use(&self) -> usize {
        let named = self.status().broker;
        let addresses = self.addresses.iter();
        addresses
            .map(ToString::to_string)
            .position(|address| address == named)
            .expect("it is one of ours")
    }

    /// The network between them.
    ///
    /// # Panics
    /// On loopback.
    pub fn ways(&self) -> &Ways {
        self.ways.as_ref().expect("they are in namespaces")
    }

    /// The folder with configurations, logs and sockets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the folder beyond the end, to look at.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }

    fn admin(&self) -> AdminClient {
        AdminClient::connect(&self.dir.path().join("admin.sock"), LIMIT)
            .expect("the front agent runs")
    }
}

impl Who {
    /// The role's word on the command line, and what its files are called.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Broker(0) => ("broker", "broker0"),
            Self::Broker(_) => ("broker", "broker1"),
            Self::Host => ("host", "host"),
            Self::Front => ("front", "front"),
        }
    }

    fn place(self, ways: &Ways) -> &Netns {
        match self {
            Self::Broker(broker) => &ways.brokers[broker],
            Self::Host => &ways.host,
            Self::Front => &ways.agent,
        }
    }
}

/// Starts the parts for the first time.
struct Launch<'a> {
    program: &'a Path,
    dir: &'a Path,
    ways: Option<&'a Ways>,
}

impl Launch<'_> {
    fn start(&self, who: Who, config: &str) -> Result<Part> {
        let (role, name) = who.names();
        let path = self.dir.join(format!("{name}.toml"));
        fs::write(&path, config).map_err(Error::io(format!("cannot write {}", path.display())))?;
        let recipe = Recipe {
            program: self.program.into(),
            dir: self.dir.into(),
            role,
            name,
        };
        Part::start(recipe, self.ways.map(|ways| who.place(ways)))
    }
}
