//! Devices of the configuration that could not be attached yet: tried again until they are, or are detached.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use potemkin_front_core::Backoff;
use potemkin_service::admin::{AttachRequest, Counters, DeviceState, DeviceStatus};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Slot},
    millis,
    served::{Order, ServeError, Served},
};

/// A device whose attach is tried again and again.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// What was asked for.
    pub(crate) order: Order,
    /// Why the last try failed.
    reason: String,
    since: Instant,
    next_try: Instant,
    /// Ends the tries.
    pub(crate) cancel: CancellationToken,
}

impl Waiting {
    pub(crate) fn status(&self, name: &str) -> DeviceStatus {
        let until = self.next_try.saturating_duration_since(Instant::now());
        DeviceStatus {
            name: name.to_owned(),
            device: self.order.target.to_string(),
            socket: self.order.socket.clone(),
            session: String::new(),
            epoch: 0,
            state: DeviceState::Waiting,
            reason: Some(self.reason.clone()),
            state_age_ms: Some(millis(self.since.elapsed())),
            next_try_ms: Some(millis(until)),
            broker: String::new(),
            transport: String::new(),
            counters: Counters::default(),
        }
    }
}

impl Agent {
    /// Attaches a device of the configuration. When the first try fails for a reason that may pass, a task goes on trying and
    /// this is done; any other error is for people.
    pub(crate) async fn attach_configured(
        self: Arc<Self>,
        request: AttachRequest,
    ) -> Result<(), String> {
        let order = self.order(request)?;
        self.reserve(&order.name)?;
        match Served::start(order.clone(), self.begin()).await {
            Ok(served) => self.insert(served),
            Err(error) if error.may_pass() && !self.is_stopping() => {
                let first = self.wait(&order, &error);
                tokio::spawn(self.keep_trying(order, first));
            }
            Err(error) => {
                self.lock().remove(&order.name);
                return Err(potemkin_service::runtime::chain(&error));
            }
        }
        Ok(())
    }

    /// Marks a device as waiting after its first try.
    fn wait(&self, order: &Order, error: &ServeError) -> Tries {
        let mut backoff = Backoff::default();
        let delay = backoff.next_delay();
        let cancel = self.stopping.child_token();
        let reason = one_line(error);
        report(order, &reason, delay);
        let now = Instant::now();
        let waiting = Waiting {
            order: order.clone(),
            reason,
            since: now,
            next_try: now + delay,
            cancel: cancel.clone(),
        };
        self.lock()
            .insert(order.name.clone(), Slot::Waiting(Box::new(waiting)));
        Tries {
            backoff,
            delay,
            cancel,
        }
    }

    /// Even a refusal that looks final does not end the tries: the agent runs by now, and whoever mends the broker's rules need not
    /// come here.
    async fn keep_trying(self: Arc<Self>, order: Order, mut tries: Tries) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(tries.delay) => {}
                () = tries.cancel.cancelled() => return,
            }
            let mut start = self.begin();
            start.stop = tries.cancel.child_token();
            match Served::start(order.clone(), start).await {
                Ok(served) => return self.settle(served, &tries.cancel).await,
                Err(_) if tries.cancel.is_cancelled() => return,
                Err(error) => {
                    tries.delay = tries.backoff.next_delay();
                    self.still_waiting(&order, &error, tries.delay);
                }
            }
        }
    }

    fn still_waiting(&self, order: &Order, error: &ServeError, delay: Duration) {
        let reason = one_line(error);
        // Gone when it was detached just now; the caller finds out.
        if let Some(Slot::Waiting(waiting)) = self.lock().get_mut(&order.name) {
            waiting.next_try = Instant::now() + delay;
            if waiting.reason == reason {
                tracing::debug!(name = order.name, reason, "still waiting");
            } else {
                report(order, &reason, delay);
                waiting.reason = reason;
            }
        }
    }

    /// The device is attached; it may have been detached in the meantime.
    async fn settle(&self, served: Served, cancel: &CancellationToken) {
        let mut devices = self.lock();
        if cancel.is_cancelled() {
            drop(devices);
            return served.stop().await;
        }
        served.announce();
        devices.insert(served.order.name.clone(), Slot::Serving(Box::new(served)));
    }
}

/// The tries of one device.
struct Tries {
    backoff: Backoff,
    /// Before the next try.
    delay: Duration,
    cancel: CancellationToken,
}

fn report(order: &Order, reason: &str, delay: Duration) {
    tracing::warn!(
        name = order.name,
        device = %order.target,
        brokers = order.remote.broker_names(),
        reason,
        next_try_ms = millis(delay),
        "not attached yet; trying again"
    );
}

/// The error and its causes.
fn one_line(error: &ServeError) -> String {
    potemkin_service::runtime::chain(error).replace("\n  caused by", "")
}
