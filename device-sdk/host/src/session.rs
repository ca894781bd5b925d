//! The data plane: a task per session, which owns its stream and calls its device.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use potemkin_proto::v1::CloseCode;
use potemkin_session::host::Host;
use potemkin_session::ids::{Incarnation, SessionId};
use potemkin_transport::{
    FrameStream, Identity, IdentityPattern, SessionHandler, TransportError, TransportKind,
};
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use crate::meters::Meters;
use crate::opening::{Opened, Refusal, decide};
use crate::pool::Pool;
use crate::served::{End, Served};
use crate::tally::Tally;
use crate::turn::take_turn;

/// How long a peer may take for the first frame of a stream that it opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// What the transport's queue gets before it has been flushed. Far below where the transport gives up on the stream.
const QUEUED_BYTES: usize = 1 << 20;
/// A turn at a device that takes longer than this is reported: other guests wait meanwhile.
const SLOW_TURN: Duration = Duration::from_millis(100);

/// A session that is over, for brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) session: SessionId,
    pub(crate) reason: String,
    pub(crate) code: CloseCode,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) pool: Arc<Pool>,
    pub(crate) accept: IdentityPattern,
    pub(crate) incarnation: Incarnation,
    pub(crate) reports: broadcast::Sender<Report>,
    pub(crate) meters: Meters,
    /// The beat counts milliseconds from here.
    pub(crate) started: Instant,
    /// Streams refused so far.
    pub(crate) refused: AtomicU64,
}

/// Serves the streams that brokers open.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(pub(crate) Arc<Desk>);

impl SessionHandler for Sessions {
    async fn session(
        &self,
        peer: Identity,
        kind: TransportKind,
        remote: SocketAddr,
        mut stream: FrameStream,
    ) {
        let desk = &*self.0;
        match open(desk, &peer, &mut stream).await {
            Ok(opened) => serve(desk, &peer, kind, opened, stream).await,
            Err(refusal) => {
                desk.refused(&peer, kind, remote, &refusal);
                if stream.sender.send(refusal.frame()).is_ok() {
                    stream.sender.finish().await;
                }
            }
        }
    }
}

impl Desk {
    /// A flood of bad peers must not become a flood of log lines: of n refusals about log2(n) are logged as information.
    fn refused(&self, peer: &Identity, kind: TransportKind, remote: SocketAddr, why: &Refusal) {
        self.meters.refused_open(why.code);
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let (code, message) = (why.code.as_str_name(), &why.message);
        if count.is_power_of_two() {
            tracing::info!(%peer, %kind, %remote, code, message, count, "session refused");
        } else {
            tracing::debug!(%peer, %kind, %remote, code, message, count, "session refused");
        }
    }

    fn beat(&self) -> u64 {
        // From 1, because 0 says that there is none.
        let elapsed = self.started.elapsed().as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1
    }
}

async fn open(desk: &Desk, peer: &Identity, stream: &mut FrameStream) -> Result<Opened, Refusal> {
    let unread = |problem: String| {
        Refusal::unread(CloseCode::ProtocolViolation, format!("{peer}: {problem}"))
    };
    let first = timeout(OPEN_TIMEOUT, stream.receiver.recv())
        .await
        .map_err(|_| unread("frame: the first one did not come in time".into()))?
        .map_err(|error| unread(format!("frame: {error}")))?
        .ok_or_else(|| unread("frame: the stream ended before the first one".into()))?;
    decide(&desk.pool, &desk.accept, desk.incarnation, peer, first)
}

async fn serve(
    desk: &Desk,
    peer: &Identity,
    kind: TransportKind,
    opened: Opened,
    stream: FrameStream,
) {
    let Opened {
        core,
        served,
        admission,
        agent,
    } = opened;
    let session = core.path().session;
    let device = &served.id;
    tracing::info!(%session, device, %agent, broker = %peer, %kind, epoch = core.path().epoch.0, "session started");
    let seat = Seat::new(desk, &served, admission.serial, session);
    let mut running = Running {
        desk,
        seat,
        peer,
        agent: &agent,
        core,
        stream,
        end: admission.end,
        told_out_of_bounds: false,
        told_dma_failed: false,
        over: None,
    };
    let reason = running.run().await;
    // The device is free before the peer learns that the session is over.
    let code = running.core.closed_with();
    running
        .seat
        .leave(&reason, code.unwrap_or(CloseCode::Unreachable));
    tracing::info!(%session, device, %agent, reason, "session ended");
    running.farewell().await;
}

/// The use of a device, given back on every way out: also when the task is dropped.
struct Seat<'a> {
    desk: &'a Desk,
    served: &'a Served,
    serial: u64,
    session: SessionId,
    left: bool,
}

impl<'a> Seat<'a> {
    fn new(desk: &'a Desk, served: &'a Served, serial: u64, session: SessionId) -> Self {
        desk.meters.session_started();
        Self {
            desk,
            served,
            serial,
            session,
            left: false,
        }
    }

    /// Once; brokers are told, unless the session goes on with another dial.
    fn leave(&mut self, reason: &str, code: CloseCode) {
        if mem::replace(&mut self.left, true) {
            return;
        }
        if self.served.leave(self.serial, self.session) {
            let report = Report {
                session: self.session,
                reason: reason.to_owned(),
                code,
            };
            // Nobody listens while no broker is connected.
            let _ = self.desk.reports.send(report);
        }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.leave("dropped by the host", CloseCode::Unreachable);
        self.desk.meters.session_ended();
    }
}

struct Running<'a> {
    desk: &'a Desk,
    seat: Seat<'a>,
    peer: &'a Identity,
    agent: &'a Identity,
    core: Host,
    stream: FrameStream,
    end: oneshot::Receiver<End>,
    told_out_of_bounds: bool,
    told_dma_failed: bool,
    /// The session is over, as soon as what is queued is sent, and why.
    over: Option<String>,
}

/// What wakes a session.
enum Event {
    Told(Option<End>),
    Frame(Result<Option<Bytes>, TransportError>),
    Flushed(Result<(), TransportError>),
    /// The device has started something by itself.
    Called,
    /// There was more to do.
    Again,
}

impl Running<'_> {
    /// Serves until the session is over; says why it is.
    async fn run(&mut self) -> String {
        loop {
            let mut more = self.turn();
            let backlog = self.core.dma_backlog();
            if let Err(error) = self.transmit() {
                return format!("cannot send: {error}");
            }
            // What went out made room: the device may be waiting for it.
            more |= self.core.dma_backlog() < backlog;
            if let Some(reason) = self.over.take() {
                return reason;
            }
            match self.event(more).await {
                Event::Again | Event::Flushed(Ok(())) => {}
                // A device that never stops has its turns, and others theirs.
                Event::Called => tokio::task::yield_now().await,
                Event::Frame(Ok(Some(frame))) => {
                    if let Some(reason) = self.take(frame) {
                        return reason;
                    }
                }
                Event::Frame(Ok(None)) => return "the stream ended".into(),
                Event::Frame(Err(error)) => return self.broken(&error),
                Event::Flushed(Err(error)) => return format!("the stream was lost: {error}"),
                Event::Told(end) => return self.told(end),
            }
        }
    }

    async fn event(&mut self, more: bool) -> Event {
        let FrameStream { sender, receiver } = &mut self.stream;
        let unsent = sender.needs_flush();
        tokio::select! {
            // Answers first: what they free lets the peer go on. Reading goes on even while the peer takes nothing.
            biased;
            end = &mut self.end => Event::Told(end.ok()),
            result = sender.flushed(), if unsent => Event::Flushed(result),
            frame = receiver.recv() => Event::Frame(frame),
            // After frames: each of these leads to a turn too, so neither keeps the other waiting.
            () = self.seat.served.called() => Event::Called,
            () = tokio::task::yield_now(), if more => Event::Again,
        }
    }

    /// Lets the device do what was received. True: there may be more.
    fn turn(&mut self) -> bool {
        let started = Instant::now();
        let core = &mut self.core;
        let turn = self.seat.served.with(self.seat.serial, |device, outbox| {
            take_turn(core, device, outbox)
        });
        // Who was shut out hears of it next.
        let Ok(tally) = turn else { return false };
        if !tally.is_empty() {
            self.desk.meters.executed(&tally);
            self.notice(&tally, started.elapsed());
        }
        // It may have failed by itself, in a notification or because there was room.
        if tally.device_failed {
            let message = format!("host: the device {} has failed", self.seat.served.id);
            self.core.close(CloseCode::Unreachable, message.clone());
            self.over = Some(message);
        }
        tally.more && !tally.is_empty()
    }

    fn notice(&mut self, tally: &Tally, took: Duration) {
        let (session, device) = (self.core.path().session, &self.seat.served.id);
        if took > SLOW_TURN {
            self.desk.meters.slow_turn();
            tracing::debug!(%session, device, took_ms = took.as_millis(), "callbacks of the device took long");
        }
        if tally.out_of_bounds > 0 && !self.told_out_of_bounds {
            self.told_out_of_bounds = true;
            let agent = self.agent;
            tracing::warn!(%session, device, %agent, "agent asks for what the device's descriptor does not offer: answered with all-ones");
        }
        for (error, count) in tally.traffic.failures() {
            let reason = error.to_string();
            if mem::replace(&mut self.told_dma_failed, true) {
                tracing::debug!(%session, device, reason, count, "DMA failed");
            } else {
                tracing::warn!(%session, device, reason, count, "DMA failed; more of this session at level debug");
            }
        }
    }

    /// Queues what is to be sent, as far as the transport's queue should hold it: an agent may have more room than that.
    fn transmit(&mut self) -> Result<(), TransportError> {
        self.core.set_beat(self.desk.beat());
        while self.stream.sender.queued_bytes() < QUEUED_BYTES
            && let Some(frame) = self.core.poll_transmit()
        {
            self.desk.meters.sent(frame.len());
            self.stream.sender.send(frame)?;
        }
        Ok(())
    }

    /// Some: the session is over, and why.
    fn take(&mut self, frame: Bytes) -> Option<String> {
        self.desk.meters.received(frame.len());
        match self.core.handle_frame(frame) {
            Ok(()) => self.core.is_closed().then(|| "closed by the agent".into()),
            Err(violation) => Some(self.violated(&violation.to_string())),
        }
    }

    fn violated(&mut self, violation: &str) -> String {
        self.desk.meters.violation();
        let (session, device) = (self.core.path().session, &self.seat.served.id);
        let (agent, broker) = (self.agent, self.peer);
        tracing::warn!(%session, device, %agent, %broker, violation, "session closed: protocol violation");
        format!("protocol violation: {violation}")
    }

    /// The transport gave up on the stream.
    fn broken(&mut self, error: &TransportError) -> String {
        let peers_fault = matches!(
            error,
            TransportError::FrameTooLong { .. }
                | TransportError::Truncated { .. }
                | TransportError::Malformed { .. }
        );
        if !peers_fault {
            return format!("the stream was lost: {error}");
        }
        let message = format!("host: {}: frame: {error}", self.peer);
        self.core.close(CloseCode::ProtocolViolation, message);
        self.violated(&format!("frame: {error}"))
    }

    fn told(&mut self, end: Option<End>) -> String {
        let end = end.unwrap_or_else(|| End {
            code: CloseCode::Unreachable,
            message: "host: the device is not served any more".into(),
        });
        self.core.close(end.code, end.message.clone());
        end.message
    }

    /// Sends what is left, a `close` frame in most cases, and ends the stream.
    async fn farewell(mut self) {
        if self.transmit().is_ok() {
            self.stream.sender.finish().await;
        }
    }
}
