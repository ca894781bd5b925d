//! Of two processes of one agent the newer wins.

use potemkin_proto::v1::{CloseCode, DeviceState};

use super::super::*;
use super::world::*;
use crate::ids::Incarnation;

const OLD: Option<u128> = Some(1);
const NEW: Option<u128> = Some(2);

/// Who took which session's device, as the core told.
fn taken_over(world: &World) -> Vec<(SessionId, Incarnation, Incarnation)> {
    let take = |action: &Action| match action {
        Action::TakenOver {
            session,
            older,
            newer,
            ..
        } => Some((*session, *older, *newer)),
        _ => None,
    };
    world.seen.iter().filter_map(take).collect()
}

fn last_words(world: &World, leg: LegId) -> Option<&str> {
    world.seen.iter().find_map(|action| match action {
        Action::CloseLeg {
            leg: of, message, ..
        } if *of == leg => Some(message.as_str()),
        _ => None,
    })
}

#[test]
fn a_newer_process_takes_a_connected_device_over_once_the_host_has_fenced_it() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let (older, leg) = world.connect_from(conn, OLD, "edu-0");

    let request = world.ask_attach_from(AGENT, NEW, &target("edu-0"));
    assert_eq!(world.closed_legs(), [(leg, CloseCode::Superseded)]);
    assert!(world.reply(request).is_none(), "not before the fence");
    let (epoch, allowed) = world.confirm(conn, "edu-0");

    let newer = world.attached(request);
    assert!(epoch > older.epoch);
    assert_eq!((newer.epoch, Some(newer.id)), (epoch, allowed));
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    assert_eq!(world.core.list_sessions(&Viewer::Operator).len(), 1);
}

#[test]
fn a_takeover_is_durable_before_it_is_fenced() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.connect_from(conn, OLD, "edu-0");
    world.hold_store = true;

    world.ask_attach_from(AGENT, NEW, &target("edu-0"));

    assert_eq!(world.fence_on(conn, "edu-0"), None);
    world.hold_store = false;
    world.settle();
    let (epoch, _) = world.fence_on(conn, "edu-0").unwrap();
    assert_eq!(world.stored("edu-0").unwrap().epoch, epoch);
}

#[test]
fn a_takeover_is_told_with_both_processes_and_the_older_hears_why() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let (older, leg) = world.connect_from(conn, OLD, "edu-0");

    world.ask_attach_from(AGENT, NEW, &target("edu-0"));

    let told = taken_over(&world);
    assert_eq!(told, [(older.id, Incarnation(1), Incarnation(2))]);
    let words = last_words(&world, leg).unwrap();
    assert_eq!(words, "superseded by a newer process of the same agent");
}

#[test]
fn the_same_process_and_one_that_does_not_say_take_nothing_over() {
    for (first, second) in [(OLD, OLD), (OLD, None), (None, NEW), (None, None)] {
        let mut world = World::new();
        let conn = world.host(&["edu-0"]);
        let (session, _) = world.connect_from(conn, first, "edu-0");

        let by_id = world.ask_attach_from(AGENT, second, &target("edu-0"));
        let by_selector = world.ask_attach_from(AGENT, second, &of_class("edu"));

        for request in [by_id, by_selector] {
            let refusal = world.refusal(request);
            assert!(matches!(refusal, Refusal::Precondition(_)), "{refusal:?}");
        }
        assert_eq!(world.closed_legs(), []);
        assert_eq!(world.info("edu-0").epoch, session.epoch);
    }
}

#[test]
fn another_agents_device_is_not_taken_over() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.connect_from(conn, OLD, "edu-0");

    let by_id = world.ask_attach_from(OTHER_AGENT, NEW, &target("edu-0"));
    let by_selector = world.ask_attach_from(OTHER_AGENT, NEW, &of_class("edu"));

    for request in [by_id, by_selector] {
        assert!(matches!(world.refusal(request), Refusal::Precondition(_)));
    }
    assert_eq!(world.closed_legs(), []);
}

#[test]
fn an_attach_of_an_older_process_that_still_waits_gives_way() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let older = world.ask_attach_from(AGENT, OLD, &target("edu-0"));

    let newer = world.ask_attach_from(AGENT, NEW, &target("edu-0"));
    assert!(matches!(world.refusal(older), Refusal::Unavailable(m) if m.contains("newer process")));
    world.confirm(conn, "edu-0");

    world.attached(newer);
}

#[test]
fn a_selector_takes_a_free_device_before_one_of_an_older_process() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "edu-1"]);
    let (_, leg) = world.connect_from(conn, OLD, "edu-0");

    let first = world.ask_attach_from(AGENT, NEW, &of_class("edu"));
    world.confirm(conn, "edu-1");
    world.attached(first);
    assert_eq!(world.closed_legs(), []);

    let second = world.ask_attach_from(AGENT, NEW, &of_class("edu"));
    world.confirm(conn, "edu-0");
    world.attached(second);
    assert_eq!(world.closed_legs(), [(leg, CloseCode::Superseded)]);

    let third = world.ask_attach_from(AGENT, NEW, &of_class("edu"));
    assert!(matches!(world.refusal(third), Refusal::Precondition(_)));
}

#[test]
fn an_explicit_claim_outlives_the_takeover_of_its_session() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    world.connect_from(conn, OLD, "edu-0");

    let request = world.ask_attach_from(AGENT, NEW, &Target::Claim(claim));
    world.confirm(conn, "edu-0");

    world.attached(request);
    assert_eq!(taken_over(&world).len(), 1);
    assert_eq!(world.info("edu-0").claim_id, claim.to_bytes());
}

#[test]
fn a_takeover_that_the_host_does_not_fence_in_time_leaves_the_device_free() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.connect_from(conn, OLD, "edu-0");
    let request = world.ask_attach_from(AGENT, NEW, &target("edu-0"));

    world.heartbeat(conn);
    world.advance(FENCE);

    assert!(matches!(world.refusal(request), Refusal::Unavailable(_)));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}
