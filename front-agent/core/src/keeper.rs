//! Runs the sessions of a function, one after the other: when one is lost, and the function is kept, its device is attached again.

use std::sync::Arc;

use potemkin_proto::v1::CloseCode;
use potemkin_session::front::FrontState;

use crate::{
    attach::{AttachError, Target, chain},
    backoff::Backoff,
    bus::Bus,
    device::FrontDevice,
    driver::{Begin, drive_session},
    holding::Holding,
    latch::AfterLoss,
    leg::Leg,
    remote::{RemoteOptions, Takeover, grant_by_any},
    session::Session,
};

pub(crate) struct Keeper<B> {
    pub(crate) device: Arc<FrontDevice>,
    pub(crate) options: RemoteOptions,
    pub(crate) holding: Arc<Holding>,
    pub(crate) bus: B,
}

impl<B: Bus> Keeper<B> {
    /// Until the function is closed, or lost for good.
    pub(crate) async fn run(self, begin: Begin) {
        let session = self.device.session();
        if let Begin::Search(_) = begin {
            // Another process has found out whether it is kept.
            self.drive(&session, begin).await;
        } else {
            tokio::join!(self.keep(&session), self.drive(&session, begin));
        }
        let mut backoff = Backoff::default();
        let mut lost = session;
        while self.is_kept() {
            if let Some(reason) = lost.lost() {
                self.device.latch.explain(reason.reason);
            }
            let Some((session, leg)) = self.attach_again(&lost, &mut backoff).await else {
                return;
            };
            let (opened, ()) = {
                let begin = Begin::Leg(Box::new(leg));
                tokio::join!(self.open(&session), self.drive(&session, begin))
            };
            if opened {
                backoff = Backoff::default();
            }
            lost = session;
        }
    }

    /// A function whose first session was accepted is kept, if that is wanted.
    async fn keep(&self, session: &Session) {
        if session.opened().await.is_ok() && self.options.after_loss == AfterLoss::Reset {
            self.device.keep_after_loss();
        }
    }

    async fn drive(&self, session: &Session, begin: Begin) {
        let options = self.options.clone();
        drive_session(&self.device, session, begin, options, &self.bus).await;
    }

    /// The session was lost, and another is wanted.
    fn is_kept(&self) -> bool {
        let closed = self.device.session().state() == FrontState::Closed;
        if closed || *self.device.latch.ended().borrow() || !self.device.lose() {
            return false;
        }
        self.bus.forget_interrupts();
        true
    }

    /// Gives the function the session once the host has accepted it. False: it did not.
    async fn open(&self, session: &Session) -> bool {
        let mut ended = self.device.latch.ended();
        tokio::select! {
            opened = session.opened() => match opened {
                Ok(()) => {
                    let path = session.path();
                    tracing::info!(session = %path.session, epoch = path.epoch.0, "attached again");
                    self.device.install(session);
                }
                Err(reason) => {
                    self.device.latch.explain(format!("session not accepted: {reason}"));
                    return false;
                }
            },
            _ = ended.wait_for(|ended| *ended) => {}
        }
        if *ended.borrow() {
            session.close("the function is done with");
        }
        true
    }

    /// Tries for as long as it takes. None: the function is closed, or its device is another one now.
    async fn attach_again(&self, lost: &Session, backoff: &mut Backoff) -> Option<(Session, Leg)> {
        let mut tries = Tries {
            keeper: self,
            given_back: false,
            takeover: takeover_after(lost),
            said: String::new(),
        };
        let mut ended = self.device.latch.ended();
        let target = self.target();
        tracing::warn!(device = %target, "the function is latched failed until its guest resets it; its device has to be attached again");
        let attached = async {
            loop {
                tokio::time::sleep(backoff.next_delay()).await;
                match tries.attach(&target).await {
                    Ok(attached) => return attached,
                    Err(error) => tries.report(&error),
                }
            }
        };
        tokio::select! {
            attached = attached => attached,
            _ = ended.wait_for(|ended| *ended) => None,
        }
    }

    /// The device that the guest has seen, whatever was asked for at first.
    fn target(&self) -> Target {
        Target::Device(self.holding.grant().attachment.device_id)
    }
}

/// A newer process of our identity has the device: it keeps it, as long as it lives.
fn takeover_after(lost: &Session) -> Takeover {
    match lost.closed_by() {
        Some(CloseCode::Superseded) => Takeover::Never,
        _ => Takeover::OlderProcess,
    }
}

struct Tries<'a, B> {
    keeper: &'a Keeper<B>,
    /// The lost session was.
    given_back: bool,
    takeover: Takeover,
    /// The last failure that people were told of.
    said: String,
}

impl<B: Bus> Tries<'_, B> {
    /// One try. `Ok(None)`: there is no point in another.
    async fn attach(&mut self, target: &Target) -> Result<Option<(Session, Leg)>, AttachError> {
        let Keeper {
            device,
            options,
            holding,
            ..
        } = self.keeper;
        if !self.given_back {
            holding.grant().give_back(options).await?;
            self.given_back = true;
        }
        let (grant, leg) = grant_by_any(options, target, self.takeover).await?;
        if let Some(difference) = device.descriptor().difference(&grant.attachment.descriptor) {
            tracing::error!(
                device = %target, %difference,
                "the device is another than the guest has seen: it is lost for good; unplug it, and attach it anew"
            );
            device.give_up();
            if let Err(error) = grant.give_back(options).await {
                tracing::warn!(%error, "detach; the broker's grace period ends the claim");
            }
            return Ok(None);
        }
        let session = grant.session(options);
        holding.replace(grant);
        Ok(Some((session, leg)))
    }

    fn report(&mut self, error: &AttachError) {
        let reason = chain(error);
        if reason == self.said {
            tracing::debug!(reason, "still not attached again");
            return;
        }
        tracing::warn!(reason, "not attached again yet; trying on");
        self.keeper.device.latch.explain(reason.clone());
        self.said = reason;
    }
}
