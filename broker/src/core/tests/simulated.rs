//! Random histories, and what must hold in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use potemkin_proto::v1;
use proptest::prelude::*;

use super::super::*;
use super::world::*;

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    /// By an agent's process, of a device.
    Attach(u8, u8, u8),
    Claim(u8, u8),
    AttachClaim(u8),
    Detach(u8),
    Release(u8),
    /// The host does the oldest fence that it has not done.
    FenceDone,
    FenceFails,
    /// An agent opens the first stream of a session.
    Begin(u8),
    /// A session ends at its host by itself.
    EndAtHost(u8),
    LoseHost,
    Register {
        restarted: bool,
    },
    LoseRelay,
    RegisterAtRelay,
    Heartbeat,
    RestartBroker,
    HoldStore(bool),
    FailStore(bool),
    Wait(u8),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, p, d)| Step::Attach(a, p, d)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, d)| Step::Claim(a, d)),
        2 => any::<u8>().prop_map(Step::AttachClaim),
        2 => any::<u8>().prop_map(Step::Detach),
        1 => any::<u8>().prop_map(Step::Release),
        8 => Just(Step::FenceDone),
        1 => Just(Step::FenceFails),
        4 => any::<u8>().prop_map(Step::Begin),
        1 => any::<u8>().prop_map(Step::EndAtHost),
        1 => Just(Step::LoseHost),
        2 => any::<bool>().prop_map(|restarted| Step::Register { restarted }),
        1 => Just(Step::LoseRelay),
        2 => Just(Step::RegisterAtRelay),
        3 => Just(Step::Heartbeat),
        1 => Just(Step::RestartBroker),
        1 => any::<bool>().prop_map(Step::HoldStore),
        1 => any::<bool>().prop_map(Step::FailStore),
        2 => (0..7_u8).prop_map(Step::Wait),
    ]
}

const AGENTS: [&str; 2] = [AGENT, OTHER_AGENT];
const DEVICES: [&str; 2] = ["edu-0", "edu-1"];

/// A session that was handed out.
#[derive(Debug, Clone, Copy)]
struct Granted {
    session: SessionId,
    epoch: u64,
    device: &'static str,
    agent: &'static str,
}

impl Granted {
    fn told(&self) -> LiveSession {
        LiveSession {
            session: self.session,
            device: id(self.device),
            epoch: self.epoch,
            agent: name(self.agent),
            claim: ClaimId(self.session.0 << 64),
        }
    }
}

/// The host as the rules want it, and what was observed. Beside the broker that grants there is one that only relays.
struct History {
    world: World,
    conn: Option<ConnId>,
    relay: World,
    relay_conn: Option<ConnId>,
    /// Which version the host speaks.
    version: u32,
    incarnation: u128,
    /// The sessions that live on the host, by device.
    live: BTreeMap<&'static str, Granted>,
    /// The broker has not heard of its host since its start.
    reborn: bool,
    /// ... and was asked to release a claim meanwhile.
    released: bool,
    /// Fences that came on the present stream and are not answered.
    inbox: Vec<(String, u64, Option<SessionId>)>,
    /// The newest fence that the host has obeyed, by device.
    obeyed: BTreeMap<String, (u64, Option<SessionId>)>,
    asked: Vec<(RequestId, &'static str)>,
    sessions: Vec<Granted>,
    claims: Vec<(ClaimId, usize)>,
    /// The highest epoch of a session that was handed out, by device.
    handed_out: BTreeMap<String, u64>,
}

impl History {
    fn new(version: u32) -> Self {
        Self {
            world: World::new(),
            conn: None,
            relay: World::relaying(),
            relay_conn: None,
            version,
            incarnation: 1,
            live: BTreeMap::new(),
            reborn: false,
            released: false,
            inbox: Vec::new(),
            obeyed: BTreeMap::new(),
            asked: Vec::new(),
            sessions: Vec::new(),
            claims: Vec::new(),
            handed_out: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Attach(agent, process, device) => {
                let agent = AGENTS[usize::from(agent) % 2];
                let request = self.world.ask_attach_from(
                    agent,
                    [None, Some(1), Some(2)][usize::from(process) % 3],
                    &target(DEVICES[usize::from(device) % 2]),
                );
                self.asked.push((request, agent));
            }
            Step::Claim(agent, device) => {
                let agent = AGENTS[usize::from(agent) % 2];
                let device = target(DEVICES[usize::from(device) % 2]);
                let request = self.world.ask_claim(agent, &device);
                self.asked.push((request, agent));
            }
            Step::AttachClaim(n) => {
                if let Some((claim, agent)) = pick(&self.claims, n) {
                    let agent = AGENTS[agent];
                    let request = self.world.ask_attach(agent, &Target::Claim(claim));
                    self.asked.push((request, agent));
                }
            }
            Step::Detach(n) => {
                if let Some(granted) = pick(&self.sessions, n) {
                    self.world
                        .ask_detach(Requester::Operator(&name(OPERATOR)), granted.session);
                }
            }
            Step::Release(n) => {
                if let Some((claim, _)) = pick(&self.claims, n) {
                    self.released = true;
                    self.world
                        .ask_release(Requester::Operator(&name(OPERATOR)), claim);
                }
            }
            Step::FenceDone => self.answer_fence(""),
            Step::FenceFails => self.answer_fence("cannot"),
            Step::Begin(n) => self.begin(n),
            Step::EndAtHost(n) => {
                let live: Vec<Granted> = self.live.values().copied().collect();
                if let Some(granted) = pick(&live, n) {
                    self.end_at_host(granted.device);
                }
            }
            Step::LoseHost => self.lose_host(),
            Step::Register { restarted } => self.register(restarted),
            Step::LoseRelay => self.lose_relay(),
            Step::RegisterAtRelay => {
                let hello = self.hello();
                self.relay_conn = Some(self.relay.register(HOST, hello));
            }
            Step::Heartbeat => {
                if let Some(conn) = self.conn {
                    self.world.heartbeat(conn);
                }
                if let Some(conn) = self.relay_conn {
                    self.relay.heartbeat(conn);
                }
            }
            Step::RestartBroker => self.restart_broker(),
            Step::HoldStore(hold) => {
                self.world.hold_store = hold;
                self.world.settle();
            }
            Step::FailStore(fail) => self.world.fail_store = fail,
            Step::Wait(seconds) => {
                self.world.advance(Duration::from_secs(seconds.into()));
                self.relay.advance(Duration::from_secs(seconds.into()));
            }
        }
        self.observe();
    }

    /// What the host would say of itself.
    fn hello(&self) -> Hello {
        let offers = DEVICES.iter().map(|device| {
            let mut offer = offer(device);
            offer.highest_epoch = self.obeyed.get(*device).map_or(0, |o| o.0);
            offer
        });
        let told = self.live.values().filter(|_| self.version >= 2);
        Hello {
            version: self.version,
            sessions: told.map(Granted::told).collect(),
            ..hello(self.incarnation, offers.collect())
        }
    }

    fn register(&mut self, restarted: bool) {
        if restarted {
            self.restart_host();
        }
        let going_on: Vec<Granted> = self.live.values().copied().collect();
        let going_on: Vec<Granted> = going_on
            .into_iter()
            .filter(|g| self.nothing_speaks_against(g))
            .collect();
        self.inbox.clear();
        let hello = self.hello();
        self.conn = Some(self.world.register(HOST, hello));
        self.reborn = false;
        for granted in going_on {
            assert!(
                self.lists(granted.session),
                "{granted:?} was ended without a reason"
            );
        }
    }

    /// The session lives, and has to go on when its host registers.
    fn nothing_speaks_against(&self, granted: &Granted) -> bool {
        if self.version < 2 || self.reborn && self.released {
            return false;
        }
        if !self.reborn {
            return self.lists(granted.session);
        }
        let row = self.world.stored(granted.device);
        row.is_none_or(|row| {
            let own = row.claim.is_none_or(|c| *c.owner == *granted.agent);
            own && row.epoch <= granted.epoch
        })
    }

    fn lists(&self, session: SessionId) -> bool {
        let info = self.world.core.session_info(session, &Viewer::Operator);
        info.is_some()
    }

    fn lose_host(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.inbox.clear();
            self.world.lose_host(conn);
        }
    }

    fn lose_relay(&mut self) {
        if let Some(conn) = self.relay_conn.take() {
            self.relay.lose_host(conn);
        }
    }

    /// The host's process is another one: nothing lives on it, and both streams are lost.
    fn restart_host(&mut self) {
        self.lose_host();
        self.lose_relay();
        self.incarnation += 1;
        self.live.clear();
        for obeyed in self.obeyed.values_mut() {
            obeyed.1 = None;
        }
    }

    /// The broker is killed and started again on its store. What it was asked is not answered any more.
    fn restart_broker(&mut self) {
        self.conn = None;
        self.inbox.clear();
        self.asked.clear();
        self.world.restart();
        self.reborn = true;
        self.released = false;
    }

    /// The first stream of a session comes to the host, through whichever broker.
    fn begin(&mut self, n: u8) {
        let Some(granted) = pick(&self.sessions, n) else {
            return;
        };
        let allowed = self.obeyed.get(granted.device).copied();
        if allowed != Some((granted.epoch, Some(granted.session)))
            || self.live.contains_key(granted.device)
        {
            return;
        }
        self.live.insert(granted.device, granted);
        if self.version < 2 {
            return;
        }
        if let Some(conn) = self.conn {
            self.world.tell(conn, &granted.told());
        }
        if let Some(conn) = self.relay_conn {
            self.relay.tell(conn, &granted.told());
        }
    }

    /// A session ends at the host, which tells whom it can.
    fn end_at_host(&mut self, device: &str) {
        let Some(granted) = self.live.remove(device) else {
            return;
        };
        if let Some(obeyed) = self.obeyed.get_mut(device)
            && obeyed.1 == Some(granted.session)
        {
            obeyed.1 = None;
        }
        if self.conn.is_some() {
            self.world.ended(HOST, granted.session);
        }
        if self.relay_conn.is_some() {
            self.relay.ended(HOST, granted.session);
        }
    }

    fn answer_fence(&mut self, error: &str) {
        let Some(conn) = self.conn else { return };
        if self.inbox.is_empty() {
            return;
        }
        let (device, epoch, session) = self.inbox.remove(0);
        if error.is_empty() {
            let before = self.obeyed.insert(device.clone(), (epoch, session));
            assert!(
                before.is_none_or(|b| b.0 <= epoch),
                "{device}: the epoch went back"
            );
        }
        self.world.fence_done(conn, &device, epoch, error);
        // Whoever had the device is shut out, and leaves.
        let shut_out = self.live.get(device.as_str());
        if error.is_empty() && shut_out.is_some_and(|g| Some(g.session) != session) {
            self.end_at_host(&device);
        }
    }

    /// Looks at everything that the core said, and checks the rules.
    fn observe(&mut self) {
        for action in std::mem::take(&mut self.world.seen) {
            match action {
                Action::Fence {
                    conn,
                    device,
                    epoch,
                    session,
                } => {
                    assert_eq!(
                        Some(conn),
                        self.conn,
                        "a fence went to a stream that is gone"
                    );
                    self.inbox.push((device.to_string(), epoch, session));
                }
                Action::CloseHost { conn, .. } if Some(conn) == self.conn => {
                    self.conn = None;
                    self.inbox.clear();
                }
                _ => {}
            }
        }
        for (request, agent) in self.asked.clone() {
            if let Some(Ok(reply)) = self.world.reply(request) {
                self.granted(reply, agent);
            }
        }
        self.check_store();
        self.check_relay();
    }

    /// Who only relays decides nothing, and while it hears of the host knows what lives there.
    fn check_relay(&mut self) {
        let closed = |conn: ConnId, relay: &World| relay.was_closed(conn);
        if self
            .relay_conn
            .is_some_and(|conn| closed(conn, &self.relay))
        {
            self.relay_conn = None;
        }
        self.relay.nothing_was_decided();
        self.relay.seen.clear();
        if self.relay_conn.is_some() && self.version >= 2 {
            assert_eq!(listed(&self.relay), self.living(), "the relay is wrong");
        }
    }

    /// Those, too, whose asker was never answered, as the broker was killed.
    fn release_all(&mut self) {
        let claims: Vec<ClaimId> = self.world.core.claims.keys().copied().collect();
        for claim in claims {
            self.world
                .ask_release(Requester::Operator(&name(OPERATOR)), claim);
        }
    }

    fn living(&self) -> BTreeSet<SessionId> {
        self.live.values().map(|granted| granted.session).collect()
    }

    fn granted(&mut self, reply: Reply, agent: &'static str) {
        match reply {
            Reply::Attached {
                device,
                session,
                epoch,
                ..
            } => {
                let held = DEVICES.iter().find(|d| **d == device.as_str());
                let device = device.to_string();
                assert_eq!(
                    self.obeyed.get(&device),
                    Some(&(epoch, Some(session))),
                    "{device}: a session was handed out that its host does not obey"
                );
                let last = self.handed_out.insert(device.clone(), epoch);
                assert!(
                    last.is_none_or(|last| last < epoch),
                    "{device}: an epoch came twice"
                );
                self.sessions.push(Granted {
                    session,
                    epoch,
                    device: held.unwrap(),
                    agent,
                });
            }
            Reply::Claimed {
                device,
                claim,
                epoch,
            } => {
                let row = self.world.stored(device.as_str()).unwrap();
                assert!(row.epoch >= epoch);
                let owner = row.claim.unwrap();
                assert_eq!(
                    owner.id, claim,
                    "a claim was handed out before it was durable"
                );
                let agent = AGENTS.iter().position(|a| **a == *owner.owner).unwrap();
                self.claims.push((claim, agent));
            }
            Reply::Ended => {}
        }
    }

    /// With nothing under way, the store is what the core says.
    fn check_store(&mut self) {
        if self.world.hold_store || self.world.fail_store {
            return;
        }
        for device in DEVICES {
            let Some(info) = self.world.core.device_info(&id(device), &Viewer::Operator) else {
                continue;
            };
            if let Some(row) = self.world.stored(device)
                && self.world.core.commit_not_before.is_none()
            {
                assert_eq!(row.epoch, info.epoch);
                let owner = row.claim.map_or_else(String::new, |c| c.owner.to_string());
                assert_eq!(owner, info.claimed_by);
            }
        }
    }
}

fn pick<T: Copy>(from: &[T], n: u8) -> Option<T> {
    from.get(usize::from(n) % from.len().max(1)).copied()
}

/// The sessions that a broker knows.
fn listed(world: &World) -> BTreeSet<SessionId> {
    let sessions = world.core.list_sessions(&Viewer::Operator);
    let id = |info: v1::SessionInfo| SessionId::from_slice(&info.session_id).unwrap();
    sessions.into_iter().map(id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_history_hands_out_a_session_that_its_host_does_not_obey(
        version in 1..=2_u32,
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut history = History::new(version);
        history.step(&Step::Register { restarted: false });
        for step in &steps {
            history.step(step);
        }
    }

    /// Whatever happened: with a host and a store that work, every device can be had again.
    #[test]
    fn every_history_ends_well_when_the_trouble_ends(
        version in 1..=2_u32,
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut history = History::new(version);
        for step in &steps {
            history.step(step);
        }
        history.step(&Step::FailStore(false));
        history.step(&Step::HoldStore(false));
        history.step(&Step::Wait(2));
        for device in DEVICES {
            history.end_at_host(device);
        }
        history.release_all();
        history.observe();
        for _ in 0..4 {
            history.step(&Step::Register { restarted: false });
            for _ in 0..8 {
                history.step(&Step::FenceDone);
            }
            history.step(&Step::Wait(6));
        }
        history.step(&Step::Register { restarted: false });
        for _ in 0..8 {
            history.step(&Step::FenceDone);
        }
        for device in DEVICES {
            let request = history.world.ask_attach(AGENT, &target(device));
            history.asked.push((request, AGENT));
            history.observe();
            history.step(&Step::FenceDone);
            let attached = history.sessions.last().copied();
            let info = history.world.core.list_sessions(&Viewer::Operator);
            prop_assert!(
                info.iter().any(|s| s.device_id == device && Some(s.session_id.clone()) == attached.map(|a| a.session.to_bytes())),
                "{:?}", history.world.reply(request)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happened: broker and host come to agree on what lives, and a session that nobody ends goes on.
    #[test]
    fn every_history_ends_with_one_view_of_what_lives(
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut history = History::new(2);
        for step in &steps {
            history.step(step);
        }
        history.step(&Step::FailStore(false));
        history.step(&Step::HoldStore(false));
        history.step(&Step::Wait(2));
        history.step(&Step::Register { restarted: false });
        for _ in 0..4 {
            for _ in 0..8 {
                history.step(&Step::FenceDone);
            }
            history.step(&Step::Wait(5));
            history.step(&Step::Heartbeat);
        }
        prop_assert_eq!(listed(&history.world), history.living());
        history.step(&Step::RestartBroker);
        history.step(&Step::Register { restarted: false });
        prop_assert_eq!(listed(&history.world), history.living());
    }
}
