//! Attach, dial, open: from a target to a live front device.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use potemkin_pci::Descriptor;
use potemkin_transport::{
    Connection, DialOptions, Dialer, FrameStream, TlsMaterial, TransportKind,
};

use crate::{
    attach::{AttachError, Attachment, Broker, BrokerAddress, Target},
    bus::Bus,
    device::FrontDevice,
    driver::drive,
    messages::Interrupts,
    session::Session,
};

/// Default deadline of an access.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);

/// Longest that a connection's last packets may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How to reach a device.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Who we are, and whom we trust.
    pub tls: TlsMaterial,
    /// The broker.
    pub broker: BrokerAddress,
    /// What the agent's leg runs on.
    pub transport: TransportKind,
    /// How long an access may stay unanswered before the session is contained.
    pub deadline: Duration,
    /// Keep-alive and time-outs.
    pub dial: DialOptions,
}

/// A session whose stream is open, not yet driven: run what [`RemoteFunction::into_parts`] gives on the
/// thread that serves the guest.
#[derive(Debug)]
pub struct RemoteFunction {
    attachment: Attachment,
    device: Arc<FrontDevice>,
    broker: Broker,
    connection: Connection,
    stream: FrameStream,
}

/// What remains of a [`RemoteFunction`] while its stream is driven: how to give it back.
#[derive(Debug)]
pub struct Lease {
    attachment: Attachment,
    broker: Broker,
}

impl RemoteFunction {
    /// Attaches the device and opens the session's stream. All is undone when a step fails.
    ///
    /// The function is one of [`FrontDevice::new`]: for a VMM that keeps the MSI-X table itself.
    ///
    /// # Errors
    /// Which step failed, where, and why.
    pub async fn attach(options: &RemoteOptions, target: &Target) -> Result<Self, AttachError> {
        Self::attach_as(options, target, FrontDevice::new).await
    }

    /// The same with a function of [`FrontDevice::embedded`], whose interrupts come out as messages: [`RemoteFunction::into_parts`] wants
    /// [`MessageInterrupts`](crate::MessageInterrupts) of its device.
    ///
    /// # Errors
    /// Which step failed, where, and why.
    pub async fn embed(
        options: &RemoteOptions,
        target: &Target,
        vmm: Arc<dyn Interrupts>,
    ) -> Result<Self, AttachError> {
        let function = |descriptor, session| FrontDevice::embedded(descriptor, session, vmm);
        Self::attach_as(options, target, function).await
    }

    async fn attach_as(
        options: &RemoteOptions,
        target: &Target,
        function: impl FnOnce(Descriptor, Session) -> FrontDevice,
    ) -> Result<Self, AttachError> {
        let mut broker = Broker::connect(&options.tls, &options.broker, &options.dial).await?;
        let attachment = broker.attach(target).await?;
        match open_stream(options, broker.address()).await {
            Ok((connection, stream)) => {
                let session = Session::new(attachment.front_config(options.deadline));
                let device = function(attachment.descriptor.clone(), session);
                Ok(Self {
                    attachment,
                    device: Arc::new(device),
                    broker,
                    connection,
                    stream,
                })
            }
            Err(error) => {
                if let Err(undo) = broker.detach(attachment.session).await {
                    tracing::warn!(%undo, "detach after a failed attach; the broker's grace period ends the claim");
                }
                Err(error)
            }
        }
    }

    /// What was attached.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The front device; its accesses are answered while the session is driven.
    pub fn device(&self) -> &Arc<FrontDevice> {
        &self.device
    }

    /// Splits into what runs the session, until it is closed or contained, and what gives it back afterwards. What the device starts
    /// itself goes to `bus`, on the task that runs the session; the future is `Send` if the bus is `Send` and `Sync`.
    pub fn into_parts<B: Bus>(self, bus: B) -> (impl Future<Output = ()> + use<B>, Lease) {
        let (device, connection, stream) = (self.device, self.connection, self.stream);
        let run = async move {
            drive(device, stream, bus).await;
            connection.close();
            // Without it a QUIC peer would learn of the end by its idle timeout only.
            if tokio::time::timeout(CLOSE_TIMEOUT, connection.closed())
                .await
                .is_err()
            {
                tracing::debug!("the connection did not end in time");
            }
        };
        let lease = Lease {
            attachment: self.attachment,
            broker: self.broker,
        };
        (run, lease)
    }
}

impl Lease {
    /// Gives the session back. One that the broker has ended already, because its stream was closed, is given back.
    ///
    /// # Errors
    /// What the broker says; its grace period ends the claim all the same.
    pub async fn detach(mut self) -> Result<(), AttachError> {
        match self.broker.detach(self.attachment.session).await {
            Err(AttachError::Refused {
                code: tonic::Code::NotFound,
                ..
            }) => Ok(()),
            other => other,
        }
    }
}

/// On the address that answered the control plane: with several behind one name, the grant may be known there first.
async fn open_stream(
    options: &RemoteOptions,
    address: SocketAddr,
) -> Result<(Connection, FrameStream), AttachError> {
    let dialer = Dialer::new(
        options.tls.clone(),
        options.broker.identity.clone(),
        options.dial.clone(),
    );
    let stream_error = |source| AttachError::Stream {
        address,
        source: Box::new(source),
    };
    let connection = dialer
        .connect(options.transport, address)
        .await
        .map_err(stream_error)?;
    let stream = connection.open().await.map_err(stream_error)?;
    Ok((connection, stream))
}
