//! Attach, dial, open: from a target to a live front device.

use std::{sync::Arc, time::Duration};

use potemkin_pci::Descriptor;
use potemkin_session::VERSION;
use potemkin_transport::{DialOptions, TlsMaterial, TransportKind};

use crate::{
    attach::{AttachError, Attachment, Broker, BrokerAddress, Target},
    bus::Bus,
    device::FrontDevice,
    driver::Begin,
    holding::{Grant, Holding},
    keeper::Keeper,
    latch::AfterLoss,
    leg::Leg,
    messages::Interrupts,
    session::Session,
};

/// Default deadline of an access.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(1);

/// Default of how long another path is looked for when nothing waits for it. (A host keeps a session without one for 10 s by default.)
pub const DEFAULT_RESUME_WINDOW: Duration = Duration::from_secs(30);

/// Default of after how much silence a sign of life is sent.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Default of how long a broker may be silent. So a link that is half open is found, and another path, before the host gives the session up: over
/// QUIC, where the time counts from the sign of life that is not answered, 15 s after the last packet. A broker needs 13 s for the same, by default,
/// and its host keeps the session for 10 s more.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to reach a device.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Who we are, and whom we trust.
    pub tls: TlsMaterial,
    /// The brokers of the pool, the preferred one first; one at least. A device is attached through the first that grants it; when a session's
    /// path is lost, it goes on through any.
    pub brokers: Vec<BrokerAddress>,
    /// What the agent's leg runs on. When a path is lost, the other is tried too.
    pub transport: TransportKind,
    /// How long an access may stay unanswered before the session is contained.
    pub deadline: Duration,
    /// How long another path is looked for, when one is lost and nothing waits for it; while an access waits its deadline counts instead.
    /// Zero: a session ends with its path.
    pub resume_window: Duration,
    /// What comes after a session that is contained.
    pub after_loss: AfterLoss,
    /// Keep-alive and time-outs.
    pub dial: DialOptions,
    /// The newest version of the protocol to speak: the newest there is, but to compare with an older one. A session of version 1 ends with its path.
    pub version_max: u32,
}

impl RemoteOptions {
    /// Through this broker, over QUIC, with the default times.
    #[must_use]
    pub fn new(tls: TlsMaterial, broker: BrokerAddress) -> Self {
        Self::through(tls, vec![broker])
    }

    /// The same through any of these.
    #[must_use]
    pub fn through(tls: TlsMaterial, brokers: Vec<BrokerAddress>) -> Self {
        Self {
            tls,
            brokers,
            transport: TransportKind::Quic,
            deadline: DEFAULT_DEADLINE,
            resume_window: DEFAULT_RESUME_WINDOW,
            after_loss: AfterLoss::default(),
            dial: DialOptions {
                keep_alive: Some(DEFAULT_KEEP_ALIVE),
                idle_timeout: DEFAULT_IDLE_TIMEOUT,
                ..DialOptions::default()
            },
            version_max: VERSION,
        }
    }

    /// The brokers, for people.
    pub fn broker_names(&self) -> String {
        let names: Vec<_> = self.brokers.iter().map(|b| b.address.as_str()).collect();
        names.join(", ")
    }
}

/// A session whose stream is open, not yet driven: run what [`RemoteFunction::into_parts`] gives on the
/// thread that serves the guest.
#[derive(Debug)]
pub struct RemoteFunction {
    grant: Grant,
    device: Arc<FrontDevice>,
    begin: Begin,
    options: RemoteOptions,
}

/// What remains of a [`RemoteFunction`] while its stream is driven: how to give it back.
#[derive(Debug)]
pub struct Lease {
    holding: Arc<Holding>,
    options: RemoteOptions,
}

impl RemoteFunction {
    /// Attaches the device and opens the session's stream, through the first broker that can. What one of them refuses by its rules is final.
    /// All is undone when a step fails.
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
        let (grant, leg) = grant_by_any(options, target, Takeover::OlderProcess).await?;
        let descriptor = grant.attachment.descriptor.clone();
        let device = function(descriptor, grant.session(options));
        Ok(Self {
            grant,
            device: Arc::new(device),
            begin: Begin::Leg(Box::new(leg)),
            options: options.clone(),
        })
    }

    /// A function that another process has had, with its session; the broker with this index had its last path.
    pub(crate) fn resumed(
        attachment: Attachment,
        device: Arc<FrontDevice>,
        last: usize,
        options: RemoteOptions,
    ) -> Self {
        let grant = Grant {
            attachment,
            broker: None,
            granted_by: last,
        };
        Self {
            grant,
            device,
            begin: Begin::Search(last),
            options,
        }
    }

    /// What was attached.
    pub fn attachment(&self) -> &Attachment {
        &self.grant.attachment
    }

    /// The front device; its accesses are answered while the session is driven.
    pub fn device(&self) -> &Arc<FrontDevice> {
        &self.device
    }

    /// Splits into what runs the session, until it is closed or contained, and what gives it back afterwards. With [`AfterLoss::Reset`] it runs those
    /// that follow, too: until [`FrontDevice::close`], or until the device is lost for good. What the device starts
    /// itself goes to `bus`, on the task that runs the session; the future is `Send` if the bus is `Send` and `Sync`.
    pub fn into_parts<B: Bus>(self, bus: B) -> (impl Future<Output = ()> + use<B>, Lease) {
        let holding = Arc::new(Holding::new(self.grant));
        let lease = Lease {
            holding: Arc::clone(&holding),
            options: self.options.clone(),
        };
        let keeper = Keeper {
            device: self.device,
            options: self.options,
            holding,
            bus,
        };
        (keeper.run(self.begin), lease)
    }
}

impl Lease {
    /// What is attached now: after the loss of a session another one, of the same device.
    pub fn attachment(&self) -> Attachment {
        self.holding.grant().attachment
    }

    /// Gives the session back, by the broker that granted it, or else by any other. One that the broker has ended already, because its
    /// stream was closed, is given back.
    ///
    /// # Errors
    /// What the brokers say; their grace period ends the claim all the same.
    pub async fn detach(self) -> Result<(), AttachError> {
        self.holding.grant().give_back(&self.options).await
    }
}

/// Whether an attach takes the device from an older process with our identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takeover {
    /// That is how a restarted process gets its devices back at once.
    OlderProcess,
    /// Others are waited for: the other one may be the newer.
    Never,
}

/// A grant of the first broker that can give one, and a stream through it. What one of them refuses by its rules is final.
pub(crate) async fn grant_by_any(
    options: &RemoteOptions,
    target: &Target,
    takeover: Takeover,
) -> Result<(Grant, Leg), AttachError> {
    let mut errors = Vec::new();
    for index in 0..options.brokers.len() {
        match grant(options, index, target, takeover).await {
            Ok(granted) => return Ok(granted),
            Err(error) if error.another_may() => errors.push(error),
            Err(error) => return Err(error),
        }
    }
    Err(AttachError::of_all(errors))
}

/// One broker's grant, and a stream through it: on the address that answered the control plane, as with several behind one name the grant
/// may be known there first.
async fn grant(
    options: &RemoteOptions,
    index: usize,
    target: &Target,
    takeover: Takeover,
) -> Result<(Grant, Leg), AttachError> {
    let address = options.brokers.get(index).ok_or(AttachError::NoBroker)?;
    let mut broker = Broker::connect(&options.tls, address, &options.dial).await?;
    let attachment = broker.attach_as(target, takeover).await?;
    match Leg::dial_at(options, index, broker.address(), options.transport).await {
        Ok(leg) => {
            let grant = Grant {
                attachment,
                broker: Some(broker),
                granted_by: index,
            };
            Ok((grant, leg))
        }
        Err(error) => {
            if let Err(undo) = broker.detach(attachment.session).await {
                tracing::warn!(%undo, "detach after a failed attach; the broker's grace period ends the claim");
            }
            Err(error)
        }
    }
}
