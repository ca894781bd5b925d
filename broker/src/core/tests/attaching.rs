//! Attach and detach.

use std::time::Duration;

use potemkin_proto::v1::{CloseCode, DeviceState};

use super::super::*;
use super::world::*;

#[test]
fn an_attach_is_answered_only_after_the_host_confirmed_its_fence() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);

    let request = world.ask_attach(AGENT, &target("edu-0"));
    let (epoch, session) = world.fence_on(conn, "edu-0").unwrap();
    assert!(world.reply(request).is_none());
    world.fence_done(conn, "edu-0", epoch, "");

    let attached = world.attached(request);
    assert_eq!(Some(attached.id), session);
    assert_eq!(attached.epoch, epoch);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
}

#[test]
fn no_fence_is_sent_before_its_epoch_is_durable() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.hold_store = true;

    world.ask_attach(AGENT, &target("edu-0"));
    assert_eq!(world.fence_on(conn, "edu-0"), None);

    world.hold_store = false;
    world.settle();
    let (epoch, _) = world.fence_on(conn, "edu-0").unwrap();
    assert_eq!(world.stored("edu-0").unwrap().epoch, epoch);
}

#[test]
fn the_commit_of_an_older_epoch_does_not_send_the_newer_one() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.hold_store = true;
    world.ask_attach(AGENT, &target("edu-0"));
    world.heartbeat(conn);
    world.advance(FENCE);

    world.commit_held();
    world.settle();
    assert_eq!(world.fence_on(conn, "edu-0"), None);

    world.hold_store = false;
    world.settle();
    let (epoch, allowed) = world.fence_on(conn, "edu-0").unwrap();
    assert_eq!(world.stored("edu-0").unwrap().epoch, epoch);
    assert_eq!(allowed, None);
}

#[test]
fn detach_raises_the_epoch_and_fences_with_no_session() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");

    let request = world.ask_detach(Requester::Agent(&name(AGENT)), session.id);
    let (epoch, allowed) = world.confirm(conn, "edu-0");

    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert!(matches!(world.reply(request), Some(Ok(Reply::Ended))));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    assert_eq!(world.stored("edu-0").unwrap().claim, None);
}

#[test]
fn each_attach_has_a_higher_epoch_than_all_before() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let mut last = 0;
    for _ in 0..5 {
        let session = world.attach(conn, "edu-0");
        assert!(session.epoch > last);
        last = session.epoch;
        world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
        world.confirm(conn, "edu-0");
    }
}

#[test]
fn a_fence_that_is_not_confirmed_in_time_undoes_the_attach() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_attach(AGENT, &target("edu-0"));
    let (first, _) = world.fence_on(conn, "edu-0").unwrap();

    world.heartbeat(conn);
    world.advance(FENCE);

    assert!(matches!(world.refusal(request), Refusal::Unavailable(_)));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    let (second, allowed) = world.fence_on(conn, "edu-0").unwrap();
    assert!(second > first);
    assert_eq!(allowed, None);
}

#[test]
fn the_late_answer_to_a_superseded_fence_starts_nothing() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.ask_attach(AGENT, &target("edu-0"));
    let (first, _) = world.fence_on(conn, "edu-0").unwrap();
    world.heartbeat(conn);
    world.advance(FENCE);
    let again = world.ask_attach(OTHER_AGENT, &target("edu-0"));

    world.fence_done(conn, "edu-0", first, "");

    assert!(world.reply(again).is_none());
    world.confirm(conn, "edu-0");
    assert!(world.attached(again).epoch > first);
}

#[test]
fn a_host_that_cannot_fence_fails_the_attach_and_is_asked_again() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_attach(AGENT, &target("edu-0"));
    let (epoch, _) = world.fence_on(conn, "edu-0").unwrap();

    world.fence_done(conn, "edu-0", epoch, "the device hangs");
    let refusal = world.refusal(request).to_string();
    assert!(refusal.contains("the device hangs"), "{refusal}");
    let (undone, _) = world.fence_on(conn, "edu-0").unwrap();
    world.fence_done(conn, "edu-0", undone, "it still hangs");
    assert_eq!(world.fence_on(conn, "edu-0"), None);

    world.heartbeat(conn);
    world.advance(FENCE);
    assert_eq!(world.fence_on(conn, "edu-0"), Some((undone, None)));
}

#[test]
fn a_device_of_another_agent_is_refused() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.attach(conn, "edu-0");
    let request = world.ask_attach(OTHER_AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(request), Refusal::Precondition(_)));
}

#[test]
fn a_device_that_no_host_offers_is_not_found() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    let request = world.ask_attach(AGENT, &target("edu-9"));
    assert!(matches!(world.refusal(request), Refusal::NotFound(m) if m.contains("edu-9")));
}

#[test]
fn a_device_that_the_policy_denies_is_denied_whether_it_is_there_or_not() {
    let mut world = World::new();
    world.host(&["uart-0"]);
    let there = world.ask_attach(AGENT, &target("uart-0"));
    assert!(matches!(world.refusal(there), Refusal::Denied(_)));
    let stranger = "spiffe://elsewhere.dev/agent/a";
    let not_there = world.ask_attach(stranger, &target("edu-9"));
    assert!(matches!(world.refusal(not_there), Refusal::Denied(_)));
}

#[test]
fn a_selector_takes_the_first_free_device_that_fits() {
    let mut world = World::new();
    let conn = world.host(&["nvme-0", "edu-2", "edu-1", "edu-0"]);
    world.attach(conn, "edu-0");

    let request = world.ask_attach(OTHER_AGENT, &of_class("edu"));

    world.confirm(conn, "edu-1");
    world.attached(request);
}

#[test]
fn a_selector_tells_apart_nothing_fitting_all_taken_and_denied() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "uart-0"]);
    world.attach(conn, "edu-0");
    let nothing = world.ask_attach(AGENT, &of_class("gpu"));
    let taken = world.ask_attach(AGENT, &of_class("edu"));
    let denied = world.ask_attach(AGENT, &of_class("uart"));
    assert!(matches!(world.refusal(nothing), Refusal::NotFound(_)));
    assert!(matches!(world.refusal(taken), Refusal::Precondition(_)));
    assert!(matches!(world.refusal(denied), Refusal::Denied(_)));
}

#[test]
fn a_selector_wants_every_label() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let with = |zone: &str| Target::Fitting {
        class: None,
        labels: [("zone".to_owned(), zone.to_owned())].into(),
    };
    let wrong = world.ask_attach(AGENT, &with("b"));
    assert!(matches!(world.refusal(wrong), Refusal::NotFound(_)));
    let right = world.ask_attach(AGENT, &with("a"));
    world.confirm(conn, "edu-0");
    world.attached(right);
}

#[test]
fn a_device_whose_host_is_away_is_refused() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.lose_host(conn);
    let request = world.ask_attach(AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(request), Refusal::Precondition(m) if m.contains("away")));
}

#[test]
fn losing_the_host_fails_the_attach_that_waits_for_it() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_attach(AGENT, &target("edu-0"));
    world.lose_host(conn);
    assert!(matches!(world.refusal(request), Refusal::Unavailable(_)));
    assert_eq!(world.stored("edu-0").unwrap().claim, None);
}

#[test]
fn only_the_owner_or_an_operator_may_detach() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    let foreign = world.ask_detach(Requester::Agent(&name(OTHER_AGENT)), session.id);
    assert!(matches!(world.refusal(foreign), Refusal::NotFound(_)));
    let operator = world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
    world.confirm(conn, "edu-0");
    assert!(world.reply(operator).unwrap().is_ok());
}

#[test]
fn a_detach_is_answered_when_the_host_does_not_confirm_in_time() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    let request = world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
    assert!(world.reply(request).is_none());
    world.heartbeat(conn);
    world.advance(FENCE);
    assert!(world.reply(request).unwrap().is_ok());
}

#[test]
fn a_session_without_data_leg_ends_after_the_grace_with_its_implicit_claim() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");

    world.advance(GRACE - Duration::from_millis(1));
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    world.advance(Duration::from_millis(1));

    assert_eq!(world.state("edu-0"), DeviceState::Free);
    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
}

#[test]
fn an_agent_takes_its_unconnected_device_back_but_not_its_connected_one() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let lost = world.attach(conn, "edu-0");
    let session = world.attach(conn, "edu-0");
    assert!(session.epoch > lost.epoch);

    let dial = dial::Dial {
        session: session.id,
        epoch: session.epoch,
        attach_number: 1,
    };
    world.core.open_leg(&name(AGENT), dial, LegId(1)).unwrap();
    let request = world.ask_attach(AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(request), Refusal::Precondition(m) if m.contains("already")));
}

#[test]
fn two_attaches_of_one_device_at_once_do_not_disturb_each_other() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let first = world.ask_attach(AGENT, &target("edu-0"));
    let second = world.ask_attach(AGENT, &target("edu-0"));
    let third = world.ask_attach(OTHER_AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(second), Refusal::Unavailable(_)));
    assert!(matches!(world.refusal(third), Refusal::Precondition(_)));
    world.confirm(conn, "edu-0");
    world.attached(first);
}

#[test]
fn an_agent_has_at_most_its_number_of_sessions() {
    let mut world = World::new();
    let conn = world.host(&["edu-0", "edu-1", "edu-2", "edu-3"]);
    for device in ["edu-0", "edu-1", "edu-2"] {
        world.attach(conn, device);
    }
    let request = world.ask_attach(AGENT, &target("edu-3"));
    assert!(matches!(world.refusal(request), Refusal::Exhausted(_)));
    let request = world.ask_attach(OTHER_AGENT, &target("edu-3"));
    world.confirm(conn, "edu-3");
    world.attached(request);
}

#[test]
fn a_peer_has_at_most_its_number_of_waiting_requests() {
    let mut world = World::new();
    world.host(&["edu-0", "edu-1", "edu-2", "edu-3"]);
    for device in ["edu-0", "edu-1", "edu-2"] {
        world.ask_attach(AGENT, &target(device));
    }
    let request = world.ask_attach(AGENT, &target("edu-3"));
    assert!(matches!(world.refusal(request), Refusal::Exhausted(_)));
}

#[test]
fn a_store_that_fails_fails_the_attach_and_nothing_is_handed_out() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.fail_store = true;
    let request = world.ask_attach(AGENT, &target("edu-0"));

    assert!(matches!(world.refusal(request), Refusal::Unavailable(m) if m.contains("store")));
    assert_eq!(world.fence_on(conn, "edu-0"), None);

    world.fail_store = false;
    world.advance(Duration::from_secs(1));
    assert_eq!(world.confirm(conn, "edu-0").1, None);
    world.attach(conn, "edu-0");
}

#[test]
fn the_hosts_word_that_a_session_ended_ends_it() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.core.ended_by_host(
        world.now,
        &name(OTHER_HOST),
        session.id,
        CloseCode::Normal,
        "lies",
    );
    world.settle();
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
    world.core.ended_by_host(
        world.now,
        &name(HOST),
        session.id,
        CloseCode::Unreachable,
        "device gone",
    );
    world.settle();
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}
