//! A host that is bound, and its run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use potemkin_proto::v1::CloseCode;
use potemkin_service::Shutdown;
use potemkin_service::metrics::MetricsServer;
use potemkin_service::reload::CertificateWatch;
use potemkin_transport::Listener;
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::HostError;
use crate::control::{Broker, Control};
use crate::pool::Pool;
use crate::served::End;
use crate::session::Sessions;

/// How long brokers may take to hear of the end.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// A host whose ports are bound.
#[derive(Debug)]
pub struct Host {
    pub(crate) listener: Listener,
    pub(crate) metrics: MetricsServer,
    pub(crate) sessions: Sessions,
    pub(crate) control: Arc<Control>,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) certificates: CertificateWatch,
}

/// Where a host listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// The data plane, TCP and UDP.
    pub listen: SocketAddr,
    /// Prometheus.
    pub metrics: SocketAddr,
}

impl Host {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            listen: self.listener.local_addr(),
            metrics: self.metrics.address(),
        }
    }

    /// Registers with the brokers and serves their sessions, until `shutdown`; then sessions are closed and brokers told. Belongs on a
    /// `current_thread` runtime: devices are called from its one thread.
    ///
    /// # Errors
    ///
    /// The data plane failed as a whole.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), HostError> {
        let Self {
            listener,
            metrics,
            sessions,
            control,
            brokers,
            pool,
            certificates,
        } = self;
        let mut devices = JoinSet::new();
        for served in pool.iter() {
            let served = Arc::clone(served);
            devices.spawn(async move { served.deliver_notifications().await });
        }
        let farewell = Shutdown::new();
        let mut registrations = JoinSet::new();
        for broker in brokers {
            tracing::info!(%broker, "registering");
            registrations.spawn(Arc::clone(&control).keep_registered(broker, farewell.clone()));
        }
        let stopping = async {
            shutdown.cancelled().await;
            pool.dismiss_all(&End {
                code: CloseCode::Normal,
                message: "host: stopping".into(),
            });
        };
        let result = tokio::select! {
            result = listener.serve(sessions, Routes::default(), stopping) => result,
            never = certificates.run() => match never {},
        };
        // Brokers hear of the sessions that ended before the registration does.
        farewell.cancel();
        let gone = async { while registrations.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL_MAX, gone).await.is_err() {
            tracing::debug!("some brokers were not told of the end");
        }
        drop((devices, metrics));
        Ok(result?)
    }
}
