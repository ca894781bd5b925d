//! Forwarding between two legs, by one task.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use potemkin_proto::v1::{self, CloseCode};
use potemkin_transport::{
    FrameReceiver, FrameSender, FrameStream, MAX_FRAME_BYTES, TransportError,
};
use prost::Message;
use tokio::sync::oneshot;

use super::close::{close_frame, end_stream, lost_path, spoken_in};
use super::header::split_header;
use crate::RESUMABLE;
use crate::core::{Dial, DialRefusal, Traffic, Way};
use crate::metrics::{Meter, Meters};

/// The tag of `Frame.close`, which follows the header of a close frame: field 5, length-delimited.
const CLOSE_TAG: u8 = 0x2a;

/// One leg of a session's way.
pub(super) struct Leg<'a> {
    sender: &'a mut FrameSender,
    receiver: &'a mut FrameReceiver,
}

impl<'a> Leg<'a> {
    pub(super) fn new(stream: &'a mut FrameStream) -> Self {
        Self {
            sender: &mut stream.sender,
            receiver: &mut stream.receiver,
        }
    }
}

/// Both legs, and what every frame is checked against.
pub(super) struct Pump<'a> {
    pub(super) agent: Leg<'a>,
    pub(super) host: Leg<'a>,
    pub(super) dial: Dial,
    /// The highest version that agent and broker share.
    pub(super) agent_version: u32,
    /// The session's version, once the host has chosen it; 0 before.
    pub(super) session_version: u32,
    pub(super) traffic: &'a Traffic,
    pub(super) meters: &'a Meters,
    /// While so many bytes wait for a leg, the other one is not read. The two directions do not care for each other.
    pub(super) queued_bytes_max: usize,
}

/// How a path ended: what each end is told, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    to_agent: Option<DialRefusal>,
    to_host: Option<DialRefusal>,
    /// The host did not even answer: perhaps its connection is dead, and nobody has noticed.
    pub(super) host_is_silent: bool,
}

impl Ended {
    /// One side closed, and the other one has its close frame.
    const CLOSED: Self = Self {
        to_agent: None,
        to_host: None,
        host_is_silent: false,
    };

    fn to(side: Side, reason: DialRefusal) -> Self {
        match side {
            Side::Agent => Self {
                to_agent: Some(reason),
                ..Self::CLOSED
            },
            Side::Host => Self {
                to_host: Some(reason),
                ..Self::CLOSED
            },
        }
    }

    fn both(reason: DialRefusal) -> Self {
        Self {
            to_agent: Some(reason.clone()),
            to_host: Some(reason),
            ..Self::CLOSED
        }
    }

    pub(super) fn unreachable(message: String) -> Self {
        Self::both(reason(CloseCode::Unreachable, message))
    }

    fn silent() -> Self {
        let message = "the host did not accept the session in time".to_owned();
        Self {
            host_is_silent: true,
            ..Self::unreachable(message)
        }
    }

    /// The core ended it, or the broker stops. Only agents go elsewhere: their hosts just lose a path.
    pub(super) fn told(
        word: Result<DialRefusal, oneshot::error::RecvError>,
        agent_version: u32,
    ) -> Self {
        let word = word.unwrap_or_else(|_| crate::broker::stop_refusal());
        Self {
            to_host: Some(lost_path(word.clone())),
            to_agent: Some(spoken_in(agent_version, word)),
            ..Self::CLOSED
        }
    }

    pub(super) fn for_agent(&self) -> DialRefusal {
        let closed = || reason(CloseCode::Normal, String::new());
        self.to_agent.clone().unwrap_or_else(closed)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [&self.to_agent, &self.to_host];
        match reasons.iter().find_map(|reason| reason.as_ref()) {
            None => f.write_str("it was closed"),
            Some(reason) => f.write_str(&reason.message),
        }
    }
}

/// What happened next on the two legs.
enum Event {
    FromAgent(Result<Option<Bytes>, TransportError>),
    FromHost(Result<Option<Bytes>, TransportError>),
    AgentFlushed(Result<(), TransportError>),
    HostFlushed(Result<(), TransportError>),
    AcceptLate,
    Told(Result<DialRefusal, oneshot::error::RecvError>),
}

impl<'a> Pump<'a> {
    /// Sends `first` to the host, then forwards until one side ends. `up` is called when the host has accepted.
    pub(super) async fn run(
        &mut self,
        first: Bytes,
        accept_limit: Duration,
        up: impl FnOnce(),
        end: &mut oneshot::Receiver<DialRefusal>,
    ) -> Ended {
        let opened = self.pass(Side::Agent, first);
        let accepted = match opened {
            Ok(()) => self.accept(accept_limit, end).await,
            Err(ended) => Err(ended),
        };
        if let Err(ended) = accepted {
            return ended;
        }
        up();
        loop {
            // Runs out now and then, so that a session in full flow leaves the thread to the others.
            tokio::task::coop::consume_budget().await;
            let event = self.next(end).await;
            if let Err(ended) = self.handle(event) {
                return ended;
            }
        }
    }

    /// Tells both ends what they have to be told, and ends their streams.
    pub(super) async fn finish(&mut self, ended: &Ended) {
        for (leg, reason) in [
            (&mut self.agent, &ended.to_agent),
            (&mut self.host, &ended.to_host),
        ] {
            if let Some(reason) = reason {
                // A leg that is lost has nobody to tell.
                let _ = leg.sender.send(close_frame(Some(self.dial), reason));
            }
        }
        let (agent, host) = (&mut self.agent, &mut self.host);
        tokio::join!(
            end_stream(agent.sender, agent.receiver),
            end_stream(host.sender, host.receiver)
        );
    }

    /// Waits for the host's first frame; what the agent sends meanwhile waits in its transport.
    async fn accept(
        &mut self,
        limit: Duration,
        end: &mut oneshot::Receiver<DialRefusal>,
    ) -> Result<(), Ended> {
        let late = tokio::time::sleep(limit);
        tokio::pin!(late);
        loop {
            let event = tokio::select! {
                frame = self.host.receiver.recv() => Event::FromHost(frame),
                flushed = self.host.sender.flushed(), if self.host.sender.needs_flush() => {
                    Event::HostFlushed(flushed)
                }
                () = &mut late => Event::AcceptLate,
                word = &mut *end => Event::Told(word),
            };
            if let Event::FromHost(Ok(Some(frame))) = &event {
                self.check_first(frame)?;
                return self.handle(event);
            }
            self.handle(event)?;
        }
    }

    fn check_first(&mut self, frame: &Bytes) -> Result<(), Ended> {
        let decoded = v1::Frame::decode(frame.clone()).unwrap_or_default();
        if let Some(accept) = &decoded.accept {
            self.session_version = accept.version;
        }
        if decoded.accept.is_some() || decoded.close.is_some() {
            return Ok(());
        }
        let message = "frame: the first one carries neither accept nor close";
        Err(self.violation(Side::Host, message))
    }

    async fn next(&mut self, end: &mut oneshot::Receiver<DialRefusal>) -> Event {
        let max = self.queued_bytes_max;
        let (agent, host) = (&mut self.agent, &mut self.host);
        let (to_agent, to_host) = (agent.sender.queued_bytes(), host.sender.queued_bytes());
        let (flush_agent, flush_host) = (agent.sender.needs_flush(), host.sender.needs_flush());
        tokio::select! {
            frame = agent.receiver.recv(), if to_host < max => Event::FromAgent(frame),
            frame = host.receiver.recv(), if to_agent < max => Event::FromHost(frame),
            flushed = host.sender.flushed(), if flush_host => Event::HostFlushed(flushed),
            flushed = agent.sender.flushed(), if flush_agent => Event::AgentFlushed(flushed),
            word = end => Event::Told(word),
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::FromAgent(Ok(Some(frame))) => self.forward(Side::Agent, frame),
            Event::FromHost(Ok(Some(frame))) => self.forward(Side::Host, frame),
            Event::FromAgent(Ok(None)) => Err(Self::finished(Side::Agent)),
            Event::FromHost(Ok(None)) => Err(Self::finished(Side::Host)),
            Event::FromAgent(Err(error)) => Err(self.failed(Side::Agent, &error)),
            Event::FromHost(Err(error)) => Err(self.failed(Side::Host, &error)),
            Event::AgentFlushed(flushed) => flushed.map_err(|e| self.lost(Side::Agent, &e)),
            Event::HostFlushed(flushed) => flushed.map_err(|e| self.lost(Side::Host, &e)),
            Event::AcceptLate => Err(Ended::silent()),
            Event::Told(word) => Err(Ended::told(word, self.agent_version)),
        }
    }

    /// Passes a frame on, if it belongs to this path. A close frame is the last one.
    fn forward(&mut self, from: Side, frame: Bytes) -> Result<(), Ended> {
        let is_close = match self.check(&frame) {
            Ok(body) => body.first() == Some(&CLOSE_TAG),
            Err(problem) => return Err(self.violation(from, &problem)),
        };
        self.pass(from, frame)?;
        if is_close { Err(Ended::CLOSED) } else { Ok(()) }
    }

    fn pass(&mut self, from: Side, frame: Bytes) -> Result<(), Ended> {
        let (target, way, meter) = self.direction(from);
        way.add_frame(frame.len());
        meter.frame(frame.len());
        let sent = target.sender.send(frame);
        sent.map_err(|error| self.lost(from.other(), &error))
    }

    /// Gives what follows the header.
    fn check<'f>(&self, frame: &'f [u8]) -> Result<&'f [u8], String> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(format!("frame: it is longer than {MAX_FRAME_BYTES} bytes"));
        }
        let (header, body) = split_header(frame).map_err(|error| error.to_string())?;
        let (field, is, expected) = if header.session != self.dial.session.0 {
            return Err("header.session_hi, session_lo: another session's".to_owned());
        } else if header.epoch != self.dial.epoch {
            ("epoch", header.epoch, self.dial.epoch)
        } else if header.attach_number != self.dial.attach_number {
            let ours = self.dial.attach_number;
            ("attach_number", header.attach_number.into(), ours.into())
        } else {
            return Ok(body);
        };
        Err(format!(
            "header.{field}: it is {is} on a path of {expected}"
        ))
    }

    fn direction(&mut self, from: Side) -> (&mut Leg<'a>, &'a Way, &'a Meter) {
        match from {
            Side::Agent => (&mut self.host, &self.traffic.forward, &self.meters.forward),
            Side::Host => (&mut self.agent, &self.traffic.reverse, &self.meters.reverse),
        }
    }

    /// A leg's stream ended without a close frame, or gave something that is no frame.
    fn failed(&self, side: Side, error: &TransportError) -> Ended {
        match error {
            TransportError::FrameTooLong { .. }
            | TransportError::Truncated { .. }
            | TransportError::Malformed { .. } => self.violation(side, &error.to_string()),
            error => self.lost(side, error),
        }
    }

    fn lost(&self, side: Side, error: &TransportError) -> Ended {
        self.meters.lost(side.name());
        Ended::to(
            side.other(),
            reason(
                CloseCode::Unreachable,
                format!("the {}'s leg was lost: {error}", side.name()),
            ),
        )
    }

    fn finished(side: Side) -> Ended {
        let message = format!("the {} ended its stream without a close frame", side.name());
        Ended::to(side.other(), reason(CloseCode::Unreachable, message))
    }

    fn violation(&self, offender: Side, problem: &str) -> Ended {
        self.meters.violation(offender.name());
        let to_other = format!("the {} violated the protocol: {problem}", offender.name());
        let to_other = reason(CloseCode::Unreachable, to_other);
        // What came may have been spoilt on its way: then a session that can be resumed need not end for it.
        let code = if self.session_version >= RESUMABLE {
            CloseCode::PathBroken
        } else {
            CloseCode::ProtocolViolation
        };
        let to_offender = reason(code, problem.to_owned());
        match offender {
            Side::Agent => Ended {
                to_agent: Some(to_offender),
                to_host: Some(to_other),
                ..Ended::CLOSED
            },
            Side::Host => Ended {
                to_agent: Some(to_other),
                to_host: Some(to_offender),
                ..Ended::CLOSED
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Agent,
    Host,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Agent => Self::Host,
            Self::Host => Self::Agent,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Host => "host",
        }
    }
}

const fn reason(code: CloseCode, message: String) -> DialRefusal {
    DialRefusal { code, message }
}
