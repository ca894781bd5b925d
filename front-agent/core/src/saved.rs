//! A remote function as a value, for an agent that goes on in another program: what the guest has made of it, and its session.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use potemkin_pci::{ConfigSpace, SavedConfig, SavedConfigError};
use potemkin_proto::{
    descriptor::{self, DescriptorFieldError},
    v1::DeviceDescriptor,
};
use potemkin_session::{
    front::{Front, FrontState, NotSaved, SavedError, SavedFront},
    ids::{Epoch, Incarnation, SessionId},
};
use prost::Message;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    attach::Attachment,
    device::{DeviceCounters, FrontDevice},
    latch::SavedLatch,
    remote::{RemoteFunction, RemoteOptions},
    session::{Lost, Session},
};

pub use crate::dma::{SavedSide, SavedTransfer};

/// A function of [`FrontDevice::new`] whose session stands still ([`Session::stand`]).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedFunction {
    /// The device, as its host registered it.
    pub device_id: String,
    /// What the guest sees: a `DeviceDescriptor`, encoded.
    #[serde(with = "potemkin_pci::hex")]
    pub descriptor: Vec<u8>,
    /// What the guest has made of its configuration space.
    pub config: SavedConfig,
    /// The session.
    pub session: SavedFront,
    /// The device's side of the guest.
    pub side: SavedSide,
    /// Whether it is kept after the loss of its session, and how it stands then.
    #[serde(default)]
    pub latch: SavedLatch,
    /// Why the session is over, if it is.
    pub lost: Option<String>,
    /// The broker through which it went.
    pub broker: Option<String>,
    /// Times that it went on over another path.
    #[serde(default)]
    pub resumes: u64,
    /// Connections that were begun for that.
    #[serde(default)]
    pub dials: u64,
    /// What the guest did.
    #[serde(default)]
    pub counters: DeviceCounters,
}

/// Why a function is not saved, or not restored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The VMM has tables here that are not saved.
    #[error("a function that is embedded in its VMM cannot be handed over")]
    Embedded,
    /// Its session.
    #[error(transparent)]
    Session(#[from] NotSaved),
    /// The session that was saved.
    #[error(transparent)]
    SavedSession(#[from] SavedError),
    /// The configuration space that was saved.
    #[error(transparent)]
    SavedConfig(#[from] SavedConfigError),
    /// The descriptor that was saved.
    #[error("saved descriptor: {0}")]
    Descriptor(#[from] DescriptorFieldError),
    /// The descriptor that was saved is no message.
    #[error("saved descriptor: {0}")]
    Encoding(#[from] prost::DecodeError),
}

impl FrontDevice {
    /// As it is now, while its session stands still and no access is under way.
    ///
    /// # Errors
    /// It cannot be saved, or not now.
    pub fn save(&self, attachment: &Attachment, now: Instant) -> Result<SavedFunction, SaveError> {
        if self.local.is_some() {
            return Err(SaveError::Embedded);
        }
        let handle = self.session();
        let mut state = handle.lock();
        let session = state.core.save(now)?;
        let lost = state.lost.as_ref().map(|lost| lost.reason.clone());
        let link = state.link.clone();
        drop(state);
        Ok(SavedFunction {
            device_id: attachment.device_id.clone(),
            descriptor: DeviceDescriptor::from(self.descriptor()).encode_to_vec(),
            config: self.config().save(),
            session,
            side: self.save_side(),
            latch: self.latch.save(),
            lost,
            broker: link.route.map(|route| route.broker),
            resumes: link.resumes,
            dials: link.dials,
            counters: self.counters(),
        })
    }

    fn restore(saved: &SavedFunction, session: Session, then: Instant) -> Result<Self, SaveError> {
        let message = DeviceDescriptor::decode(&saved.descriptor[..])?;
        let descriptor = descriptor::decode(message)?;
        let config = ConfigSpace::restore(&descriptor, &saved.config)?;
        let device = Self::new(descriptor, session);
        *device.config() = config;
        device.restore_side(&saved.side);
        device.latch.restore(&saved.latch, then);
        let (counters, was) = (&device.counters, saved.counters);
        for (counter, value) in [
            (&counters.config_reads, was.config_reads),
            (&counters.config_reads_remote, was.config_reads_remote),
            (&counters.config_writes, was.config_writes),
            (&counters.config_writes_remote, was.config_writes_remote),
            (&counters.bar_reads, was.bar_reads),
            (&counters.bar_writes, was.bar_writes),
            (&counters.refused, was.refused),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        Ok(device)
    }
}

impl RemoteFunction {
    /// A function that was saved at `then`. Its session looks for a path as soon as it is driven. The guest's memory is mapped again first, and
    /// [`FrontDevice::restore_windows`] called.
    ///
    /// # Errors
    /// What in it cannot be.
    pub fn restore(
        options: &RemoteOptions,
        saved: SavedFunction,
        then: Instant,
    ) -> Result<Self, SaveError> {
        let front = &saved.session;
        let (session, epoch) = (SessionId::from_bytes(front.session), Epoch(front.epoch));
        let host_incarnation = Incarnation::from_bytes(front.host_incarnation);
        let core = Front::restore(saved.session.clone(), then)?;
        let over = core.state() == FrontState::Contained;
        let handle = Session::of(core);
        let mut state = handle.lock();
        (state.link.resumes, state.link.dials) = (saved.resumes, saved.dials);
        if over {
            let reason = saved.lost.clone();
            state.lost = Some(Lost {
                reason: reason.unwrap_or_else(|| "it was lost".to_owned()),
                since: then,
            });
        } else {
            state.link.interrupt("this agent was upgraded");
        }
        drop(state);
        let device = FrontDevice::restore(&saved, handle, then)?;
        let attachment = Attachment {
            device_id: saved.device_id,
            session,
            epoch,
            host_incarnation,
            descriptor: device.descriptor().clone(),
        };
        let brokers = &mut options.brokers.iter();
        let last = brokers.position(|broker| Some(&broker.address) == saved.broker.as_ref());
        Ok(Self::resumed(
            attachment,
            Arc::new(device),
            last.unwrap_or(0),
            options.clone(),
        ))
    }
}
