//! What a broker makes of the store that an earlier one left.

use std::time::Duration;

use potemkin_proto::v1::DeviceState;

use super::super::*;
use super::world::*;

/// A new broker on the store of `world`, which is dropped as by a crash.
fn restarted(world: World) -> World {
    World::on(world.store, Duration::from_secs(5))
}

#[test]
fn an_explicit_claim_and_its_epoch_survive() {
    let mut world = World::new();
    world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, epoch) = world.claimed(request);

    let mut world = restarted(world);
    let conn = world.host(&["edu-0"]);
    world.confirm(conn, "edu-0");
    world.heartbeat(conn);
    world.advance(GRACE);

    assert_eq!(world.state("edu-0"), DeviceState::Claimed);
    let request = world.ask_attach(AGENT, &Target::Claim(claim));
    world.confirm(conn, "edu-0");
    assert!(world.attached(request).epoch > epoch);
}

#[test]
fn a_device_that_was_used_before_is_fenced_when_its_host_registers() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");

    let mut world = restarted(world);
    let mut known = offer("edu-0");
    known.highest_epoch = session.epoch;
    let conn = world.register(HOST, hello(1, vec![known]));

    let (epoch, allowed) = world.confirm(conn, "edu-0");
    assert!(epoch > session.epoch);
    assert_eq!(allowed, None);
}

#[test]
fn an_implicit_claim_is_released_after_the_grace() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    world.attach(conn, "edu-0");

    let mut world = restarted(world);
    let conn = world.host(&["edu-0"]);
    world.confirm(conn, "edu-0");
    let early = world.ask_attach(OTHER_AGENT, &target("edu-0"));
    assert!(matches!(world.refusal(early), Refusal::Precondition(_)));
    world.advance(GRACE);
    world.confirm(conn, "edu-0");

    assert_eq!(world.state("edu-0"), DeviceState::Free);
    assert_eq!(world.stored("edu-0").unwrap().claim, None);
}

#[test]
fn the_owner_of_an_implicit_claim_may_attach_again_at_once() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let before = world.attach(conn, "edu-0");

    let mut world = restarted(world);
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    assert!(session.epoch > before.epoch);

    let dial = dial::Dial {
        session: session.id,
        epoch: session.epoch,
        attach_number: 1,
    };
    world.core.open_leg(&name(AGENT), dial, LegId(1)).unwrap();
    world.heartbeat(conn);
    world.advance(GRACE);
    assert_eq!(world.state("edu-0"), DeviceState::Attached);
}

#[test]
fn sessions_do_not_survive() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let session = world.attach(conn, "edu-0");
    let mut world = restarted(world);
    world.host(&["edu-0"]);
    let request = world.ask_detach(Requester::Operator(&name(OPERATOR)), session.id);
    assert!(matches!(world.refusal(request), Refusal::NotFound(_)));
}

#[test]
fn a_claim_outlives_even_a_host_that_is_forgotten() {
    let mut world = World::new();
    let conn = world.host(&["edu-0"]);
    let request = world.ask_claim(AGENT, &target("edu-0"));
    let (claim, _) = world.claimed(request);
    world.lose_host(conn);
    world.advance(LEASE);
    world.advance(FORGET);

    world.host(&["edu-0"]);
    assert_eq!(world.info("edu-0").claim_id, claim.to_bytes());
}
