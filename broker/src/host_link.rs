//! The broker's end of a host's Register stream.

use potemkin_proto::v1::{self, BrokerMessage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::core::{Action, ConnId};
use crate::ids::SessionId;

/// Messages that may wait for a host: an acceptance, and a fence for each of its devices, twice over.
const QUEUE_MAX: usize = 2 * 1024 + 1;

/// Sends to a host.
#[derive(Debug)]
pub(crate) struct HostLink {
    sender: mpsc::Sender<Result<BrokerMessage, Status>>,
    closed: CancellationToken,
}

/// What the host's stream consists of.
pub(crate) struct HostEnds {
    /// For the core.
    pub(crate) link: HostLink,
    /// Messages for the host.
    pub(crate) outgoing: mpsc::Receiver<Result<BrokerMessage, Status>>,
    /// Cancelled when the broker has closed the stream.
    pub(crate) closed: CancellationToken,
}

impl HostLink {
    pub(crate) fn pair() -> HostEnds {
        let (sender, outgoing) = mpsc::channel(QUEUE_MAX);
        let closed = CancellationToken::new();
        HostEnds {
            link: Self {
                sender,
                closed: closed.clone(),
            },
            outgoing,
            closed,
        }
    }

    /// `false`: the host does not read, or is gone.
    pub(crate) fn send(&self, message: BrokerMessage) -> bool {
        self.sender.try_send(Ok(message)).is_ok()
    }

    /// Ends the stream with a status.
    pub(crate) fn close(self, status: Status) {
        // A host that does not read does not get the status either: its stream just ends.
        let _ = self.sender.try_send(Err(status));
        self.closed.cancel();
    }
}

/// What the core wants a host to be told, and on which stream; `None`: the action is nothing for a host.
pub(crate) fn host_message(action: &Action) -> Option<(ConnId, v1::BrokerMessage)> {
    use v1::broker_message::Kind;
    let (conn, kind) = match action {
        Action::Accept {
            conn,
            version,
            rejected,
            lease,
        } => {
            let rejected = rejected.iter().map(|r| v1::DeviceRejected {
                device_id: r.device.clone(),
                reason: r.reason.clone(),
            });
            let accepted = v1::HostAccepted {
                version: *version,
                lease_ms: u32::try_from(lease.as_millis()).unwrap_or(u32::MAX),
                rejected: rejected.collect(),
            };
            (*conn, Kind::Accepted(accepted))
        }
        Action::Fence {
            conn,
            device,
            epoch,
            session,
        } => {
            let fence = v1::Fence {
                device_id: device.as_str().to_owned(),
                epoch: *epoch,
                session_id: session.map(SessionId::to_bytes).unwrap_or_default(),
            };
            (*conn, Kind::Fence(fence))
        }
        _ => return None,
    };
    Some((conn, v1::BrokerMessage { kind: Some(kind) }))
}
