//! Starts and watches the three processes.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use potemkin_service::admin::{AdminClient, AdminError, AttachRequest, Attached, DeviceStatus};
use potemkin_testkit::{
    Error, Output, Process, Result, Spawn,
    certs::{DevCerts, Role},
    netns::Netns,
};
use potemkin_transport::TransportKind;
use serde_json::Value;

/// Longest that a step of a test may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// What a stack is like.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// What the agent's leg runs on.
    pub agent_leg: TransportKind,
    /// What the host's leg runs on.
    pub host_leg: TransportKind,
    /// The agent's deadline.
    pub deadline: Duration,
    /// How long the broker waits for a host's heartbeat.
    pub lease: Duration,
    /// No keep-alives: an idle wire is silent.
    pub silent: bool,
    /// Lines for the broker's configuration, before its first section.
    pub broker_extra: String,
    /// Devices that the host offers besides [`Stack::DEVICE`], each an `edu`.
    pub more_devices: Vec<&'static str>,
    /// Lines for the host's configuration, behind its devices.
    pub host_extra: String,
    /// What all three log.
    pub log_filter: &'static str,
    /// A role, by its word on the command line, whose program is of another build.
    pub other_build: Option<(&'static str, PathBuf)>,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            agent_leg: TransportKind::Quic,
            host_leg: TransportKind::Quic,
            deadline: Duration::from_secs(1),
            lease: Duration::from_secs(10),
            silent: false,
            broker_extra: String::new(),
            more_devices: Vec::new(),
            host_extra: String::new(),
            log_filter: "info",
            other_build: None,
        }
    }
}

impl StackOptions {
    /// Both legs on one transport.
    #[must_use]
    pub fn on(kind: TransportKind) -> Self {
        Self {
            agent_leg: kind,
            host_leg: kind,
            ..Self::default()
        }
    }

    /// Has the host offer [`Stack::ORDER`] too, with so many MSI-X vectors.
    #[must_use]
    pub fn with_order(mut self, vectors: u16) -> Self {
        self.host_extra += &format!(
            "[[devices]]\nid = \"{}\"\nkind = \"order\"\noptions = {{ vectors = {vectors} }}\n",
            Stack::ORDER,
        );
        self
    }
}

/// Three hosts on one machine: agent and host each joined to the broker by a veth pair.
#[derive(Debug)]
pub struct Places {
    /// Where the front agent (and the VMM) runs; its interface is `uplink`.
    pub agent: Netns,
    /// Where the broker runs.
    pub broker: Netns,
    /// Where the device host runs; its interface is `uplink`.
    pub host: Netns,
}

impl Places {
    /// Interface of agent and host.
    pub const UPLINK: &'static str = "uplink";
    const BROKER_TO_AGENT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 1);
    const BROKER_TO_HOST: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 1);
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 2);

    /// Makes the namespaces and their links; needs root.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new() -> Result<Self> {
        let places = Self {
            agent: Netns::new("agent")?,
            broker: Netns::new("broker")?,
            host: Netns::new("host")?,
        };
        let Self {
            agent,
            broker,
            host,
        } = &places;
        agent.join(
            Self::UPLINK,
            "10.71.1.2/24",
            broker,
            "agents",
            "10.71.1.1/24",
        )?;
        host.join(
            Self::UPLINK,
            "10.71.2.2/24",
            broker,
            "hosts",
            "10.71.2.1/24",
        )?;
        Ok(places)
    }
}

/// Broker, device host and front agent, running.
#[derive(Debug)]
pub struct Stack {
    /// The broker; take it to kill it.
    pub broker: Process,
    /// The device host.
    pub host: Process,
    /// The front agent.
    pub front: Process,
    /// Where the broker listens, as the host sees it.
    pub broker_address: SocketAddr,
    /// Where the broker's metrics are.
    pub broker_metrics: SocketAddr,
    /// Where the host's metrics are.
    pub host_metrics: SocketAddr,
    /// Where the host's data plane listens.
    pub host_address: SocketAddr,
    /// The authority of all certificates.
    pub certs: DevCerts,
    /// Namespaces, when there are some.
    pub places: Option<Places>,
    role: PathBuf,
    dir: tempfile::TempDir,
}

impl Stack {
    /// The device that every stack offers.
    pub const DEVICE: &'static str = "edu-0";
    /// An `order`, in a stack [`StackOptions::with_order`].
    pub const ORDER: &'static str = "order-0";

    /// Starts the three on loopback. `role`: the path of `potemkin-role`.
    ///
    /// # Errors
    /// Which process did not come up, with the end of its log.
    pub fn start(role: &str, options: &StackOptions) -> Result<Self> {
        Self::start_in(role, options, None)
    }

    /// Starts the three, each in its namespace.
    ///
    /// # Errors
    /// Which process did not come up, with the end of its log.
    pub fn start_in(role: &str, options: &StackOptions, places: Option<Places>) -> Result<Self> {
        let certs = DevCerts::new()?;
        let dir = tempfile::Builder::new()
            .prefix("pk-")
            .tempdir()
            .map_err(Error::io("cannot make a folder"))?;
        let setup = Setup {
            role: role.into(),
            dir: dir.path(),
            certs: &certs,
            options,
            places: places.as_ref(),
        };
        let (broker, ready) = setup.broker()?;
        let broker_address = address(&ready, "listen")?;
        let broker_metrics = address(&ready, "metrics")?;
        let (host, ready) = setup.host(broker_address.port())?;
        let host_address = address(&ready, "listen")?;
        let host_metrics = address(&ready, "metrics")?;
        let (front, _) = setup.front(broker_address.port())?;
        let mut stack = Self {
            broker,
            host,
            front,
            broker_address,
            broker_metrics,
            host_metrics,
            host_address,
            places,
            role: role.into(),
            certs,
            dir,
        };
        stack.await_registration()?;
        Ok(stack)
    }

    /// Starts the host again, with what it stored, and waits until it has registered.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart_host(&mut self) -> Result<()> {
        let config = self.dir.path().join("host.toml");
        let names = ("host", "host");
        let (host, _) = start_role(
            Spawn::new(&self.role),
            self.dir.path(),
            names,
            &config,
            None,
        )?;
        self.host = host;
        self.await_registration()
    }

    /// Starts the broker again, where it was and with what it stored.
    ///
    /// # Errors
    /// When it does not come up, or the host does not find it again.
    pub fn restart_broker(&mut self) -> Result<()> {
        let path = self.dir.path().join("broker.toml");
        let failed = || Error::io(format!("cannot change {}", path.display()));
        let config = fs::read_to_string(&path).map_err(failed())?;
        let address = self.broker_address.to_string();
        let config = config.replacen("127.0.0.1:0", &address, 1);
        fs::write(&path, config).map_err(failed())?;
        let config = self.dir.path().join("broker.toml");
        let names = ("broker", "broker");
        let (broker, _) = start_role(
            Spawn::new(&self.role),
            self.dir.path(),
            names,
            &config,
            None,
        )?;
        self.broker = broker;
        Ok(())
    }

    /// Writes the configuration of one more front agent, with `devices` added, for [`Stack::start_front`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure_front(&self, name: &str, devices: &str) -> Result<PathBuf> {
        let dir = self.dir.path();
        let failed = |name: &str| Error::io(format!("cannot configure {name}"));
        let config = fs::read_to_string(dir.join("front.toml")).map_err(failed(name))?;
        let config = config.replacen("admin.sock", &format!("{name}-admin.sock"), 1);
        let path = dir.join(format!("{name}.toml"));
        fs::write(&path, format!("{config}\n{devices}")).map_err(failed(name))?;
        Ok(path)
    }

    /// Starts a front agent that was configured, and waits until it is ready; its admin socket is `{name}-admin.sock`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_front(&self, name: &str) -> Result<Process> {
        let config = self.dir.path().join(format!("{name}.toml"));
        let names = ("front", name);
        let (process, _) = start_role(
            Spawn::new(&self.role),
            self.dir.path(),
            names,
            &config,
            None,
        )?;
        Ok(process)
    }

    /// The folder with configurations, logs and sockets.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The front agent's admin socket.
    pub fn admin_socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// The device's own log of applied accesses.
    pub fn access_log(&self) -> PathBuf {
        self.dir.path().join("access.jsonl")
    }

    /// A client of the front agent's admin socket.
    ///
    /// # Panics
    /// When the agent is not there.
    pub fn admin(&self) -> AdminClient {
        AdminClient::connect(&self.admin_socket(), LIMIT).expect("the front agent runs")
    }

    /// Attaches the device by its id; returns what was attached.
    ///
    /// # Panics
    /// When the agent says no.
    pub fn attach(&self, name: &str) -> Attached {
        self.attach_device(name, Self::DEVICE)
    }

    /// The same with another device.
    ///
    /// # Panics
    /// When the agent says no.
    pub fn attach_device(&self, name: &str, device: &str) -> Attached {
        self.admin()
            .attach(AttachRequest {
                name: name.to_owned(),
                device: Some(device.to_owned()),
                selector: None,
                socket: self.dir.path().join(format!("{name}.sock")),
                after_loss: None,
            })
            .expect("the device is free")
    }

    /// Starts the front agent's program again, with the same configuration: after its end, or, with a `name` of its own for its
    /// admin socket and its log, beside the one that runs.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn another_front(&self, name: &str) -> Result<Process> {
        self.front_from(&self.role, name)
    }

    /// The same from another path of `potemkin-role`.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn front_from(&self, program: &Path, name: &str) -> Result<Process> {
        let config = self.dir.path().join("front.toml");
        let spawn =
            Spawn::new(program).env("POTEMKIN_FRONT__ADMIN_SOCKET", self.admin_socket_of(name));
        let netns = self.places.as_ref().map(|places| &places.agent);
        start_role(spawn, self.dir.path(), ("front", name), &config, netns).map(|(front, _)| front)
    }

    /// The admin socket of a front agent that [`Stack::another_front`] started.
    pub fn admin_socket_of(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.admin.sock"))
    }

    /// Has a front agent that [`Stack::another_front`] started attach a device.
    ///
    /// # Errors
    /// What the agent says.
    pub fn attach_by(
        &self,
        front: &str,
        name: &str,
        device: &str,
    ) -> std::result::Result<Attached, AdminError> {
        AdminClient::connect(&self.admin_socket_of(front), LIMIT)?.attach(AttachRequest {
            name: name.to_owned(),
            device: Some(device.to_owned()),
            selector: None,
            socket: self.dir.path().join(format!("{name}.sock")),
            after_loss: None,
        })
    }

    /// What the agent says of a device.
    ///
    /// # Panics
    /// When the agent does not know it.
    pub fn status(&self, name: &str) -> DeviceStatus {
        let status = self.admin().status().expect("the agent answers");
        let mut devices = status.devices.into_iter();
        devices
            .find(|device| device.name == name)
            .expect("the device is attached")
    }

    /// Runs the operator's tool against this stack's broker, as an operator.
    ///
    /// # Errors
    /// When it does not run at all.
    pub fn operator(&self, args: &[&str]) -> Result<Output> {
        let mut spawn = Spawn::new(&self.role)
            .arg("cli")
            .args(args)
            .env("POTEMKIN_BROKER", self.broker_address.to_string())
            .env("POTEMKIN_TLS_DIR", self.certs.folder())
            .env("POTEMKIN_AGENT", self.admin_socket());
        if let Some(places) = &self.places {
            spawn = spawn.in_netns(&places.host);
        }
        spawn.run(LIMIT)
    }

    /// Runs the operator's tool and reads the JSON that it prints.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn operator_json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        let output = self.operator(&args).and_then(Output::success);
        let output = output.expect("the operator's tool succeeds");
        serde_json::from_str(&output.stdout).expect("it prints JSON")
    }

    /// Sum of a broker counter over all its labels.
    ///
    /// # Panics
    /// When the metrics cannot be read.
    pub fn broker_counter(&self, name: &str) -> f64 {
        let text = match &self.places {
            None => scrape(self.broker_metrics),
            Some(places) => places
                .broker
                .enter(|| scrape(self.broker_metrics))
                .expect("the namespace is there"),
        };
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        samples
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    fn await_registration(&mut self) -> Result<()> {
        self.host.wait_log("registered", LIMIT).map(drop)
    }
}

/// What the three have in common.
struct Setup<'a> {
    role: PathBuf,
    dir: &'a Path,
    certs: &'a DevCerts,
    options: &'a StackOptions,
    places: Option<&'a Places>,
}

impl Setup<'_> {
    fn broker(&self) -> Result<(Process, Value)> {
        let any = self.ip(Ipv4Addr::UNSPECIFIED);
        let config = format!(
            "listen = \"{any}:0\"\nmetrics_listen = \"127.0.0.1:0\"\nstate_dir = \"broker\"\n{}\n{}\n[hosts]\ntransport = \"{}\"\nlease = \"{}ms\"\n{}\
             [[policy.offer]]\nhost = \"spiffe://potemkin.dev/host/*\"\ndevices = [\"*\"]\n\
             [[policy.claim]]\nagent = \"spiffe://potemkin.dev/agent/*\"\ndevices = [\"*\"]\n",
            self.options.broker_extra,
            self.certs.role(Role::Broker).toml(),
            self.options.host_leg,
            if self.options.silent {
                7_200_000
            } else {
                self.options.lease.as_millis()
            },
            if self.options.silent {
                "[connections]\nkeep_alive = \"1h\"\nidle_timeout = \"2h\"\n"
            } else {
                ""
            },
        );
        self.start("broker", &config, self.places.map(|p| &p.broker))
    }

    fn host(&self, broker_port: u16) -> Result<(Process, Value)> {
        let broker = SocketAddr::new(self.ip(Places::BROKER_TO_HOST), broker_port);
        let config = format!(
            "listen = \"{}:0\"\nmetrics_listen = \"127.0.0.1:0\"\nstate_dir = \"host\"\n{}\
             [[brokers]]\naddr = \"{broker}\"\n\
             [[devices]]\nid = \"{}\"\nkind = \"edu\"\naccess_log = \"access.jsonl\"\nlabels = {{ zone = \"a\" }}\n{}{}",
            self.ip(Places::HOST),
            self.certs.role(Role::Host).toml(),
            Stack::DEVICE,
            self.more_devices(),
            self.options.host_extra,
        );
        self.start("host", &config, self.places.map(|p| &p.host))
    }

    fn front(&self, broker_port: u16) -> Result<(Process, Value)> {
        let broker = SocketAddr::new(self.ip(Places::BROKER_TO_AGENT), broker_port);
        let config = format!(
            "admin_socket = \"admin.sock\"\nmetrics_listen = \"127.0.0.1:0\"\n{}\
             [broker]\naddr = \"{broker}\"\ntransport = \"{}\"\n[session]\ndeadline = \"{}ms\"\n{}",
            self.certs.role(Role::Agent).toml(),
            self.options.agent_leg,
            self.options.deadline.as_millis(),
            if self.options.silent {
                "keep_alive = \"0s\"\nidle_timeout = \"2h\"\n"
            } else {
                ""
            },
        );
        self.start("front", &config, self.places.map(|p| &p.agent))
    }

    fn more_devices(&self) -> String {
        let devices = self.options.more_devices.iter();
        devices
            .map(|id| format!("[[devices]]\nid = \"{id}\"\nkind = \"edu\"\n"))
            .collect()
    }

    /// On loopback without namespaces.
    fn ip(&self, address: Ipv4Addr) -> IpAddr {
        match self.places {
            None => Ipv4Addr::LOCALHOST.into(),
            Some(_) => address.into(),
        }
    }

    fn start(&self, role: &str, config: &str, netns: Option<&Netns>) -> Result<(Process, Value)> {
        let path = self.dir.join(format!("{role}.toml"));
        let config = format!("log.filter = \"{}\"\n{config}", self.options.log_filter);
        fs::write(&path, config).map_err(Error::io(format!("cannot write {}", path.display())))?;
        let program = self.program(role);
        start_role(Spawn::new(program), self.dir, (role, role), &path, netns)
    }

    fn program(&self, role: &str) -> &Path {
        match &self.options.other_build {
            Some((other, program)) if *other == role => program,
            _ => &self.role,
        }
    }
}

/// Starts a role's program under a name, and waits until it is ready. Gives what its ready-file says.
pub(crate) fn start_role(
    spawn: Spawn,
    dir: &Path,
    (role, name): (&str, &str),
    config: &Path,
    netns: Option<&Netns>,
) -> Result<(Process, Value)> {
    let ready = dir.join(format!("{name}.ready"));
    let mut spawn = spawn
        .name(name)
        .arg(role)
        .arg("--config")
        .arg(config)
        .arg("--ready-file")
        .arg(&ready)
        .log(dir.join(format!("{name}.log")));
    if let Some(netns) = netns {
        spawn = spawn.in_netns(netns);
    }
    // What a killed one has left.
    let _ = fs::remove_file(&ready);
    let mut process = spawn.start()?;
    let text = process.wait_ready(&ready, LIMIT)?;
    let value = serde_json::from_str(&text)
        .map_err(|e| Error::Usage(format!("{name}: ready-file: {e}: {text}")))?;
    Ok((process, value))
}

pub(crate) fn address(ready: &Value, key: &str) -> Result<SocketAddr> {
    ready[key]
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Usage(format!("ready-file: no {key} in {ready}")))
}

pub(crate) fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the metrics port is open");
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("the request goes out");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer comes");
    text
}
