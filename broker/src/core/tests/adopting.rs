//! Sessions that hosts tell of: after the broker's restart, after a gap in their registration, and where another broker grants.

use potemkin_proto::v1::{CloseCode, DeviceState};

use super::super::*;
use super::world::*;

/// The session as its host tells of it.
fn told(session: &Live, device: &str, agent: &str) -> LiveSession {
    LiveSession {
        session: session.id,
        device: id(device),
        epoch: session.epoch,
        agent: name(agent),
        claim: ClaimId(0xc1a1),
    }
}

/// A host of version 2 with `edu-0`, on which AGENT has this session.
fn with_session(session: &Live) -> Hello {
    let mut edu = offer("edu-0");
    edu.highest_epoch = session.epoch;
    Hello {
        version: 2,
        sessions: vec![told(session, "edu-0", AGENT)],
        ..hello(1, vec![edu])
    }
}

/// ... and on which the session is not.
fn without_session(session: &Live) -> Hello {
    Hello {
        sessions: Vec::new(),
        ..with_session(session)
    }
}

/// A session of version 2 that has begun at its host.
fn started(world: &mut World) -> (ConnId, Live) {
    let conn = world.register(
        HOST,
        Hello {
            version: 2,
            ..hello(1, vec![offer("edu-0")])
        },
    );
    let session = world.attach(conn, "edu-0");
    world.tell(conn, &told(&session, "edu-0", AGENT));
    (conn, session)
}

fn live(epoch: u64) -> Live {
    Live {
        id: SessionId(77),
        epoch,
    }
}

fn restarted(world: World) -> World {
    World::on(world.store, Duration::from_secs(5))
}

fn dials(world: &mut World, session: &Live, attach_number: u32) -> Result<Route, CloseCode> {
    let dial = dial::Dial {
        session: session.id,
        epoch: session.epoch,
        attach_number,
    };
    let leg = LegId(world.fresh());
    let route = world.core.open_leg(&name(AGENT), dial, leg);
    world.settle();
    route.map_err(|refusal| refusal.code)
}

#[test]
fn a_session_goes_on_through_the_brokers_restart() {
    let mut world = World::new();
    let (_, session) = started(&mut world);

    let mut world = restarted(world);
    let unknown = dials(&mut world, &session, 2);
    assert_eq!(unknown.unwrap_err(), CloseCode::Unreachable);
    let conn = world.register(HOST, with_session(&session));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    assert_eq!(world.info("edu-0").claimed_by, AGENT);
    assert!(dials(&mut world, &session, 2).is_ok());
    // Neither the claim that was restored nor the session has a time limit here.
    for _ in 0..5 {
        world.heartbeat(conn);
        world.advance(GRACE);
    }
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    assert!(world.stored("edu-0").unwrap().claim.unwrap().implicit);
}

#[test]
fn a_host_that_comes_late_after_the_restart_keeps_its_session() {
    let mut world = World::new();
    let (_, session) = started(&mut world);

    let mut world = restarted(world);
    world.advance(GRACE * 4);
    let conn = world.register(HOST, with_session(&session));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
}

#[test]
fn an_adopted_session_ends_as_any_other() {
    let mut world = World::new();
    let (_, session) = started(&mut world);
    let mut world = restarted(world);
    let conn = world.register(HOST, with_session(&session));

    let request = world.ask_detach(Requester::Agent(&name(AGENT)), session.id);
    let (epoch, allowed) = world.confirm(conn, "edu-0");

    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert!(world.reply(request).unwrap().is_ok());
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    assert_eq!(world.stored("edu-0").unwrap().claim, None);
}

#[test]
fn an_explicit_claim_of_the_same_agent_outlives_the_adopted_session() {
    let mut world = World::new();
    let conn = world.register(
        HOST,
        Hello {
            version: 2,
            ..hello(1, vec![offer("edu-0")])
        },
    );
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    let request = world.ask_attach(AGENT, &Target::Claim(claim));
    world.confirm(conn, "edu-0");
    let session = world.attached(request);

    let mut world = restarted(world);
    let conn = world.register(HOST, with_session(&session));
    assert_eq!(world.fence_on(conn, "edu-0"), None);
    world.ended(HOST, session.id);

    assert_eq!(world.state("edu-0"), DeviceState::Claimed);
    assert_eq!(world.info("edu-0").claim_id, claim.to_bytes());
}

#[test]
fn a_broker_that_lost_its_store_believes_the_host() {
    let mut world = World::new();
    let conn = world.register(HOST, with_session(&live(9)));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    let row = world.stored("edu-0").unwrap();
    assert_eq!(row.epoch, 9);
    let claim = row.claim.unwrap();
    assert_eq!((&*claim.owner, claim.implicit), (AGENT, true));
    world.ended(HOST, live(9).id);
    assert_eq!(world.confirm(conn, "edu-0"), (10, None));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_session_whose_end_is_in_the_store_is_fenced() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    world.lose_host(conn);
    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);

    let mut world = restarted(world);
    let conn = world.register(HOST, with_session(&session));

    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    assert!(dials(&mut world, &session, 2).is_err());
}

#[test]
fn a_session_on_a_device_that_another_agent_has_is_fenced() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    let request = world.ask_claim(OTHER_AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);

    let mut world = restarted(world);
    let conn = world.register(HOST, with_session(&live(9)));

    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert_eq!((epoch, allowed), (10, None));
    assert_eq!(world.info("edu-0").claim_id, claim.to_bytes());
}

#[test]
fn a_session_of_an_agent_that_the_policy_does_not_allow_is_fenced() {
    let mut world = World::new();
    let mut hello = with_session(&live(9));
    hello.sessions[0].agent = name("spiffe://elsewhere.dev/agent/a");
    let conn = world.register(HOST, hello);
    assert_eq!(world.confirm(conn, "edu-0"), (10, None));
}

#[test]
fn a_session_that_the_host_is_about_to_end_is_not_adopted() {
    let mut world = World::new();
    let mut hello = with_session(&live(9));
    hello.offers[0].highest_epoch = 10;
    let conn = world.register(HOST, hello);
    assert_eq!(world.confirm(conn, "edu-0"), (11, None));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn one_session_is_not_adopted_on_two_devices() {
    let mut world = World::new();
    world.register(HOST, with_session(&live(9)));
    let mut edu = offer("edu-1");
    edu.highest_epoch = 9;
    let liar = Hello {
        version: 2,
        sessions: vec![told(&live(9), "edu-1", AGENT)],
        ..hello(2, vec![edu])
    };
    let conn = world.register(OTHER_HOST, liar);
    assert_eq!(world.confirm(conn, "edu-1"), (10, None));
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    assert_eq!(&*dials(&mut world, &live(9), 1).unwrap().host, HOST);
}

#[test]
fn a_session_that_lived_through_a_gap_goes_on() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    world.lose_host(conn);

    let conn = world.register(HOST, with_session(&session));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
}

#[test]
fn a_session_that_ended_in_a_gap_is_over() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    dials(&mut world, &session, 1).unwrap();
    world.lose_host(conn);

    let conn = world.register(HOST, without_session(&session));

    assert_eq!(world.closed_legs()[0].1, CloseCode::Unreachable);
    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_session_that_nobody_has_dialled_yet_survives_a_gap_for_its_grace() {
    let mut world = World::new();
    let conn = world.register(HOST, without_session(&live(0)));
    let session = world.attach(conn, "edu-0");
    world.lose_host(conn);

    let conn = world.register(HOST, without_session(&session));
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    world.heartbeat(conn);
    world.advance(GRACE);

    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn the_grace_is_the_hosts_once_the_session_has_begun() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    for attach_number in 1..4 {
        dials(&mut world, &session, attach_number).unwrap();
        let leg = LegId(world.fresh() - 1);
        world.core.leg_closed(world.now, session.id, leg);
        world.heartbeat(conn);
        world.advance(GRACE);
        world.heartbeat(conn);
        world.advance(GRACE);
        assert_eq!(world.state("edu-0"), DeviceState::Attached);
    }
    world.ended(HOST, session.id);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_dial_that_the_host_did_not_accept_leaves_the_grace_here() {
    let mut world = World::new();
    let conn = world.register(HOST, without_session(&live(0)));
    let session = world.attach(conn, "edu-0");
    dials(&mut world, &session, 1).unwrap();
    let leg = LegId(world.fresh() - 1);
    world.core.leg_closed(world.now, session.id, leg);
    world.heartbeat(conn);
    world.advance(GRACE);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_session_whose_start_was_told_in_a_gap_is_not_kept_for_ever() {
    let mut world = World::new();
    let conn = world.register(HOST, without_session(&live(0)));
    let session = world.attach(conn, "edu-0");
    dials(&mut world, &session, 1).unwrap();
    let leg = LegId(world.fresh() - 1);
    world.core.leg_up(session.id, leg, ("quic", "quic"));
    world.lose_host(conn);
    world.core.leg_closed(world.now, session.id, leg);

    let conn = world.register(HOST, without_session(&session));
    world.heartbeat(conn);
    world.advance(GRACE);

    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_stream_that_outlives_a_gap_does_not_stand_for_its_session() {
    let mut world = World::new();
    let conn = world.register(HOST, without_session(&live(0)));
    let session = world.attach(conn, "edu-0");
    dials(&mut world, &session, 1).unwrap();
    let leg = LegId(world.fresh() - 1);
    world.core.leg_up(session.id, leg, ("quic", "quic"));
    world.lose_host(conn);
    let conn = world.register(HOST, without_session(&session));

    world.core.leg_closed(world.now, session.id, leg);
    world.heartbeat(conn);
    world.advance(GRACE);

    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_session_below_a_claim_that_needed_no_fence_is_fenced() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    world.ended(HOST, session.id);
    let (fenced, _) = world.confirm(conn, "edu-0");
    let request = world.ask_claim(OTHER_AGENT, &target("edu-0"));
    world.claimed(request);
    world.lose_host(conn);

    let conn = world.register(HOST, with_session(&live(fenced)));

    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > fenced);
    assert_eq!(allowed, None);
}

#[test]
fn late_news_of_a_session_that_has_ended_change_nothing() {
    let mut world = World::new();
    let (conn, old) = started(&mut world);
    world.ended(HOST, old.id);
    world.confirm(conn, "edu-0");
    let new = world.attach(conn, "edu-0");

    world.tell(conn, &told(&old, "edu-0", AGENT));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert!(dials(&mut world, &new, 1).is_ok());
}

#[test]
fn a_session_that_nobody_could_have_granted_is_fenced() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    let mut other = told(&live(session.epoch + 4), "edu-0", OTHER_AGENT);
    world.tell(conn, &other);
    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > other.epoch);
    assert_eq!(allowed, None);

    other.device = id("edu-7");
    world.tell(conn, &other);
    assert_eq!(world.stored("edu-7"), None);
}

#[test]
fn a_relay_routes_what_hosts_tell_of_and_grants_nothing() {
    let mut world = World::relaying();
    let conn = world.register(HOST, without_session(&live(8)));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    world.tell(conn, &told(&live(8), "edu-0", AGENT));

    assert_eq!(&*dials(&mut world, &live(8), 3).unwrap().host, HOST);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    assert_eq!(world.info("edu-0").claimed_by, AGENT);
    let refused = [
        world.ask_attach(AGENT, &target("edu-0")),
        world.ask_claim(AGENT, &target("edu-0")),
        world.ask_release(Requester::Operator(&name(OPERATOR)), ClaimId(0xc1a1)),
        world.ask_detach(Requester::Agent(&name(AGENT)), live(8).id),
    ];
    for request in refused {
        assert!(matches!(world.refusal(request), Refusal::Unavailable(m) if m.contains("grants")));
    }
    assert!(dials(&mut world, &live(8), 4).is_ok());
    world.nothing_was_decided();
}

#[test]
fn a_relay_forgets_sessions_with_their_host_and_fences_nothing() {
    let mut world = World::relaying();
    world.register(HOST, with_session(&live(8)));
    world.advance(LEASE);
    world.advance(FORGET);
    assert!(dials(&mut world, &live(8), 1).is_err());

    world.register(HOST, with_session(&live(8)));
    assert!(dials(&mut world, &live(8), 1).is_ok());
    world.ended(HOST, live(8).id);
    assert!(dials(&mut world, &live(8), 2).is_err());

    world.register(HOST, with_session(&live(9)));
    let mut reborn = without_session(&live(9));
    reborn.incarnation = crate::ids::Incarnation(2);
    world.register(HOST, reborn);
    assert!(dials(&mut world, &live(9), 1).is_err());
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    world.nothing_was_decided();
}

#[test]
fn a_session_outlives_the_lease_of_a_host_that_comes_back_with_it() {
    let mut world = World::new();
    let (conn, session) = started(&mut world);
    world.advance(LEASE);
    assert!(world.was_closed(conn));

    let conn = world.register(HOST, with_session(&session));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    assert!(dials(&mut world, &session, 2).is_ok());
}

#[test]
fn a_session_ends_when_another_host_takes_its_device_over() {
    let mut world = World::new();
    let (_conn, session) = started(&mut world);
    world.advance(LEASE + DRIFT);

    let other = world.register(OTHER_HOST, hello(7, vec![offer("edu-0")]));

    let (epoch, allowed) = world.confirm(other, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert!(dials(&mut world, &session, 2).is_err());
}

#[test]
fn a_relay_follows_the_broker_that_grants() {
    let mut world = World::relaying();
    let conn = world.register(HOST, with_session(&live(8)));
    let newer = Live {
        id: SessionId(78),
        epoch: 11,
    };
    world.tell(conn, &told(&newer, "edu-0", OTHER_AGENT));
    assert!(dials(&mut world, &live(8), 1).is_err());
    assert_eq!(world.info("edu-0").claimed_by, OTHER_AGENT);
    world.tell(conn, &told(&live(8), "edu-0", AGENT));
    assert_eq!(world.info("edu-0").claimed_by, OTHER_AGENT);

    // A session that ended in a gap is forgotten, and one that began in it is known.
    world.lose_host(conn);
    let newest = Live {
        id: SessionId(79),
        epoch: 12,
    };
    world.register(HOST, with_session(&newest));
    assert!(dials(&mut world, &newest, 1).is_ok());
    world.nothing_was_decided();
}
