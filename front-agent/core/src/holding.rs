//! Which session a function holds of the pool, and how it is given back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    attach::{AttachError, Attachment, Broker},
    remote::RemoteOptions,
    session::Session,
};

/// While giving a device back takes longer, no further broker is asked.
const DETACH_PATIENCE: Duration = Duration::from_secs(5);

/// A grant, and who gave it.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) attachment: Attachment,
    /// None: another process asked for it.
    pub(crate) broker: Option<Broker>,
    /// Which of the brokers that is.
    pub(crate) granted_by: usize,
}

/// The newest grant of a function.
#[derive(Debug)]
pub(crate) struct Holding {
    grant: Mutex<Grant>,
}

impl Holding {
    pub(crate) fn new(grant: Grant) -> Self {
        Self {
            grant: Mutex::new(grant),
        }
    }

    pub(crate) fn grant(&self) -> Grant {
        self.lock().clone()
    }

    pub(crate) fn replace(&self, grant: Grant) {
        *self.lock() = grant;
    }

    fn lock(&self) -> MutexGuard<'_, Grant> {
        self.grant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// The session that was granted, about to be opened.
    pub(crate) fn session(&self, options: &RemoteOptions) -> Session {
        let config = self.attachment.front_config(options.deadline);
        Session::speaking(options.version_max, config)
    }

    /// Gives the session back, by the broker that granted it, or else by any other. One that the broker has ended already is given back.
    pub(crate) async fn give_back(mut self, options: &RemoteOptions) -> Result<(), AttachError> {
        let begun = Instant::now();
        let session = self.attachment.session;
        let mut errors = Vec::new();
        let asked = self.broker.is_some().then_some(self.granted_by);
        if let Some(broker) = &mut self.broker {
            match given_back(broker.detach(session).await) {
                Err(error) if error.another_may() => errors.push(error),
                done => return done,
            }
        }
        for (index, address) in options.brokers.iter().enumerate() {
            if asked == Some(index) || begun.elapsed() > DETACH_PATIENCE {
                continue;
            }
            let detached = async {
                let mut broker = Broker::connect(&options.tls, address, &options.dial).await?;
                broker.detach(session).await
            };
            match given_back(detached.await) {
                Err(error) => errors.push(error),
                done => return done,
            }
        }
        Err(AttachError::of_all(errors))
    }
}

fn given_back(detached: Result<(), AttachError>) -> Result<(), AttachError> {
    match detached {
        Err(AttachError::Refused {
            code: tonic::Code::NotFound,
            ..
        }) => Ok(()),
        other => other,
    }
}
