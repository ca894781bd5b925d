//! Random histories, and what must hold in all of them.

use std::collections::BTreeMap;
use std::time::Duration;

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
    LoseHost,
    Register {
        restarted: bool,
    },
    Heartbeat,
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
        1 => Just(Step::LoseHost),
        2 => any::<bool>().prop_map(|restarted| Step::Register { restarted }),
        3 => Just(Step::Heartbeat),
        1 => any::<bool>().prop_map(Step::HoldStore),
        1 => any::<bool>().prop_map(Step::FailStore),
        2 => (0..7_u8).prop_map(Step::Wait),
    ]
}

const AGENTS: [&str; 2] = [AGENT, OTHER_AGENT];
const DEVICES: [&str; 2] = ["edu-0", "edu-1"];

/// The host as the rules want it, and what was observed.
struct History {
    world: World,
    conn: Option<ConnId>,
    incarnation: u128,
    /// Fences that came on the present stream and are not answered.
    inbox: Vec<(String, u64, Option<SessionId>)>,
    /// The newest fence that the host has obeyed, by device.
    obeyed: BTreeMap<String, (u64, Option<SessionId>)>,
    asked: Vec<RequestId>,
    sessions: Vec<SessionId>,
    claims: Vec<(ClaimId, usize)>,
    /// The highest epoch of a session that was handed out, by device.
    handed_out: BTreeMap<String, u64>,
}

impl History {
    fn new() -> Self {
        Self {
            world: World::new(),
            conn: None,
            incarnation: 1,
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
                let request = self.world.ask_attach_from(
                    AGENTS[usize::from(agent) % 2],
                    [None, Some(1), Some(2)][usize::from(process) % 3],
                    &target(DEVICES[usize::from(device) % 2]),
                );
                self.asked.push(request);
            }
            Step::Claim(agent, device) => {
                let request = self.world.ask_claim(
                    AGENTS[usize::from(agent) % 2],
                    &target(DEVICES[usize::from(device) % 2]),
                );
                self.asked.push(request);
            }
            Step::AttachClaim(n) => {
                if let Some((claim, agent)) = pick(&self.claims, n) {
                    let request = self.world.ask_attach(AGENTS[agent], &Target::Claim(claim));
                    self.asked.push(request);
                }
            }
            Step::Detach(n) => {
                if let Some(session) = pick(&self.sessions, n) {
                    self.world
                        .ask_detach(Requester::Operator(&name(OPERATOR)), session);
                }
            }
            Step::Release(n) => {
                if let Some((claim, _)) = pick(&self.claims, n) {
                    self.world
                        .ask_release(Requester::Operator(&name(OPERATOR)), claim);
                }
            }
            Step::FenceDone => self.answer_fence(""),
            Step::FenceFails => self.answer_fence("cannot"),
            Step::LoseHost => {
                if let Some(conn) = self.conn.take() {
                    self.inbox.clear();
                    self.world.lose_host(conn);
                }
            }
            Step::Register { restarted } => self.register(restarted),
            Step::Heartbeat => {
                if let Some(conn) = self.conn {
                    self.world.heartbeat(conn);
                }
            }
            Step::HoldStore(hold) => {
                self.world.hold_store = hold;
                self.world.settle();
            }
            Step::FailStore(fail) => self.world.fail_store = fail,
            Step::Wait(seconds) => self.world.advance(Duration::from_secs(seconds.into())),
        }
        self.observe();
    }

    fn register(&mut self, restarted: bool) {
        self.incarnation += u128::from(restarted);
        let offers = DEVICES.iter().map(|device| {
            let mut offer = offer(device);
            offer.highest_epoch = self.obeyed.get(*device).map_or(0, |o| o.0);
            offer
        });
        let hello = hello(self.incarnation, offers.collect());
        if restarted {
            for obeyed in self.obeyed.values_mut() {
                obeyed.1 = None;
            }
        }
        self.inbox.clear();
        self.conn = Some(self.world.register(HOST, hello));
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
        for request in self.asked.clone() {
            if let Some(Ok(reply)) = self.world.reply(request) {
                self.granted(reply);
            }
        }
        self.check_store();
    }

    fn granted(&mut self, reply: Reply) {
        match reply {
            Reply::Attached {
                device,
                session,
                epoch,
                ..
            } => {
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
                self.sessions.push(session);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_history_hands_out_a_session_that_its_host_does_not_obey(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let mut history = History::new();
        history.step(&Step::Register { restarted: false });
        for step in &steps {
            history.step(step);
        }
    }

    /// Whatever happened: with a host and a store that work, every device can be had again.
    #[test]
    fn every_history_ends_well_when_the_trouble_ends(
        steps in prop::collection::vec(any_step(), 1..80),
    ) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
        }
        history.step(&Step::FailStore(false));
        history.step(&Step::HoldStore(false));
        history.step(&Step::Wait(2));
        for (claim, _) in history.claims.clone() {
            history.world.ask_release(Requester::Operator(&name(OPERATOR)), claim);
        }
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
            history.observe_fences();
            history.step(&Step::FenceDone);
            let attached = history.sessions.last().copied();
            let info = history.world.core.list_sessions(&Viewer::Operator);
            prop_assert!(
                info.iter().any(|s| s.device_id == device && Some(s.session_id.clone()) == attached.map(|a| a.to_bytes())),
                "{:?}", history.world.reply(request)
            );
        }
    }
}

impl History {
    fn observe_fences(&mut self) {
        let asked = RequestId(self.world.fresh() - 3);
        self.asked.push(asked);
        self.observe();
    }
}
