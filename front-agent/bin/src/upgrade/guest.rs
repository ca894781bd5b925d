//! A device's VMM: served, paused for an upgrade, and taken over after one.

use std::{sync::Arc, time::Instant};

use potemkin_front_core::{Attachment, FrontDevice, RemoteFunction, SaveError, SavedSide};
use potemkin_service::runtime::chain;
use potemkin_vfio_server::{
    BindError, Bundle, Ended, Inherited, Paused, RestoreError, SavedClient, ServeError, Server,
};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    document::{self, SavedDevice},
    freeze::{Freeze, Frozen},
};
use crate::{
    bus::{SavedBus, VfioBus},
    function::VfioFunction,
    served::Order,
    settings,
};

/// What a device's thread serves.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'a> {
    pub(crate) order: &'a Order,
    pub(crate) attachment: &'a Attachment,
    pub(crate) device: &'a Arc<FrontDevice>,
    pub(crate) bus: &'a VfioBus,
    pub(crate) server: &'a Server,
}

/// A device that another program has served in this process.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub(super) saved: SavedDevice,
    pub(super) inherited: Inherited,
}

/// What remains to be taken over once the device's function is there.
#[derive(Debug)]
pub(crate) struct Remains {
    client: Option<SavedClient>,
    bus: SavedBus,
    side: SavedSide,
    inherited: Inherited,
}

/// Why a device is not taken over.
#[derive(Debug, Error)]
pub(crate) enum TakeOverError {
    #[error("the listening socket")]
    Socket(#[from] BindError),
    #[error(transparent)]
    Function(#[from] SaveError),
}

impl HandedOver {
    pub(crate) fn take_over(
        self,
        order: &Order,
    ) -> Result<(Server, RemoteFunction, Option<Remains>), TakeOverError> {
        let Self {
            saved,
            mut inherited,
        } = self;
        let (path, options) = (&order.socket, order.socket_options.clone());
        let server = Server::adopt(path, options, &saved.listener, &mut inherited)?;
        let side = saved.function.side.clone();
        let then = document::instant(saved.at_ns);
        let function = RemoteFunction::restore(&order.remote, saved.function, then)?;
        let remains = Remains {
            client: saved.client,
            bus: saved.bus,
            side,
            inherited,
        };
        Ok((server, function, Some(remains)))
    }
}

impl Guest<'_> {
    /// Serves the device's clients until it is stopped.
    pub(crate) async fn serve(
        self,
        remains: Option<Remains>,
        stop: &CancellationToken,
        freezes: &mut mpsc::Receiver<Freeze>,
    ) -> Result<(), ServeError> {
        let function = VfioFunction::new(Arc::clone(self.device), self.bus.clone());
        let mut client = match remains {
            None => Paused::default(),
            Some(remains) => self.restore(&function, remains),
        };
        loop {
            let mut request = None;
            let pause = async {
                request = Some(next(freezes).await);
                self.bus.hold().await;
            };
            let served = self
                .server
                .serve_from(&function, client, stop.cancelled(), pause);
            client = match served.await? {
                Ended::Stopped => return Ok(()),
                Ended::Paused(client) => client,
            };
            if let Some(request) = request {
                self.stand(&client, request, stop).await;
            }
            self.bus.release();
        }
    }

    /// Before anything else of the device's runs. A client that cannot be restored is disconnected: its VMM finds that its device is gone.
    fn restore<'f>(
        &'f self,
        function: &'f VfioFunction,
        remains: Remains,
    ) -> Paused<'f, VfioFunction> {
        let Remains {
            client,
            bus,
            side,
            mut inherited,
        } = remains;
        self.bus.restore(bus, self.device);
        let restored: Result<_, RestoreError> =
            self.server
                .restore(function, client.as_ref(), &mut inherited);
        self.device.restore_windows(&side);
        restored.unwrap_or_else(|error| {
            tracing::error!(name = self.order.name, %error, "the VMM is disconnected");
            Paused::default()
        })
    }

    /// Stands still, and tells what there is, until the request is over.
    async fn stand(
        &self,
        client: &Paused<'_, VfioFunction>,
        request: Freeze,
        stop: &CancellationToken,
    ) {
        let session = self.device.session();
        let frozen = match session.stand().await {
            Ok(()) => self.save(client),
            Err(error) => Err(format!("{error}; or `session.resume_window` is 0")),
        };
        // Nobody may wait for it any more.
        if request.frozen.send(frozen).is_ok() {
            tokio::select! {
                _ = request.go_on => {}
                () = stop.cancelled() => {}
            }
        }
        session.go_on();
    }

    fn save(&self, client: &Paused<'_, VfioFunction>) -> Result<Frozen, String> {
        let mut bundle = Bundle::default();
        let descriptors = |error: std::io::Error| format!("its descriptors: {error}");
        let now = Instant::now();
        let saved = SavedDevice {
            name: self.order.name.clone(),
            target: (&self.order.target).into(),
            socket: self.order.socket.clone(),
            after_loss: Some(settings::after_loss_name(self.order.remote.after_loss)),
            listener: self.server.save(&mut bundle).map_err(descriptors)?,
            client: client.save(&mut bundle).map_err(descriptors)?,
            bus: self.bus.save(),
            at_ns: document::now_ns(),
            function: self
                .device
                .save(self.attachment, now)
                .map_err(|error| chain(&error))?,
            descriptors: bundle.numbers(),
        };
        Ok(Frozen { saved, bundle })
    }
}

/// The next request; an agent that has forgotten the device asks for nothing.
async fn next(freezes: &mut mpsc::Receiver<Freeze>) -> Freeze {
    match freezes.recv().await {
        Some(freeze) => freeze,
        None => std::future::pending().await,
    }
}
