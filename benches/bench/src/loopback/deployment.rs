//! Broker, device host and front agents, as in production: a process each, mutual TLS, ports chosen by the system.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use potemkin_front_core::{BrokerAddress, RemoteOptions};
use potemkin_proto::v1::control_client::ControlClient;
use potemkin_proto::v1::{DeviceState, WatchRequest, watch_event::Kind};
use potemkin_service::certs::Role;
use potemkin_testkit::Process;
use potemkin_testkit::certs::DevCerts;
use potemkin_transport::{DialOptions, IdentityPattern, TlsMaterial, control_channel};
use serde::Deserialize;

use crate::args::{RoleName, Transport};
use crate::error::BenchError;
use crate::workspace::Workspace;

/// Longest that the host may take to register with the broker.
const OFFER_LIMIT: Duration = Duration::from_secs(30);

/// The ready-file of a broker and of a host, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Listen {
    listen: SocketAddr,
}

/// The ready-file of a front agent: the devices' sockets are known by then.
#[derive(Debug, Deserialize)]
struct FrontReady {}

/// A broker with one host, which offers some `edu` devices.
#[derive(Debug)]
pub(crate) struct Pool {
    broker: SocketAddr,
    /// Killed with this value, the host first.
    _processes: [Process; 2],
}

/// A running front agent.
#[derive(Debug)]
pub(crate) struct Front {
    /// Its device's vfio-user socket.
    pub(crate) socket: PathBuf,
    _process: Process,
}

impl Pool {
    /// Starts both and returns once the broker has all of `devices`.
    pub(crate) fn start(
        workspace: &Workspace,
        certs: &DevCerts,
        host_transport: Transport,
        devices: &[String],
    ) -> Result<Self, BenchError> {
        let instance = host_transport.as_str();
        let config = broker_config(workspace, certs, host_transport);
        let broker = workspace.start_configured::<Listen>(RoleName::Broker, instance, &config)?;
        let address = broker.addresses.listen;
        let config = host_config(workspace, certs, instance, address, devices);
        let host = workspace.start_configured::<Listen>(RoleName::Host, instance, &config)?;
        await_offers(certs, address, devices)?;
        Ok(Self {
            broker: address,
            _processes: [host.process, broker.process],
        })
    }

    /// How the front library reaches it.
    pub(crate) fn remote_options(
        &self,
        certs: &DevCerts,
        transport: Transport,
    ) -> Result<RemoteOptions, BenchError> {
        let tls = material(certs, Role::Agent)?;
        let identity = IdentityPattern::same_domain(tls.identity(), Role::Broker);
        let broker = BrokerAddress {
            address: self.broker.to_string(),
            identity,
        };
        Ok(RemoteOptions {
            transport: transport.kind(),
            ..RemoteOptions::new(tls, broker)
        })
    }

    /// Starts a front agent with this device.
    pub(crate) fn start_front(
        &self,
        workspace: &Workspace,
        certs: &DevCerts,
        transport: Transport,
        device: &str,
    ) -> Result<Front, BenchError> {
        let instance = transport.as_str();
        let socket = workspace.file(format!("{instance}.sock"));
        let admin = workspace.file(format!("{instance}.admin"));
        let config = format!(
            "admin_socket = {admin}\n\
             metrics_listen = \"127.0.0.1:0\"\n\
             [broker]\naddr = {broker}\ntransport = {transport}\n\
             [[devices]]\nname = {device}\ndevice = {device}\nsocket = {socket}\n\
             {tls}",
            admin = quoted_path(&admin),
            broker = quoted(&self.broker.to_string()),
            transport = quoted(instance),
            device = quoted(device),
            socket = quoted_path(&socket),
            tls = certs.role(Role::Agent).toml(),
        );
        let front = workspace.start_configured::<FrontReady>(RoleName::Front, instance, &config)?;
        Ok(Front {
            socket,
            _process: front.process,
        })
    }
}

fn host_config(
    workspace: &Workspace,
    certs: &DevCerts,
    instance: &str,
    broker: SocketAddr,
    devices: &[String],
) -> String {
    let mut config = format!(
        "listen = \"127.0.0.1:0\"\n\
         metrics_listen = \"127.0.0.1:0\"\n\
         state_dir = {state}\n\
         {tls}\
         [[brokers]]\naddr = {broker}\n",
        state = quoted_path(&workspace.file(format!("host-{instance}.state"))),
        tls = certs.role(Role::Host).toml(),
        broker = quoted(&broker.to_string()),
    );
    for id in devices {
        // Writing to a string cannot fail.
        let _ = write!(config, "[[devices]]\nid = {}\nkind = \"edu\"\n", quoted(id));
    }
    config
}

fn broker_config(workspace: &Workspace, certs: &DevCerts, host_transport: Transport) -> String {
    let instance = host_transport.as_str();
    format!(
        "listen = \"127.0.0.1:0\"\n\
         metrics_listen = \"127.0.0.1:0\"\n\
         state_dir = {state}\n\
         {tls}\
         [hosts]\ntransport = {transport}\n\
         [[policy.offer]]\nhost = {host}\ndevices = [\"*\"]\n\
         [[policy.claim]]\nagent = {agent}\n",
        state = quoted_path(&workspace.file(format!("broker-{instance}.state"))),
        tls = certs.role(Role::Broker).toml(),
        transport = quoted(instance),
        host = quoted(&certs.role(Role::Host).identity),
        agent = quoted(&certs.role(Role::Agent).identity),
    )
}

/// Waits until the broker has the devices, free to be attached.
fn await_offers(
    certs: &DevCerts,
    broker: SocketAddr,
    devices: &[String],
) -> Result<(), BenchError> {
    let tls = material(certs, Role::Operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("cannot make a runtime"))?;
    let mut missing: BTreeSet<String> = devices.iter().cloned().collect();
    let watched = runtime.block_on(async {
        let watching = watch_offers(tls, broker, &mut missing);
        tokio::time::timeout(OFFER_LIMIT, watching).await
    });
    match watched {
        Ok(Ok(())) if missing.is_empty() => Ok(()),
        Ok(Err(error)) => Err(error),
        _ => Err(BenchError::NotOffered {
            missing: Vec::from_iter(missing).join(", "),
            limit_s: OFFER_LIMIT.as_secs(),
        }),
    }
}

/// Takes what the broker offers out of `missing`; returns when nothing is missing, or the broker says no more.
async fn watch_offers(
    tls: TlsMaterial,
    broker: SocketAddr,
    missing: &mut BTreeSet<String>,
) -> Result<(), BenchError> {
    let expect = IdentityPattern::same_domain(tls.identity(), Role::Broker);
    let channel = control_channel(tls, expect, broker, DialOptions::default()).await?;
    let refused = |status| BenchError::Watch(Box::new(status));
    let mut events = ControlClient::new(channel)
        .watch(WatchRequest {})
        .await
        .map_err(refused)?
        .into_inner();
    while !missing.is_empty() {
        match events.message().await.map_err(refused)? {
            None => break,
            Some(event) => {
                if let Some(Kind::Device(device)) = event.kind
                    && device.state() == DeviceState::Free
                {
                    missing.remove(&device.device_id);
                }
            }
        }
    }
    Ok(())
}

fn material(certs: &DevCerts, role: Role) -> Result<TlsMaterial, BenchError> {
    let files = certs.role(role);
    TlsMaterial::load(&files.ca, &files.cert, &files.key)
        .map_err(|source| BenchError::Tls { role, source })
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A text as TOML: JSON's strings are basic strings of TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
