//! What every test needs: certificates, a broker, and a host that registered with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use potemkin_host::{Addresses, HostBuilder, HostError, HostSettings};
use potemkin_service::Shutdown;
use potemkin_service::certs::{DevOptions, write_dev};
use potemkin_transport::TlsMaterial;
use tokio::task::JoinHandle;

use crate::broker::{Broker, Registration};

/// A folder with certificates of every role, and room for a host's state.
pub(crate) struct Bed {
    folder: tempfile::TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_dev(folder.path(), &DevOptions::default()).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn tls(&self, role: &str) -> TlsMaterial {
        let file = |name: String| self.path().join(name);
        TlsMaterial::load(
            &file("ca.pem".into()),
            &file(format!("{role}.pem")),
            &file(format!("{role}.key")),
        )
        .unwrap()
    }

    /// A configuration for that broker; `devices` is TOML.
    pub(crate) fn config(&self, broker: &Broker, devices: &str) -> String {
        format!(
            r#"
            listen = "127.0.0.1:0"
            metrics_listen = "127.0.0.1:0"
            state_dir = "state"
            [tls]
            ca = "ca.pem"
            cert = "host.pem"
            key = "host.key"
            [[brokers]]
            addr = "{}"
            {devices}
            "#,
            broker.addr()
        )
    }

    pub(crate) fn write_config(&self, broker: &Broker, devices: &str) -> PathBuf {
        let file = self.path().join("host.toml");
        std::fs::write(&file, self.config(broker, devices)).unwrap();
        file
    }

    pub(crate) fn settings(&self, broker: &Broker, devices: &str) -> HostSettings {
        let file = self.write_config(broker, devices);
        let loaded = potemkin_service::config::load_with("HOST", Some(&file), []).unwrap();
        loaded.settings
    }

    /// A running host with these devices of the catalog.
    pub(crate) async fn host(&self, broker: &Broker, devices: &str) -> RunningHost {
        let settings = self.settings(broker, devices);
        self.run(HostBuilder::new(settings, self.path())).await
    }

    pub(crate) async fn run(&self, builder: HostBuilder) -> RunningHost {
        let host = builder.bind().await.unwrap();
        let addresses = host.addresses();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(host.run(shutdown.clone()));
        RunningHost {
            addresses,
            shutdown,
            task,
        }
    }

    /// A running host that keeps sessions without a path for so long.
    pub(crate) async fn host_with_grace(
        &self,
        broker: &Broker,
        devices: &str,
        grace: Duration,
    ) -> RunningHost {
        let mut settings = self.settings(broker, devices);
        settings.session.grace = grace.into();
        self.run(HostBuilder::new(settings, self.path())).await
    }

    /// A broker, a host with one `edu` and one `scratch`, and their registration.
    pub(crate) async fn start(&self) -> (Broker, RunningHost, Registration) {
        let mut broker = Broker::start(self).await;
        let host = self.host(&broker, TWO_DEVICES).await;
        let registration = broker.next_registration().await;
        (broker, host, registration)
    }
}

pub(crate) const TWO_DEVICES: &str = r#"
    [[devices]]
    id = "edu-0"
    kind = "edu"
    labels = { zone = "a" }
    access_log = "edu-0.jsonl"
    [[devices]]
    id = "scratch-0"
    kind = "scratch"
"#;

/// A host in a task of its own; it ends with the test's runtime if it is not stopped.
pub(crate) struct RunningHost {
    pub(crate) addresses: Addresses,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), HostError>>,
}

impl RunningHost {
    pub(crate) fn ask_to_stop(&self) {
        self.shutdown.cancel();
    }

    pub(crate) async fn stop(self) {
        self.ask_to_stop();
        self.task.await.unwrap().unwrap();
    }
}
