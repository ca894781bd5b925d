//! The Prometheus endpoint of a process.
//!
//! It has a thread and a runtime of its own: whoever scrapes, and whoever abuses the port, takes no turn of the runtime that
//! carries the data path.

mod server;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::Shutdown;

/// A running Prometheus endpoint; dropping it closes the port.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stop: Shutdown,
    thread: Option<JoinHandle<()>>,
}

/// Why the endpoint could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address cannot be listened on.
    #[error("metrics_listen: cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The recorder could not be installed: something else in the process installed one.
    #[error("cannot install the metrics recorder")]
    Recorder(#[source] BuildError),
    /// The endpoint's thread could not be started.
    #[error("cannot start the metrics endpoint")]
    Thread(#[source] io::Error),
}

/// Installs the process's recorder, so that `metrics::counter!` and the like count, and gives what renders them. Later calls
/// give the same one.
pub fn install() -> Result<PrometheusHandle, MetricsError> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

    // Held while installing, so that two threads that start at once get the same one.
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*recorder {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .map_err(MetricsError::Recorder)?;
    *recorder = Some(handle.clone());
    Ok(handle)
}

impl MetricsServer {
    /// Serves `GET /metrics` on `address`, plain HTTP; port 0 takes a free one. Needs no runtime.
    pub fn start(address: SocketAddr) -> Result<Self, MetricsError> {
        Self::serve(address, install()?)
    }

    /// As [`Self::start`], with a recorder of the caller's.
    pub fn serve(address: SocketAddr, handle: PrometheusHandle) -> Result<Self, MetricsError> {
        let bind = |source| MetricsError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let bound = listener.local_addr().map_err(bind)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(MetricsError::Thread)?;
        let stop = Shutdown::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || runtime.block_on(server::serve(listener, handle, stopped)))
            .map_err(MetricsError::Thread)?;
        Ok(Self {
            address: bound,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its hook; the process goes on.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
