//! The core with its surroundings: who waits for an answer, which streams are open, who watches.
//!
//! Everything runs on one thread, so the lock is never contended; it is there because gRPC handlers must be `Send`. It is
//! never held across an await, and nothing is called under it that takes it again: [`Broker::with`] runs the core, then
//! hands out what the core asked for by sends that never wait.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use potemkin_proto::v1;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;

use crate::core::{
    Action, ConnId, Core, DialRefusal, LegId, Refusal, Rejected, Reply, RequestId, Time, Viewer,
};
use crate::host_link::{HostLink, host_message};
use crate::ids::{DeviceId, PeerName, SessionId};
use crate::metrics::Metrics;
use crate::watch::{Subscription, Watchers};

/// The broker's state, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Broker {
    state: Mutex<State>,
    origin: Instant,
    /// The core's earliest deadline may have changed.
    pub(crate) deadline_changed: Notify,
    /// There may be something to commit.
    pub(crate) commit_wanted: Notify,
    /// There may be another number of something.
    pub(crate) counts_changed: Notify,
    pub(crate) metrics: Metrics,
    /// Streams of events that callers read.
    streams: TaskTracker,
}

#[derive(Debug)]
struct State {
    core: Core,
    next_id: u64,
    stopping: bool,
    replies: HashMap<RequestId, oneshot::Sender<Result<Reply, Refusal>>>,
    hosts: HashMap<ConnId, HostLink>,
    legs: HashMap<LegId, oneshot::Sender<DialRefusal>>,
    watchers: Watchers,
    /// Dials that have no route yet, by agent.
    dialling: HashMap<PeerName, usize>,
    /// The core's earliest deadline, as the clock task was told.
    deadline: Option<Time>,
}

/// What is said to everybody when the broker stops.
const STOPPING: &str = "the broker is stopping";

impl Broker {
    pub(crate) fn new(core: Core, watchers_max: usize, origin: Instant, metrics: Metrics) -> Self {
        Self {
            state: Mutex::new(State {
                core,
                next_id: 0,
                stopping: false,
                replies: HashMap::new(),
                hosts: HashMap::new(),
                legs: HashMap::new(),
                watchers: Watchers::new(watchers_max),
                dialling: HashMap::new(),
                deadline: None,
            }),
            origin,
            deadline_changed: Notify::new(),
            commit_wanted: Notify::new(),
            counts_changed: Notify::new(),
            metrics,
            streams: TaskTracker::new(),
        }
    }

    /// The time as the core counts it.
    pub(crate) fn now(&self) -> Time {
        self.origin.elapsed()
    }

    /// The clock's reading at a time of the core's.
    pub(crate) fn instant(&self, time: Time) -> Instant {
        // A deadline beyond what the clock can say is far enough when it is a day away.
        let day = Duration::from_secs(86_400);
        self.origin
            .checked_add(time)
            .unwrap_or_else(|| Instant::now() + day)
    }

    /// Runs the core, and does what it asks for.
    pub(crate) fn with<R>(&self, call: impl FnOnce(&mut Core, Time) -> R) -> R {
        let mut state = self.lock();
        let result = call(&mut state.core, self.now());
        self.settle(&mut state);
        result
    }

    /// Asks the core something that is answered by an action, and waits for that.
    pub(crate) async fn ask(
        &self,
        call: impl FnOnce(&mut Core, Time, RequestId),
    ) -> Result<Reply, Refusal> {
        let stopping = || Refusal::Unavailable(STOPPING.to_owned());
        let answer = {
            let mut state = self.lock();
            if state.stopping {
                return Err(stopping());
            }
            let request = RequestId(state.fresh());
            let (sender, answer) = oneshot::channel();
            state.replies.insert(request, sender);
            call(&mut state.core, self.now(), request);
            self.settle(&mut state);
            answer
        };
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Registers a host whose messages go to `link`.
    pub(crate) fn register(
        &self,
        host: &PeerName,
        hello: crate::core::Hello,
        link: HostLink,
    ) -> Result<ConnId, Refusal> {
        let mut state = self.lock();
        if state.stopping {
            return Err(Refusal::Unavailable(STOPPING.to_owned()));
        }
        let conn = ConnId(state.fresh());
        state.hosts.insert(conn, link);
        let registered = state.core.register(self.now(), conn, host, hello);
        if registered.is_err() {
            state.hosts.remove(&conn);
        }
        self.settle(&mut state);
        registered.map(|()| conn)
    }

    /// A host's stream is over.
    pub(crate) fn host_gone(&self, conn: ConnId) {
        let mut state = self.lock();
        state.hosts.remove(&conn);
        state.core.host_gone(self.now(), conn);
        self.settle(&mut state);
    }

    /// Opens a leg: gives its id, and what will say that it must end.
    pub(crate) fn open_leg<R>(
        &self,
        open: impl FnOnce(&mut Core, LegId) -> Result<R, DialRefusal>,
    ) -> Result<(R, LegId, oneshot::Receiver<DialRefusal>), DialRefusal> {
        let mut state = self.lock();
        if state.stopping {
            return Err(stop_refusal());
        }
        let leg = LegId(state.fresh());
        let route = open(&mut state.core, leg)?;
        let (sender, end) = oneshot::channel();
        state.legs.insert(leg, sender);
        self.settle(&mut state);
        Ok((route, leg, end))
    }

    pub(crate) fn leg_closed(&self, session: SessionId, leg: LegId) {
        let mut state = self.lock();
        state.legs.remove(&leg);
        state.core.leg_closed(self.now(), session, leg);
        self.settle(&mut state);
    }

    /// Watches, from the state of today on.
    pub(crate) fn watch(self: &Arc<Self>, viewer: Viewer) -> Result<Subscription, Status> {
        let mut state = self.lock();
        let State { core, watchers, .. } = &mut *state;
        let receiver = watchers.add(viewer.clone())?;
        let snapshot = crate::watch::snapshot(core, &viewer);
        Ok(Subscription::new(self.clone(), snapshot, receiver))
    }

    pub(crate) fn unwatch(&self, watcher: u64) {
        self.lock().watchers.remove(watcher);
    }

    /// Counts a dial of `agent` that has no route yet; `None`: it has too many.
    pub(crate) fn start_dial(self: &Arc<Self>, agent: &PeerName, limit: usize) -> Option<Dialling> {
        let mut state = self.lock();
        let count = state.dialling.entry(agent.clone()).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Dialling {
            broker: self.clone(),
            agent: agent.clone(),
        })
    }

    /// Ends all sessions' legs, Register streams, watches and waiting requests. Nothing new is begun after this.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        for (_, leg) in state.legs.drain() {
            // A leg that ended by itself has nobody to tell.
            let _ = leg.send(stop_refusal());
        }
        for (_, host) in state.hosts.drain() {
            host.close(Status::unavailable(STOPPING));
        }
        state.replies.clear();
        state.watchers.clear();
    }

    /// Kept with a stream of events, so that its end can be awaited.
    pub(crate) fn stream_token(&self) -> TaskTrackerToken {
        self.streams.token()
    }

    /// Waits until all streams of events have ended.
    pub(crate) async fn streams_ended(&self) {
        self.streams.close();
        self.streams.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would have ended the one thread's task only; what it left is used on.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the core asks for, until it asks for nothing more.
    fn settle(&self, state: &mut State) {
        let mut changed = Changed::default();
        while let Some(action) = state.core.poll_action() {
            if let Some(deaf) = self.act(state, action, &mut changed) {
                state.core.host_gone(self.now(), deaf);
            }
        }
        if !changed.devices.is_empty() || !changed.sessions.is_empty() {
            for device in changed.devices {
                state.watchers.device(&state.core, &device);
            }
            for session in changed.sessions {
                state.watchers.session(&state.core, session);
            }
            self.counts_changed.notify_one();
        }
        let deadline = state.core.poll_timeout();
        if deadline != state.deadline {
            state.deadline = deadline;
            self.deadline_changed.notify_one();
        }
        if state.core.wants_commit() {
            self.commit_wanted.notify_one();
        }
    }

    /// Devices of a host that were not taken: the host is told, and so is our operator.
    fn note_rejected(&self, host: Option<&PeerName>, rejected: &[Rejected]) {
        let host = host.map_or("?", |host| host);
        for rejected in rejected {
            self.metrics.rejected_device(rejected.cause);
            let (device, reason) = (&rejected.device, &rejected.reason);
            tracing::warn!(host, device, reason, "device rejected");
        }
    }

    /// Does one thing. Gives the stream of a host that does not read.
    fn act(&self, state: &mut State, action: Action, changed: &mut Changed) -> Option<ConnId> {
        match action {
            Action::Accept {
                conn, ref rejected, ..
            } => {
                self.note_rejected(state.core.host_of(conn), rejected);
                return state.tell_host(&action);
            }
            Action::Fence { .. } => return state.tell_host(&action),
            Action::CloseHost { conn, reason } => {
                tracing::warn!(conn = conn.0, reason, "host stream closed");
                if let Some(link) = state.hosts.remove(&conn) {
                    link.close(Status::aborted(reason));
                }
            }
            Action::CloseLeg { leg, code, message } => {
                if let Some(end) = state.legs.remove(&leg) {
                    // A leg that ended by itself has nobody to tell.
                    let _ = end.send(DialRefusal { code, message });
                }
            }
            Action::Reply { request, outcome } => {
                if let Some(waiting) = state.replies.remove(&request) {
                    // The caller may have gone; then what it attached ends by the grace.
                    let _ = waiting.send(outcome);
                }
            }
            Action::TakenOver {
                device,
                agent,
                session,
                older,
                newer,
            } => {
                self.metrics.taken_over();
                tracing::warn!(
                    %agent, %device, %session, %older, %newer,
                    "a newer process of the agent takes its device over; two that live must not share an identity"
                );
            }
            Action::Adopted(session) => {
                tracing::info!(%session, "session adopted: its host told of it");
            }
            Action::DeviceChanged(device) => {
                changed.devices.insert(device);
            }
            Action::DeviceGone {
                device,
                class,
                host,
            } => {
                changed.devices.remove(&device);
                state
                    .watchers
                    .device_gone(&state.core, &device, &class, &host);
                self.counts_changed.notify_one();
            }
            Action::SessionChanged(session) => {
                changed.sessions.insert(session);
            }
            Action::SessionGone {
                session,
                agent,
                host,
            } => {
                changed.sessions.remove(&session);
                state.watchers.session_gone(session, &agent, &host);
            }
        }
        None
    }
}

/// What changed in one call of the core; each is told once.
#[derive(Default)]
struct Changed {
    devices: BTreeSet<DeviceId>,
    sessions: BTreeSet<SessionId>,
}

impl State {
    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn tell_host(&mut self, action: &Action) -> Option<ConnId> {
        let (conn, message) = host_message(action)?;
        let link = self.hosts.get(&conn)?;
        if link.send(message) {
            return None;
        }
        tracing::warn!(conn = conn.0, "host does not read its stream");
        if let Some(link) = self.hosts.remove(&conn) {
            link.close(Status::resource_exhausted(
                "the host does not read its Register stream",
            ));
        }
        Some(conn)
    }
}

/// What agents hear on their sessions' streams when the broker stops: another broker can take them.
pub(crate) fn stop_refusal() -> DialRefusal {
    DialRefusal {
        code: v1::CloseCode::GoingAway,
        message: STOPPING.to_owned(),
    }
}

/// A dial that has no route yet; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Dialling {
    broker: Arc<Broker>,
    agent: PeerName,
}

impl Drop for Dialling {
    fn drop(&mut self) {
        let mut state = self.broker.lock();
        if let Some(count) = state.dialling.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                state.dialling.remove(&self.agent);
            }
        }
    }
}
