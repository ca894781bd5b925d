//! A device's thread that is asked to stand still.

use potemkin_vfio_server::Bundle;
use tokio::sync::{mpsc, oneshot};

use super::document::SavedDevice;

/// A request to stand still.
#[derive(Debug)]
pub(crate) struct Freeze {
    /// For what the device is then, or why it does not stand still.
    pub(super) frozen: oneshot::Sender<Result<Frozen, String>>,
    /// It goes on when the other end is dropped.
    pub(super) go_on: oneshot::Receiver<()>,
}

/// A device that stands still.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(super) saved: SavedDevice,
    pub(super) bundle: Bundle,
}

/// A device that stands still until this is dropped.
#[derive(Debug)]
pub(super) struct Standing(#[allow(dead_code)] oneshot::Sender<()>);

/// Brings a device to a stand.
pub(super) async fn freeze(device: mpsc::Sender<Freeze>) -> Result<(Frozen, Standing), String> {
    let (frozen, answer) = oneshot::channel();
    let (until, go_on) = oneshot::channel();
    let gone = |_| "it is being detached".to_owned();
    let request = Freeze { frozen, go_on };
    device.send(request).await.map_err(|_| gone(()))?;
    let frozen = answer.await.map_err(|_| gone(()))??;
    Ok((frozen, Standing(until)))
}
