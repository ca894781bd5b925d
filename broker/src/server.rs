//! The broker as a whole: from a configuration to a running server.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use potemkin_service::config::{BadValue, TlsSection};
use potemkin_service::metrics::{MetricsError, MetricsServer};
use potemkin_service::reload::CertificateWatch;
use potemkin_transport::{
    DialOptions, ListenOptions, MAX_FRAME_BYTES, RefusalObserver, Role, TlsMaterial,
    TransportError, TransportKind, listen,
};
use serde::Serialize;
use tokio::time::Instant;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::broker::Broker;
use crate::config::Config;
use crate::control::{self, ControlService};
use crate::core::Core;
use crate::metrics::Metrics;
use crate::relay::{HostPool, Relay, RelayLimits};
use crate::store::{RedbStore, Store, StoreError};
use crate::tasks;

/// The store's file in `state_dir`.
const STORE_FILE: &str = "broker.redb";

/// What connections get for writing the last answers when the broker stops.
const LAST_WRITE: Duration = Duration::from_millis(20);

/// Where a running broker listens; the contents of the ready-file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// gRPC on TCP, QUIC on UDP.
    pub listen: SocketAddr,
    /// `GET /metrics`.
    pub metrics: SocketAddr,
}

/// Why the broker cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The folder of the store cannot be made.
    #[error("state_dir: cannot make {path:?}")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error("state_dir")]
    Store(#[from] StoreError),
    /// The store's thread ended before it was done.
    #[error("the store's thread is gone")]
    StoreThread(#[source] tokio::task::JoinError),
    /// The certificate, the key or the CA cannot be used.
    #[error(transparent)]
    Tls(#[from] BadValue),
    /// Listening failed.
    #[error("listen")]
    Transport(#[from] TransportError),
    /// The metrics port failed.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The schema built into this program cannot be served.
    #[error("reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The caller could not take the addresses.
    #[error(transparent)]
    Ready(potemkin_service::BoxError),
}

/// Runs a broker until `shutdown` resolves. Relative paths start at `base`. `on_ready` gets the addresses once everything
/// listens; what it returns is kept until the end. Wants a `current_thread` runtime: the broker is made for one thread.
pub async fn run<T>(
    config: Config,
    base: &Path,
    shutdown: impl Future<Output = ()>,
    on_ready: impl FnOnce(Addresses) -> Result<T, potemkin_service::BoxError>,
) -> Result<(), RunError> {
    let tls = load_tls(&config.tls, base)?;
    let store = open_store(&config, base).await?;
    let metrics_server = MetricsServer::start(config.metrics_listen)?;
    let broker = start_broker(&config, store.as_ref()).await?;
    let certificates = CertificateWatch::new(&config.tls, base, &tls);
    let listener = listen(listen_options(&config, tls.clone(), &broker)).await?;
    let addresses = Addresses {
        listen: listener.local_addr(),
        metrics: metrics_server.address(),
    };
    tracing::info!(listen = %addresses.listen, metrics = %addresses.metrics, "broker ready");
    let relay = relay(&config, tls, &broker);
    let (routes, health) = routes(&config, &broker).await?;
    let _kept_until_the_end = on_ready(addresses).map_err(RunError::Ready)?;

    let stop = async {
        shutdown.await;
        tracing::info!("broker stops");
        // First, so that who watches us looks elsewhere before anything is closed.
        tell_health(&health, ServingStatus::NotServing).await;
        broker.stop();
        // Bounded, as callers need not read.
        let _ =
            tokio::time::timeout(config.connections.drain_timeout.0, broker.streams_ended()).await;
        // What ended a stream is in its connection's buffer now, and not on the wire yet.
        tokio::time::sleep(LAST_WRITE).await;
    };
    let serve = listener.serve(relay, routes, stop);
    tokio::select! {
        served = serve => served?,
        () = tasks::keep_time(&broker) => {}
        () = keep_rows(&broker, store) => {}
        () = tasks::keep_counts(&broker) => {}
        never = certificates.run() => match never {},
    }
    Ok(())
}

/// Loads certificates and key, which must be a broker's.
pub(crate) fn load_tls(tls: &TlsSection, base: &Path) -> Result<TlsMaterial, BadValue> {
    tls.load(base, &[Role::Broker])
}

/// The store; `None`: this broker only relays, and has none.
async fn open_store(config: &Config, base: &Path) -> Result<Option<Arc<RedbStore>>, RunError> {
    if !config.pool.grants {
        tracing::info!("this broker only relays (pool.grants = false): state_dir is not used");
        return Ok(None);
    }
    let folder = config.state_dir.resolve(base);
    let open = move || {
        make_private(&folder).map_err(|source| RunError::StateDir {
            path: folder.clone(),
            source,
        })?;
        Ok(Some(Arc::new(RedbStore::open(&folder.join(STORE_FILE))?)))
    };
    blocking(open).await
}

/// The store names who holds what: nobody else needs to read it.
fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// As [`tasks::keep_rows`], where there is something to keep. Never ends.
async fn keep_rows(broker: &Broker, store: Option<Arc<RedbStore>>) {
    match store {
        Some(store) => tasks::keep_rows(broker, store).await,
        None => std::future::pending().await,
    }
}

async fn start_core(config: &Config, store: Option<&Arc<RedbStore>>) -> Result<Core, RunError> {
    let (policy, times, limits) = (config.policy.clone(), config.times(), config.core_limits());
    let Some(store) = store.cloned() else {
        return Ok(Core::relaying(policy, times, limits));
    };
    let rows = blocking(move || Ok(store.load()?)).await?;
    tracing::info!(devices = rows.len(), "store read");
    Ok(Core::new(policy, times, limits, rows))
}

async fn start_broker(
    config: &Config,
    store: Option<&Arc<RedbStore>>,
) -> Result<Arc<Broker>, RunError> {
    let core = start_core(config, store).await?;
    let origin = Instant::now();
    let metrics = Metrics::new();
    // So that the first scrape finds everything.
    metrics.show(&core.tally());
    let watchers_max = config.limits.watchers;
    Ok(Arc::new(Broker::new(core, watchers_max, origin, metrics)))
}

async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, RunError> + Send + 'static,
) -> Result<R, RunError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(RunError::StoreThread)?
}

fn listen_options(config: &Config, tls: TlsMaterial, broker: &Arc<Broker>) -> ListenOptions {
    let broker = broker.clone();
    ListenOptions {
        keep_alive: config.connections.keep_alive(),
        idle_timeout: config.connections.idle_timeout.0,
        max_connections: config.connections.max,
        max_sessions_per_connection: config.connections.streams_max,
        max_queued_bytes: queue_bytes(config),
        drain_timeout: config.connections.drain_timeout.0,
        on_refused: Some(RefusalObserver::new(move |refusal| {
            broker.metrics.rejected_peer(&refusal.reason);
        })),
        ..ListenOptions::new(config.listen, tls)
    }
}

fn relay(config: &Config, tls: TlsMaterial, broker: &Arc<Broker>) -> Relay {
    let options = DialOptions {
        keep_alive: config.connections.keep_alive(),
        idle_timeout: config.connections.idle_timeout.0,
        connect_timeout: config.connections.connect_timeout.0,
        max_queued_bytes: queue_bytes(config),
    };
    Relay {
        broker: broker.clone(),
        hosts: HostPool::new(tls, TransportKind::from(config.hosts.transport), options),
        limits: RelayLimits {
            open: config.sessions.open_timeout.0,
            accept: config.sessions.accept_timeout.0,
            dials_per_agent: config.limits.dials_per_agent,
            queued_bytes: config.limits.queued_bytes,
        },
    }
}

/// A leg's queue: what the relay lets it grow to, one more frame, and a close frame.
const fn queue_bytes(config: &Config) -> usize {
    config
        .limits
        .queued_bytes
        .saturating_add(2 * MAX_FRAME_BYTES)
}

/// Whose health is told: the broker's as a whole, and each service's. They live and end together.
const HEALTH_OF: [&str; 3] = ["", "potemkin.v1.Control", "potemkin.v1.Data"];

/// Says the same of all of [`HEALTH_OF`].
async fn tell_health(health: &HealthReporter, status: ServingStatus) {
    for service in HEALTH_OF {
        health.set_service_status(service, status).await;
    }
}

async fn routes(
    config: &Config,
    broker: &Arc<Broker>,
) -> Result<(Routes, HealthReporter), RunError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    tell_health(&health, ServingStatus::Serving).await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(potemkin_proto::DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let service = ControlService {
        broker: broker.clone(),
        hello_timeout: config.sessions.open_timeout.0,
    };
    // Older tools ask for v1alpha alone.
    let routes = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let routes = control::add_to(routes, service, config.limits.hello_bytes);
    Ok((routes, health))
}
