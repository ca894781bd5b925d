//! A session: the task that owns it, its path and the use of its device.

use std::mem;
use std::time::{Duration, Instant};

use bytes::Bytes;
use potemkin_proto::v1::CloseCode;
use potemkin_session::host::{Host, Opening};
use potemkin_session::ids::SessionId;
use potemkin_transport::{FrameStream, Identity, TransportError, TransportKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;

use crate::live::LiveSession;
use crate::opening::Begun;
use crate::served::{End, Served};
use crate::session::{Desk, Report};
use crate::tally::Tally;
use crate::turn::take_turn;

/// What the transport's queue gets before it has been flushed. Far below where the transport gives up on the stream.
const QUEUED_BYTES: usize = 1 << 20;
/// A turn at a device that takes longer than this is reported: other guests wait meanwhile.
const SLOW_TURN: Duration = Duration::from_millis(100);

/// A stream that a broker opened for a session.
#[derive(Debug)]
pub(crate) struct NewPath {
    /// What it says; taken already when it is the session's first.
    pub(crate) opening: Option<Box<Opening>>,
    /// The broker.
    pub(crate) peer: Identity,
    pub(crate) kind: TransportKind,
    pub(crate) stream: FrameStream,
}

/// Serves a session from its first path to its end.
pub(crate) async fn serve(desk: &Desk, begun: Begun, first: NewPath) {
    let Begun {
        core,
        served,
        admission,
        agent,
    } = begun;
    let session = core.path().session;
    let device = &served.id;
    let (broker, kind) = (&first.peer, first.kind);
    tracing::info!(%session, device, %agent, %broker, %kind, epoch = core.path().epoch.0, "session started");
    let seat = Seat::new(desk, &served, admission.serial, session);
    if core.is_resumable() {
        // Others may have to route its next path.
        desk.live.started(LiveSession {
            session,
            device: device.clone(),
            epoch: core.path().epoch,
            agent: agent.clone(),
        });
    }
    let mut running = Running {
        desk,
        seat,
        peer: first.peer,
        agent: &agent,
        core,
        stream: Some(first.stream),
        paths: admission.paths,
        without_path: None,
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
            self.desk.live.ended(self.session);
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
    /// The broker of the newest path.
    peer: Identity,
    agent: &'a Identity,
    core: Host,
    /// The path, if there is one.
    stream: Option<FrameStream>,
    paths: mpsc::Receiver<NewPath>,
    /// Since when there is none.
    without_path: Option<Instant>,
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
    NewPath(NewPath),
    /// For too long there was no path.
    GraceOver,
}

impl Running<'_> {
    /// Serves until the session is over; says why it is.
    async fn run(&mut self) -> String {
        loop {
            let mut more = self.turn();
            let backlog = self.core.dma_backlog();
            if let Err(error) = self.transmit()
                && let Some(reason) = self.lose(format!("cannot send: {error}"))
            {
                return reason;
            }
            if self.core.closed_with() == Some(CloseCode::ProtocolViolation) {
                return self.violated("header.acknowledged: too much is unacknowledged");
            }
            // What went out made room: the device may be waiting for it.
            more |= self.core.dma_backlog() < backlog;
            if let Some(reason) = self.over.take() {
                return reason;
            }
            let event = self.event(more).await;
            if let Some(reason) = self.handle(event).await {
                return reason;
            }
        }
    }

    /// Some: the session is over, and why.
    async fn handle(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Again | Event::Flushed(Ok(())) => None,
            // A device that never stops has its turns, and others theirs.
            Event::Called => {
                tokio::task::yield_now().await;
                None
            }
            Event::Frame(Ok(Some(frame))) => self.take(frame),
            Event::Frame(Ok(None)) => self.lose("the stream ended".into()),
            Event::Frame(Err(error)) => self.broken(&error),
            Event::Flushed(Err(error)) => self.lose(format!("the stream was lost: {error}")),
            Event::Told(end) => Some(self.told(end)),
            Event::NewPath(path) => self.go_on(path),
            Event::GraceOver => {
                let message = format!("host: no path for {} ms", self.desk.grace.as_millis());
                self.core.close(CloseCode::Unreachable, message.clone());
                Some(message)
            }
        }
    }

    async fn event(&mut self, more: bool) -> Event {
        let grace = self.without_path.map(|since| since + self.desk.grace);
        let (seat, paths, end) = (&self.seat, &mut self.paths, &mut self.end);
        let Some(FrameStream { sender, receiver }) = &mut self.stream else {
            return tokio::select! {
                biased;
                end = end => Event::Told(end.ok()),
                Some(path) = paths.recv() => Event::NewPath(path),
                () = seat.served.called() => Event::Called,
                () = tokio::task::yield_now(), if more => Event::Again,
                () = over(grace) => Event::GraceOver,
            };
        };
        let unsent = sender.needs_flush();
        tokio::select! {
            // Answers first: what they free lets the peer go on. Reading goes on even while the peer takes nothing.
            biased;
            end = end => Event::Told(end.ok()),
            Some(path) = paths.recv() => Event::NewPath(path),
            result = sender.flushed(), if unsent => Event::Flushed(result),
            frame = receiver.recv() => Event::Frame(frame),
            // After frames: each of these leads to a turn too, so neither keeps the other waiting.
            () = seat.served.called() => Event::Called,
            () = tokio::task::yield_now(), if more => Event::Again,
        }
    }

    /// The path is gone. Some: the session with it, and why. Else it waits for another; what it has received is executed meanwhile.
    fn lose(&mut self, reason: String) -> Option<String> {
        let stream = self.stream.take();
        if !self.core.is_resumable() || self.desk.grace.is_zero() || self.core.is_closed() {
            self.stream = stream;
            return Some(reason);
        }
        if let Some(stream) = stream {
            self.let_go(stream);
            self.without_path = Some(Instant::now());
            let (session, device) = (self.core.path().session, &self.seat.served.id);
            tracing::info!(%session, device, reason, grace_ms = self.desk.grace.as_millis(), "path lost: the session waits for another");
            self.desk.meters.path_lost();
        }
        self.core.suspend();
        None
    }

    /// Ends a stream that is not used any more, with what the core has to say on it. Whether that arrives is not waited for.
    fn let_go(&mut self, mut stream: FrameStream) {
        while !self.core.is_connected()
            && let Some(frame) = self.core.poll_transmit()
        {
            // It may be gone already.
            let _ = stream.sender.send(frame);
        }
        tokio::spawn(async move { stream.sender.finish().await });
    }

    /// A newer path: the older is closed before it is answered. Some: the session is over, and why.
    fn go_on(&mut self, path: NewPath) -> Option<String> {
        let opening = path.opening?;
        if let Some(older) = self.stream.take() {
            self.core.leave_path(opening.path.attach_number);
            self.let_go(older);
        }
        let was_without = self.without_path.take().map(|since| since.elapsed());
        self.peer = path.peer;
        self.stream = Some(path.stream);
        if let Err(violation) = self.core.resume(&opening, self.desk.beat()) {
            return Some(self.violated(&violation.to_string()));
        }
        let (session, device) = (self.core.path().session, &self.seat.served.id);
        let (broker, kind) = (&self.peer, path.kind);
        let without_path_ms = was_without.unwrap_or_default().as_millis();
        let attach_number = self.core.path().attach_number.0;
        tracing::info!(%session, device, %broker, %kind, attach_number, without_path_ms, "session resumed");
        self.desk.meters.resumed();
        None
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
            // Nothing comes back on another path.
            let code = if self.core.is_resumable() {
                CloseCode::UnknownSession
            } else {
                CloseCode::Unreachable
            };
            self.core.close(code, message.clone());
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
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        self.core.set_beat(self.desk.beat());
        while stream.sender.queued_bytes() < QUEUED_BYTES
            && let Some(frame) = self.core.poll_transmit()
        {
            self.desk.meters.sent(frame.len());
            stream.sender.send(frame)?;
        }
        Ok(())
    }

    /// Some: the session is over, and why.
    fn take(&mut self, frame: Bytes) -> Option<String> {
        self.desk.meters.received(frame.len());
        self.core.set_beat(self.desk.beat());
        let result = self.core.handle_frame(frame);
        match result {
            Ok(()) if self.core.is_closed() => Some("closed by the agent".into()),
            Ok(()) if self.core.is_connected() => None,
            Ok(()) => self.lose("the broker lost the agent's leg".into()),
            Err(violation) if self.core.is_closed() => Some(self.violated(&violation.to_string())),
            Err(violation) => {
                let violation = violation.to_string();
                let (agent, broker) = (self.agent, &self.peer);
                let session = self.core.path().session;
                tracing::warn!(%session, %agent, %broker, violation, "path broken");
                self.lose(format!("the path is broken: {violation}"))
            }
        }
    }

    fn violated(&mut self, violation: &str) -> String {
        self.desk.meters.violation();
        let (session, device) = (self.core.path().session, &self.seat.served.id);
        let (agent, broker) = (self.agent, &self.peer);
        tracing::warn!(%session, device, %agent, %broker, violation, "session closed: protocol violation");
        format!("protocol violation: {violation}")
    }

    /// The transport gave up on the stream. Some: the session is over, and why.
    fn broken(&mut self, error: &TransportError) -> Option<String> {
        let peers_fault = matches!(
            error,
            TransportError::FrameTooLong { .. }
                | TransportError::Truncated { .. }
                | TransportError::Malformed { .. }
        );
        if !peers_fault || self.core.is_resumable() {
            return self.lose(format!("the stream was lost: {error}"));
        }
        let message = format!("host: {}: frame: {error}", self.peer);
        self.core.close(CloseCode::ProtocolViolation, message);
        Some(self.violated(&format!("frame: {error}")))
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
        if self.transmit().is_ok()
            && let Some(mut stream) = self.stream
        {
            stream.sender.finish().await;
        }
    }
}

/// Ready when the grace is over, if it has begun.
async fn over(grace: Option<Instant>) {
    match grace {
        Some(until) => sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}
