//! Claims before any attach.

use potemkin_proto::v1::DeviceState;

use super::super::*;
use super::world::*;

#[test]
fn a_claim_is_answered_when_it_is_durable() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    world.hold_store = true;
    let request = world.ask_claim(AGENT, &target("edu-0"));
    assert!(world.reply(request).is_none());

    world.hold_store = false;
    world.settle();

    let (claim, epoch) = world.claimed(request);
    let row = world.stored("edu-0").unwrap();
    assert_eq!((row.epoch, row.claim.unwrap().id), (epoch, claim));
    assert_eq!(world.state("edu-0"), DeviceState::Claimed);
}

#[test]
fn the_first_attach_of_a_claim_uses_its_epoch_and_the_next_a_higher_one() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, epoch) = world.claimed(request);

    let first = world.ask_attach(AGENT, &Target::Claim(claim));
    world.confirm(conn, "edu-0");
    assert_eq!(world.attached(first).epoch, epoch);

    let second = world.ask_attach(AGENT, &Target::Claim(claim));
    world.confirm(conn, "edu-0");
    assert!(world.attached(second).epoch > epoch);
}

#[test]
fn a_claim_outlives_its_sessions() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    let request = world.ask_attach(AGENT, &Target::Claim(claim));
    world.confirm(conn, "edu-0");
    let session = world.attached(request);

    world.ask_detach(Requester::Agent(&name(AGENT)), session.id);
    world.confirm(conn, "edu-0");

    assert_eq!(world.state("edu-0"), DeviceState::Claimed);
    assert_eq!(world.stored("edu-0").unwrap().claim.unwrap().id, claim);
}

#[test]
fn attaching_by_id_uses_ones_own_claim() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    world.attach(conn, "edu-0");
    let info = world.info("edu-0");
    assert_eq!(info.claim_id, claim.to_bytes());
    assert!(!info.claim_implicit);
}

#[test]
fn release_ends_the_session_and_frees_the_device() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    let session = world.attach(conn, "edu-0");

    let request = world.ask_release(Requester::Agent(&name(AGENT)), claim);
    assert!(world.reply(request).is_none());
    let (epoch, allowed) = world.confirm(conn, "edu-0");

    assert!(world.reply(request).unwrap().is_ok());
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
    assert_eq!(world.state("edu-0"), DeviceState::Free);
    assert_eq!(world.stored("edu-0").unwrap().claim, None);
}

#[test]
fn a_release_while_the_host_is_away_is_answered_once_durable() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    world.lose_host(conn);
    world.hold_store = true;

    let request = world.ask_release(Requester::Operator(&name(OPERATOR)), claim);
    assert!(world.reply(request).is_none());
    world.hold_store = false;
    world.settle();

    assert!(world.reply(request).unwrap().is_ok());
}

#[test]
fn the_device_of_a_release_is_fenced_as_soon_as_its_host_is_back() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.lose_host(conn);
    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);

    let conn = world.host(&["edu-0"]);

    let (epoch, allowed) = world.fence_on(conn, "edu-0").unwrap();
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
}

#[test]
fn a_claim_of_a_device_that_is_not_fenced_yet_waits_for_the_fence() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);

    let request = world.ask_claim(OTHER_AGENT, &target("edu-0"));
    assert!(world.reply(request).is_none());
    let (fenced, _) = world.confirm(conn, "edu-0");

    let (claim, epoch) = world.claimed(request);
    assert_eq!(epoch, fenced);
    // The host has seen this epoch without a session: the attach needs a new one.
    let request = world.ask_attach(OTHER_AGENT, &Target::Claim(claim));
    world.confirm(conn, "edu-0");
    assert!(world.attached(request).epoch > epoch);
}

#[test]
fn a_claim_whose_device_is_not_fenced_in_time_is_undone() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
    let request = world.ask_claim(OTHER_AGENT, &target("edu-0"));

    world.heartbeat(conn);
    world.advance(FENCE);

    assert!(matches!(world.refusal(request), Refusal::Unavailable(_)));
    assert_eq!(world.stored("edu-0").unwrap().claim, None);
}

#[test]
fn only_the_owner_or_an_operator_may_use_or_release_a_claim() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);

    let attach = world.ask_attach(OTHER_AGENT, &Target::Claim(claim));
    let release = world.ask_release(Requester::Agent(&name(OTHER_AGENT)), claim);
    let unknown = world.ask_release(Requester::Operator(&name(OPERATOR)), ClaimId(77));

    for request in [attach, release, unknown] {
        assert!(matches!(world.refusal(request), Refusal::NotFound(_)));
    }
    assert_eq!(world.state("edu-0"), DeviceState::Claimed);
}

#[test]
fn a_device_is_claimed_once() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    world.claimed(request);
    for agent in [AGENT, OTHER_AGENT] {
        let request = world.ask_claim(agent, &target("edu-0"));
        assert!(matches!(world.refusal(request), Refusal::Precondition(_)));
    }
}

#[test]
fn an_agent_holds_at_most_its_number_of_claims() {
    let mut world = World::new();
    world.host(&["edu-0", "edu-1", "edu-2"]);
    for _ in 0..2 {
        let request = world.ask_claim(AGENT, &of_class("edu"));
        world.claimed(request);
    }
    let request = world.ask_claim(AGENT, &of_class("edu"));
    assert!(matches!(world.refusal(request), Refusal::Exhausted(_)));
}

#[test]
fn a_store_that_fails_fails_the_claim() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    world.fail_store = true;
    let request = world.ask_claim(AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(request), Refusal::Unavailable(_)));
    assert_eq!(world.state("edu-0"), DeviceState::Free);
}

#[test]
fn a_claim_that_is_still_being_taken_can_be_neither_used_nor_taken_again() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    world.hold_store = true;
    let claim = world.ask_claim(AGENT, &target("edu-0"));
    let attach = world.ask_attach(AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(attach), Refusal::Unavailable(_)));
    world.hold_store = false;
    world.settle();
    world.claimed(claim);
}
