//! A Register stream: hello, heartbeats, fences, and sessions that begin and end.

use std::time::Duration;

use potemkin_proto::v1::control_client::ControlClient;
use potemkin_proto::v1::{
    BrokerMessage, Heartbeat, HostAccepted, HostHello, HostMessage, SessionEnded, broker_message,
    host_message,
};
use potemkin_service::Shutdown;
use potemkin_session::{RESUMABLE, VERSION, VERSION_MIN};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::hello::session;
use super::{Control, ControlError};
use crate::live::News;
use crate::session::Report;

/// Messages that may wait for the broker to read them.
const OUTGOING_MAX: usize = 64;
/// How long a broker may take to accept a registration.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a broker may take to end a stream that this host has ended.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// A lease cannot be kept by a heartbeat that comes more often than this.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);

/// A registration that stands.
#[derive(Debug)]
pub(super) struct Registered {
    outgoing: mpsc::Sender<HostMessage>,
    incoming: Streaming<BrokerMessage>,
    version: u32,
    lease: Duration,
    /// Sessions that end after the hello.
    reports: broadcast::Receiver<Report>,
    /// Sessions that begin after it.
    news: News,
}

/// Says hello and waits for the broker to accept it.
pub(super) async fn register(
    channel: Channel,
    hello: HostHello,
    reports: broadcast::Receiver<Report>,
    news: News,
) -> Result<Registered, ControlError> {
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    // There is room: the channel is empty.
    let _ = outgoing.try_send(message(host_message::Kind::Hello(hello)));
    let accepting = async {
        let mut client = ControlClient::new(channel);
        let reply = client.register(ReceiverStream::new(messages)).await?;
        let mut incoming = reply.into_inner();
        let first = incoming.message().await?.ok_or(ControlError::Ended)?;
        Ok((first, incoming))
    };
    let (first, incoming) =
        timeout(ACCEPT_TIMEOUT, accepting)
            .await
            .unwrap_or(Err(ControlError::TimedOut {
                what: "the answer to hello",
                limit: ACCEPT_TIMEOUT,
            }))?;
    let (version, lease) = read_accepted(first)?;
    Ok(Registered {
        outgoing,
        incoming,
        version,
        lease,
        reports,
        news,
    })
}

impl Registered {
    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    /// Keeps the lease and does what the broker asks, until the stream ends or `stop`.
    pub(super) async fn serve(
        &mut self,
        control: &Control,
        stop: &Shutdown,
    ) -> Result<(), ControlError> {
        let tells_of_sessions = self.tells_of_sessions();
        let mut heartbeat = interval((self.lease / 3).max(HEARTBEAT_MIN));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.farewell().await,
                incoming = self.incoming.message() => {
                    let incoming = incoming?.ok_or(ControlError::Ended)?;
                    self.obey(control, incoming).await?;
                }
                report = self.reports.recv() => self.report(report).await?,
                live = self.news.next(), if tells_of_sessions => {
                    self.send(host_message::Kind::SessionStarted(session(&live))).await?;
                }
                _ = heartbeat.tick() => {
                    self.send(host_message::Kind::Heartbeat(Heartbeat {})).await?;
                }
            }
        }
    }

    /// The broker takes word of sessions that live here.
    fn tells_of_sessions(&self) -> bool {
        self.version >= RESUMABLE
    }

    async fn obey(&self, control: &Control, incoming: BrokerMessage) -> Result<(), ControlError> {
        match incoming.kind {
            Some(broker_message::Kind::Fence(fence)) => {
                let done = control.fence(fence).await;
                self.send(host_message::Kind::FenceDone(done)).await
            }
            Some(broker_message::Kind::Accepted(_)) => Err(ControlError::Malformed {
                field: "accepted",
                problem: "came twice".into(),
            }),
            // Of a newer version: what it is can wait.
            None => Ok(()),
        }
    }

    async fn report(
        &self,
        report: Result<Report, broadcast::error::RecvError>,
    ) -> Result<(), ControlError> {
        match report {
            Ok(report) => {
                let ended = SessionEnded {
                    session_id: report.session.to_bytes().to_vec().into(),
                    reason: report.reason,
                    code: report.code.into(),
                };
                self.send(host_message::Kind::SessionEnded(ended)).await
            }
            // It would take them for alive for ever.
            Err(broadcast::error::RecvError::Lagged(missed)) if self.tells_of_sessions() => {
                Err(ControlError::Behind { sessions: missed })
            }
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(
                    missed,
                    "the broker was not told of some sessions that ended"
                );
                Ok(())
            }
            // The sender lives as long as `Control`.
            Err(broadcast::error::RecvError::Closed) => Ok(()),
        }
    }

    /// Tells of the last sessions, and ends the stream.
    async fn farewell(&mut self) -> Result<(), ControlError> {
        while let Ok(report) = self.reports.try_recv() {
            self.report(Ok(report)).await?;
        }
        // With its last sender the stream of messages ends, and the broker ends its own.
        self.outgoing = mpsc::channel(1).0;
        let ending = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        let _ = timeout(FAREWELL_TIMEOUT, ending).await;
        Ok(())
    }

    /// Waits for room, but not beyond the lease: a broker that does not read for so long has given this host up.
    async fn send(&self, kind: host_message::Kind) -> Result<(), ControlError> {
        match timeout(self.lease, self.outgoing.send(message(kind))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ControlError::Ended),
            Err(_) => Err(ControlError::TimedOut {
                what: "room for a message",
                limit: self.lease,
            }),
        }
    }
}

fn message(kind: host_message::Kind) -> HostMessage {
    HostMessage { kind: Some(kind) }
}

/// The version that the broker chose, and the lease that it grants.
fn read_accepted(first: BrokerMessage) -> Result<(u32, Duration), ControlError> {
    let malformed = |field, problem: String| ControlError::Malformed { field, problem };
    let Some(broker_message::Kind::Accepted(accepted)) = first.kind else {
        return Err(malformed("accepted", "is not the first message".into()));
    };
    let HostAccepted {
        version,
        lease_ms,
        rejected,
    } = accepted;
    if !(VERSION_MIN..=VERSION).contains(&version) {
        let problem = format!("{version}, but this host speaks {VERSION_MIN} to {VERSION}");
        return Err(malformed("accepted.version", problem));
    }
    if lease_ms == 0 {
        return Err(malformed("accepted.lease_ms", "0 is no lease".into()));
    }
    for device in rejected {
        let (id, reason) = (device.device_id, device.reason);
        tracing::warn!(device = id, reason, "the broker did not take a device");
    }
    Ok((version, Duration::from_millis(lease_ms.into())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use potemkin_proto::v1::Fence;

    use super::*;

    fn accepted(version: u32, lease_ms: u32) -> BrokerMessage {
        BrokerMessage {
            kind: Some(broker_message::Kind::Accepted(HostAccepted {
                version,
                lease_ms,
                rejected: Vec::new(),
            })),
        }
    }

    #[test]
    fn version_and_lease_are_read() {
        for version in [VERSION_MIN, VERSION] {
            let read = read_accepted(accepted(version, 1_500)).unwrap();

            assert_eq!(read, (version, Duration::from_millis(1_500)));
        }
    }

    #[test]
    fn unusable_answers_are_refused_by_field() {
        let fence = BrokerMessage {
            kind: Some(broker_message::Kind::Fence(Fence::default())),
        };
        let cases = [
            (accepted(VERSION + 1, 1_500), "accepted.version"),
            (accepted(VERSION, 0), "accepted.lease_ms"),
            (fence, "accepted"),
            (BrokerMessage { kind: None }, "accepted"),
        ];
        for (message, field) in cases {
            let error = read_accepted(message).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
