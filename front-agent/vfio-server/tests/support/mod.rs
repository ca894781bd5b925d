//! A function whose registers are memory, and a server for it on a thread of its own.

// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub, unused_imports, clippy::unwrap_used)]

mod device;
mod raw;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use potemkin_vfio_server::{Options, Server};
use potemkin_vfio_user::Client;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

pub use device::{
    BAR0_SIZE, BAR2_SIZE, BAR4_SIZE, CONFIG_SIZE, Device, MSI_VECTORS, MSIX_VECTORS, ROM_BYTE,
    ROM_SIZE, Seen, reg,
};
pub use raw::{Raw, message};

/// A server that runs until this is dropped.
pub struct Running {
    directory: TempDir,
    pub seen: Arc<Seen>,
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("device.sock");
        let server = Server::bind(&path, options).unwrap();
        let seen = Arc::new(Seen::default());
        let (shutdown, stopped) = oneshot::channel();
        let thread = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || serve(&server, seen, stopped)
        });
        Self {
            directory,
            seen,
            shutdown: Some(shutdown),
            thread: Some(thread),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("device.sock")
    }

    pub fn client(&self) -> Client {
        patient(&self.path())
    }

    pub fn raw(&self) -> Raw {
        Raw::connect(&self.path())
    }

    /// Shuts the server down and waits until its thread has ended.
    pub fn stop(&mut self) {
        if let Some(shutdown) = self.shutdown.take() {
            let _ = shutdown.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client that waits long, so that a busy machine fails no test.
pub fn patient(path: &Path) -> Client {
    let mut client = Client::connect(path).unwrap();
    client.set_timeout(Some(Duration::from_secs(60))).unwrap();
    client
}

fn serve(server: &Server, seen: Arc<Seen>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let device = Device::new(seen);
    let shutdown = async {
        let _ = stopped.await;
    };
    LocalSet::new()
        .block_on(&runtime, server.serve(&*device, shutdown))
        .unwrap();
}
