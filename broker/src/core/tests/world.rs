//! A core with its surroundings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use potemkin_proto::v1;

use super::super::*;
use crate::ids::Incarnation;
use crate::policy::{ClaimRule, OfferRule};
use crate::store::{MemoryStore, Store};

pub(super) const LEASE: Duration = Duration::from_secs(10);
pub(super) const DRIFT: Duration = Duration::from_secs(1);
pub(super) const FORGET: Duration = Duration::from_secs(100);
pub(super) const GRACE: Duration = Duration::from_secs(8);
pub(super) const FENCE: Duration = Duration::from_secs(5);

pub(super) const HOST: &str = "spiffe://potemkin.dev/host/one";
pub(super) const OTHER_HOST: &str = "spiffe://potemkin.dev/host/two";
pub(super) const AGENT: &str = "spiffe://potemkin.dev/agent/a";
pub(super) const OTHER_AGENT: &str = "spiffe://potemkin.dev/agent/b";

pub(super) const OPERATOR: &str = "spiffe://potemkin.dev/operator/o";

pub(super) struct World {
    pub(super) core: Core,
    pub(super) now: Time,
    pub(super) store: MemoryStore,
    /// While set, commits wait in `held`.
    pub(super) hold_store: bool,
    pub(super) fail_store: bool,
    held: Option<Vec<DeviceRow>>,
    next_id: u64,
    /// What the core asked for, as it came; replies are taken out.
    pub(super) seen: Vec<Action>,
    replies: BTreeMap<RequestId, Result<Reply, Refusal>>,
}

pub(super) fn name(text: &str) -> PeerName {
    text.into()
}

pub(super) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

pub(super) fn target(text: &str) -> Target {
    Target::Device(id(text))
}

pub(super) fn of_class(class: &str) -> Target {
    Target::Fitting {
        class: Some(class.into()),
        labels: BTreeMap::new(),
    }
}

pub(super) fn offer(device: &str) -> Offer {
    Offer {
        device: id(device),
        class: device.split('-').next().unwrap().into(),
        labels: BTreeMap::from([("zone".into(), "a".into())]),
        descriptor: Arc::new(v1::DeviceDescriptor::default()),
        vendor_id: 0x1234,
        device_code: 0x11e8,
        highest_epoch: 0,
    }
}

pub(super) fn hello(incarnation: u128, offers: Vec<Offer>) -> Hello {
    Hello {
        version: 1,
        incarnation: Incarnation(incarnation),
        data_address: "127.0.0.1:7641".parse().unwrap(),
        offers,
        rejected: Vec::new(),
        sessions: Vec::new(),
    }
}

pub(super) fn policy() -> Policy {
    let all = || vec!["*".to_owned()];
    Policy {
        offer: vec![OfferRule {
            host: "spiffe://potemkin.dev/host/*".into(),
            devices: all(),
        }],
        claim: vec![ClaimRule {
            agent: "spiffe://potemkin.dev/agent/*".into(),
            devices: all(),
            classes: vec!["edu".into(), "nvme".into()],
        }],
    }
}

pub(super) fn times() -> Times {
    Times {
        lease: LEASE,
        drift: DRIFT,
        forget: FORGET,
        grace: GRACE,
        fence: FENCE,
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        hosts: 4,
        devices: 8,
        sessions: 6,
        sessions_per_agent: 3,
        claims_per_agent: 2,
        requests_per_peer: 3,
    }
}

pub(super) struct Live {
    pub(super) id: SessionId,
    pub(super) epoch: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self::on(MemoryStore::default(), Duration::from_secs(1000))
    }

    /// A broker started on what an earlier one left.
    pub(super) fn on(store: MemoryStore, now: Time) -> Self {
        let rows = store.load().unwrap();
        let core = Core::new(policy(), times(), limits(), rows);
        Self::of(core, store, now)
    }

    /// A broker that only relays.
    pub(super) fn relaying() -> Self {
        let core = Core::relaying(policy(), times(), limits());
        Self::of(core, MemoryStore::default(), Duration::from_secs(1000))
    }

    fn of(core: Core, store: MemoryStore, now: Time) -> Self {
        Self {
            core,
            now,
            store,
            hold_store: false,
            fail_store: false,
            held: None,
            next_id: 1,
            seen: Vec::new(),
            replies: BTreeMap::new(),
        }
    }

    /// The broker is killed, and started on what it left.
    pub(super) fn restart(&mut self) {
        let store = std::mem::take(&mut self.store);
        *self = Self {
            hold_store: self.hold_store,
            fail_store: self.fail_store,
            next_id: self.next_id,
            ..Self::on(store, self.now)
        };
    }

    pub(super) fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Does what the core asks for, until it asks for nothing more.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(action) = self.core.poll_action() {
                if let Action::Reply { request, outcome } = action {
                    let twice = self.replies.insert(request, outcome);
                    assert!(twice.is_none(), "{request:?} was answered twice");
                } else {
                    self.check_durable(&action);
                    self.seen.push(action);
                }
            }
            if self.held.is_none() {
                self.held = self.core.next_commit();
            }
            if self.hold_store || self.held.is_none() {
                return;
            }
            self.commit_held();
        }
    }

    /// A fence is for the host to remember: its epoch has to be in the store when it is sent.
    fn check_durable(&self, action: &Action) {
        if let Action::Fence { device, epoch, .. } = action {
            let stored = self.stored(device.as_str()).map_or(0, |row| row.epoch);
            assert!(stored >= *epoch, "{device}: a fence before its commit");
        }
    }

    /// Lets the store do what it was given.
    pub(super) fn commit_held(&mut self) {
        if let Some(rows) = self.held.take() {
            let succeeded = !self.fail_store;
            if succeeded {
                self.store.commit(&rows).unwrap();
            }
            self.core.committed(self.now, &rows, succeeded);
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now += by;
        self.core.handle_timeout(self.now);
        self.settle();
    }

    pub(super) fn register(&mut self, host: &str, hello: Hello) -> ConnId {
        let conn = ConnId(self.fresh());
        self.core
            .register(self.now, conn, &name(host), hello)
            .unwrap();
        self.settle();
        conn
    }

    /// A host with one device of each name, all of incarnation 1.
    pub(super) fn host(&mut self, devices: &[&str]) -> ConnId {
        let offers = devices.iter().map(|d| offer(d)).collect();
        self.register(HOST, hello(1, offers))
    }

    pub(super) fn heartbeat(&mut self, conn: ConnId) {
        self.core.heartbeat(self.now, conn);
        self.settle();
    }

    /// The host tells of a session.
    pub(super) fn tell(&mut self, conn: ConnId, live: &LiveSession) {
        self.core.session_started(self.now, conn, live);
        self.settle();
    }

    /// The host tells that a session ended.
    pub(super) fn ended(&mut self, host: &str, session: SessionId) {
        let code = v1::CloseCode::Normal;
        self.core
            .ended_by_host(self.now, &name(host), session, code, "it was time");
        self.settle();
    }

    /// Nothing was fenced and nothing stored.
    pub(super) fn nothing_was_decided(&self) {
        let fence = |action: &Action| matches!(action, Action::Fence { .. });
        assert!(!self.seen.iter().any(fence));
        assert_eq!(self.store.load().unwrap(), []);
    }

    pub(super) fn lose_host(&mut self, conn: ConnId) {
        self.core.host_gone(self.now, conn);
        self.settle();
    }

    /// The newest fence of a device that was sent on `conn`, if any since the last call.
    pub(super) fn fence_on(
        &mut self,
        conn: ConnId,
        device: &str,
    ) -> Option<(u64, Option<SessionId>)> {
        let mut newest = None;
        self.seen.retain(|action| match action {
            Action::Fence {
                conn: on,
                device: of,
                epoch,
                session,
            } if *on == conn && of.as_str() == device => {
                newest = Some((*epoch, *session));
                false
            }
            _ => true,
        });
        newest
    }

    pub(super) fn fence_done(&mut self, conn: ConnId, device: &str, epoch: u64, error: &str) {
        self.core
            .fence_done(self.now, conn, &id(device), epoch, error);
        self.settle();
    }

    /// The host does its newest fence of a device.
    pub(super) fn confirm(&mut self, conn: ConnId, device: &str) -> (u64, Option<SessionId>) {
        let fence = self.fence_on(conn, device).expect("a fence is sent");
        self.fence_done(conn, device, fence.0, "");
        fence
    }

    /// From an agent that does not say which of its processes asks.
    pub(super) fn ask_attach(&mut self, agent: &str, target: &Target) -> RequestId {
        self.ask_attach_from(agent, None, target)
    }

    /// From one process of an agent's.
    pub(super) fn ask_attach_from(
        &mut self,
        agent: &str,
        process: Option<u128>,
        target: &Target,
    ) -> RequestId {
        let request = RequestId(self.fresh());
        let ids = FreshIds {
            claim: ClaimId(self.fresh().into()),
            session: SessionId(self.fresh().into()),
        };
        let attacher = Attacher {
            agent: &name(agent),
            incarnation: process.map(Incarnation),
        };
        self.core.attach(self.now, request, attacher, target, ids);
        self.settle();
        request
    }

    pub(super) fn ask_claim(&mut self, agent: &str, target: &Target) -> RequestId {
        let request = RequestId(self.fresh());
        let fresh = ClaimId(self.fresh().into());
        self.core
            .claim(self.now, request, &name(agent), target, fresh);
        self.settle();
        request
    }

    pub(super) fn ask_detach(&mut self, by: Requester<'_>, session: SessionId) -> RequestId {
        let request = RequestId(self.fresh());
        self.core.detach(self.now, request, by, session);
        self.settle();
        request
    }

    pub(super) fn ask_release(&mut self, by: Requester<'_>, claim: ClaimId) -> RequestId {
        let request = RequestId(self.fresh());
        self.core.release(self.now, request, by, claim);
        self.settle();
        request
    }

    /// Takes the answer to a request; `None`: there is none yet.
    pub(super) fn reply(&mut self, request: RequestId) -> Option<Result<Reply, Refusal>> {
        self.replies.remove(&request)
    }

    pub(super) fn refusal(&mut self, request: RequestId) -> Refusal {
        self.reply(request).unwrap().unwrap_err()
    }

    pub(super) fn attached(&mut self, request: RequestId) -> Live {
        match self.reply(request).unwrap().unwrap() {
            Reply::Attached { session, epoch, .. } => Live { id: session, epoch },
            other => panic!("not attached: {other:?}"),
        }
    }

    pub(super) fn claimed(&mut self, request: RequestId) -> (ClaimId, u64) {
        match self.reply(request).unwrap().unwrap() {
            Reply::Claimed { claim, epoch, .. } => (claim, epoch),
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// A live session of AGENT on `device`, whose host is on `conn`.
    pub(super) fn attach(&mut self, conn: ConnId, device: &str) -> Live {
        let request = self.ask_attach(AGENT, &target(device));
        self.confirm(conn, device);
        self.attached(request)
    }

    pub(super) fn state(&self, device: &str) -> v1::DeviceState {
        self.info(device).state()
    }

    pub(super) fn info(&self, device: &str) -> v1::DeviceInfo {
        self.core
            .device_info(&id(device), &Viewer::Operator)
            .unwrap()
    }

    pub(super) fn stored(&self, device: &str) -> Option<DeviceRow> {
        let rows = self.store.load().unwrap();
        rows.into_iter().find(|r| r.device.as_str() == device)
    }

    /// A live and connected session of one process of AGENT's on `device`.
    pub(super) fn connect_from(
        &mut self,
        conn: ConnId,
        process: Option<u128>,
        device: &str,
    ) -> (Live, LegId) {
        let request = self.ask_attach_from(AGENT, process, &target(device));
        self.confirm(conn, device);
        let live = self.attached(request);
        let leg = LegId(self.fresh());
        let dial = Dial {
            session: live.id,
            epoch: live.epoch,
            attach_number: 1,
        };
        self.core.open_leg(&name(AGENT), dial, leg).unwrap();
        self.settle();
        (live, leg)
    }

    pub(super) fn closed_legs(&self) -> Vec<(LegId, v1::CloseCode)> {
        let close = |action: &Action| match action {
            Action::CloseLeg { leg, code, .. } => Some((*leg, *code)),
            _ => None,
        };
        self.seen.iter().filter_map(close).collect()
    }

    pub(super) fn rejected(&self, conn: ConnId) -> Vec<Rejected> {
        let accept = |action: &Action| match action {
            Action::Accept {
                conn: on, rejected, ..
            } if *on == conn => Some(rejected.clone()),
            _ => None,
        };
        self.seen.iter().find_map(accept).unwrap()
    }

    pub(super) fn was_closed(&self, conn: ConnId) -> bool {
        let closes =
            |action: &Action| matches!(action, Action::CloseHost { conn: on, .. } if *on == conn);
        self.seen.iter().any(closes)
    }
}
