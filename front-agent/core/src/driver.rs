//! Moves frames between a session and its transport stream. Thin: what is sent when is the core's business.

use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

use potemkin_session::front::FrontState;
use potemkin_transport::{FrameStream, TransportError};
use tokio::time::{Sleep, sleep_until};

use crate::{bus::Bus, device::FrontDevice, session::Session};

/// Runs a device's session on its stream until it is closed or contained. What waits then has been answered.
///
/// `bus` is what the VMM does for the device; it is called from here. If it panics, or the future is dropped, the session is lost: what waits
/// is answered then too.
pub async fn drive(device: Arc<FrontDevice>, stream: FrameStream, bus: impl Bus) {
    let _answer = Answer(device.session());
    run(&device, stream, &bus).await;
    // A device that is gone interrupts nobody.
    device.lower_intx();
    device.settle_intx(&bus);
}

/// Answers whoever waits when the driver ends before its session has.
struct Answer<'a>(&'a Session);

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(state.core.state(), FrontState::Opening | FrontState::Live) {
            state.core.handle_lost("the session's driver ended early");
            // What the device started itself has nobody to carry it out.
            while state.dispatch().is_some() {}
        }
    }
}

async fn run(device: &Arc<FrontDevice>, mut stream: FrameStream, bus: &impl Bus) {
    let session = device.session().clone();
    let lose = |reason: &str| {
        session.lock().core.handle_lost(reason);
        settle(device, bus);
    };
    let mut alarm = Alarm::default();
    loop {
        settle(device, bus);
        if let Err(error) = transmit(&session, &mut stream) {
            return lose(&broker(&error));
        }
        let (state, timeout) = {
            let state = session.lock();
            (state.core.state(), state.core.poll_timeout())
        };
        if matches!(state, FrontState::Contained | FrontState::Closed) {
            // The last frame says why; whether it arrives is no longer ours to wait for beyond the transport's own bound.
            stream.sender.finish().await;
            return;
        }
        alarm.set(timeout);
        let sending = stream.sender.needs_flush();
        tokio::select! {
            received = stream.receiver.recv() => match received {
                Ok(Some(frame)) => {
                    if let Err(violation) = session.lock().core.handle_frame(frame) {
                        tracing::warn!(%violation, "the host broke the protocol");
                    }
                }
                Ok(None) => return lose("broker: the stream ended"),
                Err(error) => return lose(&broker(&error)),
            },
            () = session.kicked() => {}
            flushed = stream.sender.flushed(), if sending => {
                if let Err(error) = flushed {
                    return lose(&broker(&error));
                }
            }
            () = alarm.rings() => session.lock().core.handle_timeout(Instant::now()),
        }
    }
}

/// Hands every frame that is ready to the transport.
fn transmit(session: &Session, stream: &mut FrameStream) -> Result<(), TransportError> {
    let now = Instant::now();
    let mut state = session.lock();
    while let Some(frame) = state.core.poll_transmit(now) {
        stream.sender.send(frame)?;
    }
    Ok(())
}

/// Hands out what happened, in order. The session is not locked while the guest's memory is touched.
fn settle(device: &Arc<FrontDevice>, bus: &impl Bus) {
    loop {
        let upstream = device.session().lock().dispatch();
        match upstream {
            Some(upstream) => device.carry_out(upstream, bus),
            None => break,
        }
    }
    device.settle_msi(bus);
    device.settle_intx(bus);
}

/// What fails here is the leg to the broker; what fails behind it comes as a close frame.
fn broker(error: &TransportError) -> String {
    format!("broker: {error}")
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
