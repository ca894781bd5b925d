//! A broker in a thread of its own, and hand-made hosts, agents and operators around it, over loopback with real TLS.

#![allow(unreachable_pub)]

pub mod agent;
pub mod frames;
pub mod host;
#[path = "../../support/offer.rs"]
pub mod offer;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::Duration;

use potemkin_broker::{Addresses, Config};
use potemkin_proto::v1::control_client::ControlClient;
use potemkin_service::Shutdown;
use potemkin_service::certs::{self, DevOptions, IssueOptions, Role};
use potemkin_transport::{DialOptions, IdentityPattern, TlsMaterial, control_channel};
use tempfile::TempDir;
use tonic::transport::Channel;

/// Longer than anything takes, so that a test that hangs ends.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A broker, its certificates and its store.
pub struct Broker {
    pub addresses: Addresses,
    folder: Arc<TempDir>,
    config: Config,
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// A broker whose configuration is the tests' own with `extra` laid over it.
    pub fn start(extra: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        make_certificates(folder.path());
        Self::start_in(folder, merged(CONFIG, extra))
    }

    /// A second broker with the same certificates, which grants nothing.
    pub fn start_relay(&self) -> Self {
        let config = merged(CONFIG, "[pool]\ngrants = false\n");
        Self::start_in(Arc::clone(&self.folder), config)
    }

    fn start_in(folder: Arc<TempDir>, config: Config) -> Self {
        let (addresses, shutdown, thread) = launch(folder.path(), &config);
        Self {
            addresses,
            folder,
            config,
            shutdown,
            thread: Some(thread),
        }
    }

    /// Hosts are dialled on this transport.
    pub fn with_host_transport(transport: &str) -> Self {
        Self::start(&format!("[hosts]\ntransport = \"{transport}\"\n"))
    }

    /// Its configuration's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn listen(&self) -> SocketAddr {
        self.addresses.listen
    }

    /// Stops it as SIGTERM would, and waits until it is gone.
    pub fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Starts it again on what it left, on another port.
    pub fn restart(&mut self) {
        self.stop();
        let (addresses, shutdown, thread) = launch(self.folder.path(), &self.config);
        self.addresses = addresses;
        self.shutdown = shutdown;
        self.thread = Some(thread);
    }

    pub fn tls(&self, name: &str) -> TlsMaterial {
        let file = |extension: &str| self.folder.path().join(format!("{name}.{extension}"));
        TlsMaterial::load(
            &self.folder.path().join("ca.pem"),
            &file("pem"),
            &file("key"),
        )
        .unwrap()
    }

    /// A control client with the certificate of this name.
    pub async fn control(&self, name: &str) -> ControlClient<Channel> {
        ControlClient::new(self.channel(name).await)
    }

    pub async fn channel(&self, name: &str) -> Channel {
        control_channel(
            self.tls(name),
            broker_identity(),
            self.listen(),
            DialOptions::default(),
        )
        .await
        .unwrap()
    }
}

impl Drop for Broker {
    /// Without waiting: the ends of its connections are on the test's own thread, and may have something to do yet.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn broker_identity() -> IdentityPattern {
    "spiffe://potemkin.dev/broker/*".parse().unwrap()
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens in time")
}

const CONFIG: &str = r#"
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
state_dir = "state"
[tls]
ca = "ca.pem"
cert = "broker.pem"
key = "broker.key"
[[policy.offer]]
host = "spiffe://potemkin.dev/host/*"
devices = ["*"]
[[policy.claim]]
agent = "spiffe://potemkin.dev/agent/*"
devices = ["edu-*"]
classes = ["edu"]
# The tests' hosts send no heartbeats.
[hosts]
lease = "10m"
"#;

/// A configuration with another one's sections laid over its own, key by key.
fn merged(base: &str, over: &str) -> Config {
    let mut table: toml::Table = toml::from_str(base).unwrap();
    let over: toml::Table = toml::from_str(over).unwrap();
    for (section, value) in over {
        match (table.get_mut(&section), value) {
            (Some(toml::Value::Table(keys)), toml::Value::Table(over)) => keys.extend(over),
            (_, value) => {
                table.insert(section, value);
            }
        }
    }
    table.try_into().unwrap()
}

/// Besides the development certificates, a second host and a second agent.
fn make_certificates(folder: &Path) {
    certs::write_dev(folder, &DevOptions::default()).unwrap();
    for role in [Role::Host, Role::Agent] {
        let options = IssueOptions {
            role,
            name: "two".to_owned(),
            force: false,
        };
        certs::issue(folder, &options).unwrap();
    }
}

fn launch(folder: &Path, config: &Config) -> (Addresses, Shutdown, JoinHandle<()>) {
    // Once and before any broker: they share the process's recorder.
    static RECORDER: Once = Once::new();
    RECORDER.call_once(|| drop(potemkin_service::metrics::install().unwrap()));
    let config = config.clone();
    let (ready, readiness) = std::sync::mpsc::channel();
    let shutdown = Shutdown::new();
    let stopped = shutdown.clone();
    let base = folder.to_owned();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let running = potemkin_broker::run(config, &base, stopped.cancelled(), |addresses| {
            Ok(ready.send(addresses)?)
        });
        runtime.block_on(running).unwrap();
    });
    (readiness.recv().unwrap(), shutdown, thread)
}
