//! `potemkin-front`: the front agent beside the VMM.
//!
//! It attaches devices through a broker and offers each on a vfio-user socket, which QEMU and other VMMs connect to. Each
//! attached device has one thread, which owns its socket, its session and its network stream, so that an access passes no queue
//! between threads. The main thread serves the admin socket and metrics.

mod admin;
mod agent;
mod bus;
mod checks;
mod files;
mod function;
mod gauges;
mod served;
mod settings;
mod upgrade;
mod waiting;

use std::{
    ffi::OsString, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration,
};

use potemkin_service::{
    About, BoxError, Startup, admin::AttachRequest, metrics::MetricsServer,
    reload::CertificateWatch, runtime::chain,
};
use potemkin_vfio_server::{Listener, Options};
use serde::Serialize;
use tokio::{net::UnixListener, task::JoinSet};

use agent::Agent;
pub use settings::{BrokerSection, DeviceSection, FrontArgs, FrontSettings, SessionSection};
use upgrade::{Legacy, TakenOver};

const ABOUT: About = About {
    binary: "potemkin-front",
    summary: "Potemkin's front agent: attaches remote devices and offers each to a VMM on a vfio-user socket",
    examples: "  # With a configuration file; see deploy/config/front.toml. The sockets' directory must be there; a systemd unit\n  \
         # makes it with RuntimeDirectory=potemkin\n  \
         sudo install -d -o \"$(id -un)\" /run/potemkin\n  \
         potemkin-front --config front.toml\n\n  \
         # Check it first: exit code 2 and the line at fault if it is wrong\n  \
         potemkin-front --config front.toml --check-config\n\n  \
         # Another broker, without touching the file\n  \
         POTEMKIN_FRONT__BROKER__ADDR=broker.example:7640 potemkin-front --config front.toml\n\n  \
         # Attach a device to the running agent, and show what it has\n  \
         potemkin attach edu0 --agent /run/potemkin/admin.sock --device edu-0 --socket /run/potemkin/edu0.sock\n  \
         potemkin status --agent /run/potemkin/admin.sock\n\n  \
         # Replace the program, and have the running agent go on in the new one: no VM loses its device\n  \
         potemkin upgrade --agent /run/potemkin/admin.sock",
};

/// Where a running agent listens; the contents of its ready-file.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// The admin socket.
    pub admin: PathBuf,
    /// The Prometheus endpoint.
    pub metrics: SocketAddr,
}

/// Runs `potemkin-front` with these arguments, the program's name first.
pub fn cli_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    potemkin_service::run(&ABOUT, args, serve)
}

/// Serves until the shutdown, then detaches everything.
async fn serve(startup: Startup<FrontSettings>) -> Result<(), BoxError> {
    if startup.settings.upgrade_check {
        return Ok(upgrade::print_check()?);
    }
    let mut legacy = Legacy::find()?;
    files::allow_many();
    let settings = &startup.settings;
    let options = Options {
        group: settings.socket_group,
        ..Options::default()
    };
    let remote = settings.remote_options(&startup.base)?;
    let certificates = settings
        .tls
        .as_ref()
        .map(|tls| CertificateWatch::new(tls, &startup.base, &remote.tls));
    let admin_path = settings::absolute(&settings.admin_socket, &startup.base);
    let inherited = legacy.as_mut().and_then(|l| l.admin_socket(&admin_path));
    // Removes the socket when it goes.
    let admin_socket = match inherited {
        Some(socket) => socket,
        None => Listener::bind(&admin_path, settings.socket_group)?,
    };
    let listener = std::os::unix::net::UnixListener::from(admin_socket.descriptor().try_clone()?);
    let stopping = startup.shutdown.child_token();
    let agent = Arc::new(Agent::new(remote, options, stopping, admin_socket));
    let upgrades = tokio::spawn(upgrade::upgrade_on_signal(Arc::clone(&agent))?);
    // First of all: guests wait.
    let taken_over = match legacy {
        Some(legacy) => Some(legacy.take_over(&agent).await),
        None => None,
    };
    let metrics = metrics(settings.metrics_listen, taken_over.is_some())?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let operators = admin::serve(listener, Arc::clone(&agent), startup.shutdown.clone());
    let operators = tokio::spawn(operators);
    match taken_over {
        // What is to be attached at the start was, then.
        Some(taken_over) => conclude(taken_over, &agent, &startup),
        None => {
            if let Err(error) = attach_configured(&agent, &startup).await {
                agent.stop().await;
                // Tries that the shutdown ended did not fail.
                return if startup.shutdown.is_cancelled() {
                    Ok(())
                } else {
                    Err(error)
                };
            }
        }
    }
    let metrics = match &metrics {
        Some(metrics) => metrics.address(),
        None => settings.metrics_listen,
    };
    let _ready = startup.announce(&Addresses {
        admin: admin_path.clone(),
        metrics,
    })?;
    tracing::info!(admin = %admin_path.display(), %metrics, "ready");

    let gauges = tokio::spawn(gauges::publish(Arc::clone(&agent)));
    let certificates = certificates.map(|watch| tokio::spawn(watch.run()));
    operators.await?;

    tracing::info!("stopping: detaching all devices");
    upgrades.abort();
    gauges.abort();
    if let Some(watch) = certificates {
        watch.abort();
    }
    agent.stop().await;
    Ok(())
}

/// The endpoint. After an upgrade guests have their devices already: an endpoint whose port another process has taken meanwhile ends nothing.
fn metrics(listen: SocketAddr, go_on: bool) -> Result<Option<MetricsServer>, BoxError> {
    match MetricsServer::start(listen) {
        Ok(server) => Ok(Some(server)),
        Err(error) if go_on => {
            tracing::error!(
                error = chain(&error),
                "there are no metrics until a restart"
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells that the agent was upgraded: people, and whoever asked for it.
fn conclude(taken_over: TakenOver, agent: &Arc<Agent>, startup: &Startup<FrontSettings>) {
    let TakenOver { upgraded, operator } = taken_over;
    tracing::info!(
        version = upgraded.version,
        devices = upgraded.devices,
        stood_ms = upgraded.stood_ms,
        "upgraded"
    );
    if let Some(operator) = operator {
        let (agent, shutdown) = (Arc::clone(agent), startup.shutdown.clone());
        tokio::spawn(admin::go_on(operator, agent, upgraded, shutdown));
    }
}

/// Tries to attach the devices of the configuration, all at once. Those that may be had later do not fail here.
async fn attach_configured(
    agent: &Arc<Agent>,
    startup: &Startup<FrontSettings>,
) -> Result<(), BoxError> {
    let mut tries = JoinSet::new();
    for device in &startup.settings.devices {
        let name = device.name.clone();
        let request = AttachRequest {
            name: name.clone(),
            device: device.device.clone(),
            selector: device.selector.clone(),
            socket: settings::absolute(&device.socket, &startup.base),
            after_loss: device.after_loss,
        };
        let attach = Arc::clone(agent).attach_configured(request);
        tries.spawn(async move { attach.await.map_err(|e| format!("devices: `{name}`: {e}")) });
    }
    while let Some(tried) = tries.join_next().await {
        tried??;
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
