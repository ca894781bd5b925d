//! Moves frames between a session and its transport stream, and dials another when that is lost or stands still. Thin: what is sent when,
//! and when another path is wanted, is the core's business.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use potemkin_session::front::FrontState;
use potemkin_transport::{FrameReceiver, FrameSender, TransportError};
use tokio::time::{Sleep, sleep_until};

use crate::{
    bus::Bus,
    device::FrontDevice,
    leg::Leg,
    redial::{Found, Redial},
    remote::RemoteOptions,
    session::Session,
};

/// Runs a device's session, at first on this leg, until it is closed or contained. What waits then has been answered. When the leg is lost, or
/// stands still, others are dialled as `options` say, and the session goes on over the first that its host accepts.
///
/// `bus` is what the VMM does for the device; it is called from here. If it panics, or the future is dropped, the session is lost: what waits
/// is answered then too.
pub async fn drive(device: Arc<FrontDevice>, leg: Leg, options: RemoteOptions, bus: impl Bus) {
    let session = device.session();
    let begin = Begin::Leg(Box::new(leg));
    drive_session(&device, &session, begin, options, &bus).await;
}

/// Where a driver begins.
#[derive(Debug)]
pub(crate) enum Begin {
    /// With a path.
    Leg(Box<Leg>),
    /// Without: the session is looking for one. The broker with this index had the last.
    Search(usize),
}

/// The same for a session that the device may not have yet, or that has no path.
pub(crate) async fn drive_session(
    device: &Arc<FrontDevice>,
    session: &Session,
    begin: Begin,
    options: RemoteOptions,
    bus: &impl Bus,
) {
    let _answer = Answer(session);
    let last = Driver::new(device, session, begin, options, bus)
        .run()
        .await;
    // A device that is gone interrupts nobody.
    device.lower_intx();
    device.settle_intx(bus);
    let Some(leg) = last else { return };
    // The last frame says why.
    if session.state() == FrontState::Closed {
        leg.end().await;
    } else {
        // Most likely nobody takes it, and the VMM waits to hear that the device is gone.
        leg.retire();
    }
}

/// Answers whoever waits when the driver ends before its session has.
struct Answer<'a>(&'a Session);

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.core.is_live() {
            state.core.abandon("the session's driver ended early");
            // What the device started itself has nobody to carry it out.
            while state.dispatch().is_some() {}
        }
    }
}

/// How long a path that is given up may take to end.
const PARTING: Duration = Duration::from_millis(20);

struct Driver<'a, B> {
    device: &'a Arc<FrontDevice>,
    session: Session,
    bus: &'a B,
    leg: Option<Leg>,
    redial: Redial,
    /// A session ends with its path.
    ends_with_path: bool,
    alarm: Alarm,
}

/// Where the session stands.
struct Stand {
    state: FrontState,
    timeout: Option<Instant>,
    wants_path: bool,
}

impl<'a, B: Bus> Driver<'a, B> {
    fn new(
        device: &'a Arc<FrontDevice>,
        session: &Session,
        begin: Begin,
        options: RemoteOptions,
        bus: &'a B,
    ) -> Self {
        let session = session.clone();
        let (leg, in_use) = match begin {
            Begin::Leg(leg) => {
                session.lock().link.route = Some(leg.route.clone());
                let broker = leg.broker;
                (Some(*leg), broker)
            }
            // Nothing is wrong with that one: it comes first.
            Begin::Search(last) => {
                let brokers = options.brokers.len().max(1);
                (None, (last % brokers + brokers - 1) % brokers)
            }
        };
        Self {
            device,
            ends_with_path: options.resume_window.is_zero(),
            redial: Redial::new(Arc::new(options), in_use, session.clone()),
            session,
            bus,
            leg,
            alarm: Alarm::default(),
        }
    }

    /// Gives the leg that is left at the end.
    async fn run(mut self) -> Option<Leg> {
        loop {
            settle(self.device, &self.session, self.bus);
            if self.session.is_to_stand(self.ends_with_path) {
                self.stand_still().await;
                continue;
            }
            let stand = match self.transmit() {
                Ok(stand) => stand,
                Err(error) => {
                    self.lose(&error.to_string());
                    continue;
                }
            };
            if matches!(stand.state, FrontState::Contained | FrontState::Closed) {
                return self.leg;
            }
            if (stand.wants_path || self.redial.is_searching()) && !self.search(&stand) {
                continue;
            }
            self.alarm.set(stand.timeout);
            let dials = stand.wants_path && self.redial.is_searching();
            self.step(dials).await;
        }
    }

    /// Gives the path up, carries out what came on it, and waits until it may go on.
    async fn stand_still(&mut self) {
        self.redial.rest();
        if let Some(leg) = self.leg.take() {
            // What was sent last arrives, most likely; if not, it is sent again.
            let _ = tokio::time::timeout(PARTING, leg.end()).await;
        }
        self.session
            .lock()
            .core
            .handle_lost("given up by this agent, for a while");
        settle(self.device, &self.session, self.bus);
        self.session.stands();
        while self.session.is_to_stand(false) {
            self.session.kicked().await;
        }
    }

    /// Hands every frame that is ready to the transport.
    fn transmit(&mut self) -> Result<Stand, TransportError> {
        let mut state = self.session.lock();
        if let Some(leg) = &mut self.leg {
            let now = Instant::now();
            while let Some(frame) = state.core.poll_transmit(now) {
                leg.stream.sender.send(frame)?;
            }
        }
        Ok(Stand {
            state: state.core.state(),
            timeout: state.core.poll_timeout(),
            wants_path: state.core.wants_path(),
        })
    }

    /// Waits until something happens, and takes it.
    async fn step(&mut self, dials: bool) {
        let (sender, receiver) = match &mut self.leg {
            Some(leg) => (Some(&mut leg.stream.sender), Some(&mut leg.stream.receiver)),
            None => (None, None),
        };
        let sending = sender.as_ref().is_some_and(|sender| sender.needs_flush());
        tokio::select! {
            received = receive(receiver) => match received {
                Ok(Some(frame)) => self.take_frame(frame),
                Ok(None) => self.lose("the stream ended"),
                Err(error) => self.lose(&error.to_string()),
            },
            () = self.session.kicked() => {}
            flushed = flush(sender), if sending => {
                if let Err(error) = flushed {
                    self.lose(&error.to_string());
                }
            }
            () = self.alarm.rings() => self.session.lock().core.handle_timeout(Instant::now()),
            found = self.redial.found(), if dials => match found {
                Found::Leg(leg) => self.take_leg(*leg),
                Found::Nothing => self.abandon(),
            },
        }
    }

    fn take_frame(&mut self, frame: Bytes) {
        if let Err(violation) = self.session.lock().core.handle_frame(frame) {
            tracing::warn!(%violation, "the host broke the protocol");
        }
    }

    /// The leg to the broker failed. (What fails behind it comes as a close frame.)
    fn lose(&mut self, reason: &str) {
        let reason = format!("broker: {reason}");
        self.session.lock().core.handle_lost(&reason);
        self.leg = None;
    }

    /// Another path is wanted, or was. False: the session has changed by this.
    fn search(&mut self, stand: &Stand) -> bool {
        if !stand.wants_path {
            if stand.state == FrontState::Live {
                self.redial.rest();
                self.session.lock().link.recover();
            }
            return true;
        }
        if stand.state == FrontState::Interrupted {
            if let Some(leg) = self.leg.take() {
                // Its last frame may say what is wrong with it.
                leg.retire();
            }
            if self.redial.is_off() {
                self.abandon();
                return false;
            }
        }
        if self.redial.is_off() {
            return true;
        }
        let mut state = self.session.lock();
        if stand.state == FrontState::Live {
            state
                .link
                .interrupt("no answer for a quarter of the deadline");
        }
        let urgent = state.core.is_urgent();
        drop(state);
        self.redial.want(urgent);
        true
    }

    /// From here on the session goes through this leg. The old one may be alive all the same: nothing that comes from there counts.
    fn take_leg(&mut self, leg: Leg) {
        let mut state = self.session.lock();
        // It may have ended by another thread's hand, or go on as it is.
        if state.core.wants_path() {
            state.core.dial(Instant::now());
            state.link.route = Some(leg.route.clone());
            drop(state);
            self.leg = Some(leg);
        }
    }

    fn abandon(&mut self) {
        let mut state = self.session.lock();
        let why = match &state.link.interrupted {
            Some(interrupted) => interrupted.reason.clone(),
            None => "the path is lost".to_owned(),
        };
        state
            .core
            .abandon(&format!("{why}; no other path was found"));
    }
}

async fn receive(receiver: Option<&mut FrameReceiver>) -> Result<Option<Bytes>, TransportError> {
    match receiver {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

async fn flush(sender: Option<&mut FrameSender>) -> Result<(), TransportError> {
    match sender {
        Some(sender) => sender.flushed().await,
        None => Ok(()),
    }
}

/// Hands out what happened, in order. The session is not locked while the guest's memory is touched.
fn settle(device: &Arc<FrontDevice>, session: &Session, bus: &impl Bus) {
    loop {
        let upstream = session.lock().dispatch();
        match upstream {
            Some(upstream) => device.carry_out(session, upstream, bus),
            None => break,
        }
    }
    device.settle_msi(bus);
    device.settle_intx(bus);
}

/// A timer that is moved only when it must ring earlier: most deadlines are met, and setting a timer for each access costs.
#[derive(Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    wanted: bool,
}

impl Alarm {
    fn set(&mut self, timeout: Option<Instant>) {
        self.wanted = timeout.is_some();
        let Some(timeout) = timeout.map(tokio::time::Instant::from_std) else {
            return;
        };
        match &mut self.sleep {
            None => self.sleep = Some(Box::pin(sleep_until(timeout))),
            Some(sleep) if sleep.deadline() > timeout || sleep.is_elapsed() => {
                sleep.as_mut().reset(timeout);
            }
            Some(_) => {}
        }
    }

    /// Ready when time is up, perhaps early: the core looks at the clock itself.
    fn rings(&mut self) -> impl Future<Output = ()> + '_ {
        let sleep = self.sleep.as_mut().filter(|_| self.wanted);
        async move {
            match sleep {
                Some(sleep) => sleep.as_mut().await,
                None => std::future::pending().await,
            }
        }
    }
}
