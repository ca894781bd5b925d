//! The data plane: the streams that brokers open. Each begins a session, whose task this becomes, or is handed to the one that it is a
//! newer path of.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use potemkin_proto::v1::CloseCode;
use potemkin_session::ids::{Incarnation, SessionId};
use potemkin_transport::{FrameStream, Identity, IdentityPattern, SessionHandler, TransportKind};
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::live::LiveSessions;
use crate::meters::Meters;
use crate::opening::{Door, Opened, Refusal, decide};
use crate::pool::Pool;
use crate::running::{NewPath, serve};

/// How long a peer may take for the first frame of a stream that it opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub(crate) live: Arc<LiveSessions>,
    pub(crate) reports: broadcast::Sender<Report>,
    pub(crate) meters: Meters,
    /// How long a session lives without a path.
    pub(crate) grace: Duration,
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
        let refusal = match open(desk, &peer, &mut stream).await {
            Ok(Opened::First(begun)) => {
                let path = NewPath {
                    opening: None,
                    peer,
                    kind,
                    stream,
                };
                return serve(desk, *begun, path).await;
            }
            Ok(Opened::Again { opening, session }) => {
                let path = NewPath {
                    opening: Some(opening),
                    peer,
                    kind,
                    stream,
                };
                // A session that has just ended, or has more paths than it can look at, leaves this one to be dialled again.
                let _ = session.try_send(path);
                return;
            }
            Err(refusal) => refusal,
        };
        desk.refused(&peer, kind, remote, &refusal);
        if stream.sender.send(refusal.frame()).is_ok() {
            stream.sender.finish().await;
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

    pub(crate) fn beat(&self) -> u64 {
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
    let door = Door {
        pool: &desk.pool,
        accept: &desk.accept,
        incarnation: desk.incarnation,
        beat: desk.beat(),
    };
    decide(door, peer, first)
}
